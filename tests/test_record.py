"""A recording: from nothing, cut short, and from what is recorded alone."""

import json
import shutil
from operator import attrgetter
from types import SimpleNamespace

import pandas as pd
import pytest

from lib.blocks import Block
from replication import measure, paths, profiles, tables
from replication.measure import cache, dose, experiments, inference_cost, request
from replication.run.notebooks import NOTEBOOKS
from scripts import record

COMMITTED = {
    "recorded": paths.RECORDED / profiles.RECORD_PROFILE,
    "figures": paths.FIGURES / profiles.RECORD_PROFILE,
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
        names -= {"every_place.parquet"}  # which exercise 10.3 asks for
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


# ---- the committed record ------------------------------------------------------------------

PROFILE, DRAW_ONLY = profiles.get(profiles.RECORD_PROFILE), profiles.get(profiles.DRAW_ONLY_PROFILE)


def every_place(name, distances, profile):
    """Exercise 10.3."""
    few = profile.with_prompt(profile.mmlu_shots)
    places = [Block(start, 3) for start in range(distances.num_layers - 2)]
    return [request.score(name, few, "arc_easy_letters", block) for block in places]


EXPERIMENTS = {
    one.__name__: (one, of.models) for of in NOTEBOOKS.values() for one in of.experiments
}
EXPERIMENTS |= {  # those of no job
    "trainings": (dose.trainings, attrgetter("models")),
    "stacked": (experiments.stacked, attrgetter("models")),
    "cost": (inference_cost.cost, attrgetter("ablation_models")),  # the Qwens were not timed
    "every_place": (every_place, lambda profile: [profile.main_model]),
}
MACHINE = {"processor": "AMD EPYC", "threads": 2}  # that timed `cost`


@pytest.fixture(scope="module")
def record_alone(tmp_path_factory):
    """The recorded tables as the only results, of which none is measured."""
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "RESULTS", folder)
        patch.setattr(paths, "TABLES", folder / "tables")
        patch.setenv(paths.DRAW_ONLY_VARIABLE, "1")
        patch.setattr(cache, "timing_identity", lambda device: MACHINE)
        shutil.copytree(COMMITTED["recorded"], cache.record_folder())
        cache.format_file().write_text(json.dumps(record.description(PROFILE.name)["format"]))
        yield tables.maps(DRAW_ONLY)


def test_every_recorded_table_has_an_experiment():
    recorded = {file.stem for file in COMMITTED["recorded"].glob("*.parquet")}
    assert recorded == set(EXPERIMENTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_recorded_table_made_again_from_the_record_alone_is_itself(record_alone, name):
    """So a recording goes on, and asks what was recorded under the same parameters: none changed,
    came or went."""
    recorded = tables.read(name, DRAW_ONLY)
    if name == "last_layers":  # also has a cut that nothing asks for any more
        recorded = recorded[~recorded.request.str.contains("patched")]
    if name == "similarity":
        measure.distances(PROFILE)
    else:
        experiment, models = EXPERIMENTS[name]
        measure.table(experiment, {of: record_alone[of] for of in models(PROFILE)}, PROFILE)
    again = tables.read(name, PROFILE)
    both = [table.astype(object).where(table.notna(), None) for table in (again, recorded)]
    both = [table.reset_index(drop=True) for table in both]
    pd.testing.assert_frame_equal(*both, check_like=True, rtol=1e-9, atol=1e-12)


def test_a_recording_that_has_less_takes_nothing_from_the_record():
    """Not what nothing asks for any more, nor what could not be measured this time; a new version
    of a result replaces the old one."""
    columns = ["request", "value"]
    blocks = [{"kind": "scores", "block_start": start, "version": 1} for start in (1, 2, 3)]
    one, two, three, newer = map(json.dumps, [*blocks, blocks[0] | {"version": 2}])
    recorded = pd.DataFrame([(one, 0.1), (two, 0.2), (three, 0.3)], columns=columns)
    table = pd.DataFrame([(newer, 0.4), (two, None)], columns=columns)
    rows = record.completed(table, recorded).to_numpy().tolist()
    assert rows == [[newer, 0.4], [two, 0.2], [three, 0.3]]
    assert record.completed(recorded, recorded) is recorded
