"""A recording: from nothing, and cut short."""

import json
import shutil
from types import SimpleNamespace

import pytest

from replication import paths, profiles
from replication.measure import cache
from replication.run.notebooks import NOTEBOOKS
from scripts import record

COMMITTED = {
    "recorded": paths.RECORDED / profiles.RECORDED,
    "figures": paths.FIGURES / profiles.RECORDED,
}


@pytest.fixture
def recorded(output, monkeypatch):
    """The folder of recorded runs, empty."""
    monkeypatch.setattr(paths, "RECORDED", output / "recorded")
    return output / "recorded"


def test_a_record_from_nothing_has_what_is_committed(smoke_run, recorded, monkeypatch):
    """Every notebook is run; each table and figure that it leaves is copied, and no other."""
    numbers = []

    def leave(command, env, cwd):
        numbers.append(command[-1])
        place = record.workplace("smoke")
        assert env["DEEPER_LAYERS_OUTPUT"] == str(place)
        if numbers == list(NOTEBOOKS):
            for name in ("data/tables/smoke", "figures/smoke"):
                shutil.copytree(smoke_run / name, place / name)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(record, "subprocess", SimpleNamespace(run=leave))
    assert record.main(["--profile", "smoke"]) == 0
    assert numbers == list(NOTEBOOKS)
    run = json.loads((recorded / "smoke" / "run.json").read_text())
    assert run["environment"]["torch"] and run["profile"] == "smoke"
    copied = {"recorded": recorded / "smoke", "figures": paths.FIGURES / "smoke"}
    for kind, folder in COMMITTED.items():
        names = {file.name for file in folder.iterdir() if not file.name.startswith("explorer")}
        names -= {"every_place.parquet"}  # which exercise 10.3 measures
        assert {file.name for file in copied[kind].iterdir()} == names


def test_a_recording_goes_on_from_what_is_recorded(smoke_run, recorded, monkeypatch):
    """In the format that it began with; a failed notebook keeps no other from running."""
    begun = {"dtype": "float32", "processor": "Abacus 9"}
    folder = recorded / "smoke"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"format": begun}))
    for name in ("test_split", "trainings"):
        shutil.copy(smoke_run / f"data/tables/smoke/{name}.parquet", folder)
    codes = [1, 0]

    def runs(command, **_):
        assert list(cache.stored("scores"))
        assert list(cache.stored("healing"))
        assert json.loads((paths.RESULTS / "format.json").read_text()) == begun
        return SimpleNamespace(returncode=codes.pop(0))

    monkeypatch.setattr(record, "subprocess", SimpleNamespace(run=runs))
    assert record.record("smoke", ["02", "03"]) == 1
    assert not codes
    assert json.loads((folder / "run.json").read_text())["format"] == begun
