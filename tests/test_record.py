"""A recording that is cut goes on from its export; a reader's run is compared with it."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from lib import agreement, curves, models, paths, profiles, record, results, run, similarity
from lib.pruning import Block

PARAMS = {"model": "tiny-random", "block_start": 1, "block_size": 2}
SMOKE = profiles.get("smoke")


@pytest.fixture
def recorded(output, monkeypatch):
    monkeypatch.setattr(paths, "RECORDED", output / "recorded")
    monkeypatch.setattr(record, "PROFILE", "smoke")
    return output / "recorded" / "smoke"


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.glob("*/*.json")}


def test_recorded_wiped_and_continued(recorded):
    """Nothing is measured twice in a clean clone, not even a healing, whose adapter is gone."""
    assert record.record("smoke", ["03"]) == 0
    first = contents(recorded)
    assert {path.parts[0] for path in first} == {"similarity", "scores", "healing"}
    pictures = sorted(p.name for p in paths.FIGURES.glob("smoke/*.png"))
    assert "figure_1d.png" in pictures
    told = record.described("smoke")
    assert told["environment"]["torch"] and set(told["notebooks"]) == {"03"}

    shutil.rmtree(paths.RUNS)
    shutil.rmtree(paths.FIGURES)
    assert record.record("smoke", ["03"]) == 0
    assert contents(recorded) == first
    assert not (record.workplace("smoke") / "data/results/adapters").exists()
    assert sorted(p.name for p in paths.FIGURES.glob("smoke/*.png")) == pictures
    assert not paths.RESULTS.exists()


def test_a_failed_notebook_is_recorded_as_failed(recorded, capsys):
    assert record.record("smoke", ["99"]) == 1
    assert record.described("smoke")["notebooks"]["99"]["exit_status"] == 2


@pytest.fixture
def exported(recorded):
    """One result in the export."""
    results.save("scores", PARAMS, {"value": 1.0}, 0)
    place = results.location("scores", PARAMS)
    file = recorded / "scores" / place.name
    file.parent.mkdir(parents=True)
    shutil.move(place, file)
    return file


def test_only_valid_results_are_restored(exported):
    assert record.restore("smoke") == 1
    whole = exported.read_text()
    for damaged in (
        "",
        whole[:40],
        whole.replace("1.0", "NaN"),
        whole.replace('"block_start":1', '"block_start":3'),
        whole.replace('"schema":1', '"schema":0'),
    ):
        exported.write_text(damaged)
        assert record.restore("smoke") == 0
    exported.write_text(whole)
    exported.rename(exported.with_stem("other"))
    assert record.restore("smoke") == 0


def test_files_too_large_to_commit_are_left_out_and_told(recorded, capsys):
    folder = record.workplace("smoke") / "figures" / "smoke"
    folder.mkdir(parents=True)
    (folder / "small.png").write_bytes(b"x")
    assert record.export("smoke") == 0
    (folder / "large.png").write_bytes(b"x" * 200_001)
    assert record.export("smoke") == 1
    assert "large.png has 200,001 bytes" in capsys.readouterr().err
    assert [p.name for p in (paths.FIGURES / "smoke").iterdir()] == ["small.png"]


def test_what_is_committed_is_small():
    committed = [*paths.ROOT.glob("figures/laptop/*.png"), *paths.RECORDED.rglob("*.json")]
    assert committed
    for file in committed:
        assert file.stat().st_size <= record.LARGEST[file.suffix], file


def test_the_recorded_figures_are_finished():
    """Notebook 02 draws the unhealed lines of figures that 03 and 04 complete."""
    folder = paths.ROOT / "figures" / record.PROFILE
    for name in {name for notebook in run.NOTEBOOKS.values() for name in notebook.figures}:
        assert (folder / f"{name}.png").exists(), name
    for name in run.NOTEBOOKS["02"].figures:
        treatments = set(pd.read_csv(folder / f"{name}.csv").treatment)
        assert treatments == {"unpruned", "unhealed", "healed"}, name


def test_a_reader_never_reads_the_recorded_run(recorded, monkeypatch):
    """The same scores, recorded: a reader's run measures them all the same."""
    curves.measure("tiny-random", SMOKE, [Block(1, 2)], ["c4"])
    shutil.move(paths.RESULTS, recorded)
    monkeypatch.setattr(models, "base", lambda *a, **k: pytest.fail("measured"))
    with pytest.raises(pytest.fail.Exception, match="measured"):
        curves.measure("tiny-random", SMOKE, [Block(1, 2)], ["c4"])


# ---- beside the recorded run ---------------------------------------------------------------


def changed(folder, change):
    """Apply `change` to the records in a folder, as if they had been measured so."""
    for file in list(folder.glob("*/*.json")):
        found = json.loads(file.read_text())
        change(found)
        found["key"] = results.key(found["kind"], found["params"])
        file.unlink()
        place = results.location(found["kind"], found["params"])
        (file.parent / place.name).write_text(json.dumps(found))


@pytest.fixture
def both(recorded):
    """A reader's run and the same recorded."""
    similarity.measure("tiny-random", SMOKE)
    curves.measure("tiny-random", SMOKE, [Block(1, 2)], ["c4", "arc_easy"])
    shutil.copytree(paths.RESULTS, recorded)
    return recorded


def test_the_same_run_differs_nowhere(both):
    found = agreement.compare(SMOKE)
    assert set(found.task) == {"distance", "c4", "arc_easy"}
    assert set(found.treatment[found.kind == "scores"]) == {"unpruned", "unhealed"}
    assert (found.difference == 0).all() and not found.differs.any()


def test_a_shift_is_measured_in_its_paired_error(both):
    def shift(found):
        found["params"]["threads"] = 64  # another machine
        if found["params"].get("task") == "c4":
            examples = np.array(found["values"]["examples"])
            noise = np.linspace(-0.01, 0.01, len(examples))
            found["values"]["examples"] = (examples + 1 + noise).tolist()

    changed(both, shift)
    found = agreement.compare(SMOKE)
    assert set(found.task[found.differs]) == {"c4"} and (found.settings == "").all()
    assert found.difference[found.differs].tolist() == pytest.approx([-1, -1], abs=0.02)
    assert (found.units[found.differs] < -100).all()


def test_other_amounts_of_data_are_compared_as_independent_samples(both):
    def more(found):
        if found["params"].get("task") == "c4":
            found["params"]["sequences"] = 60
            found["values"]["value"] -= 3 * found["values"]["standard_error"]

    changed(both, more)
    loss = agreement.compare(SMOKE).query("task == 'c4'")
    expected = np.hypot(loss.standard_error, loss.recorded_error)
    assert np.allclose(loss.error, expected) and np.allclose(loss.units, 3 / np.sqrt(2))
    assert loss.differs.all()


def test_other_settings_are_told_and_not_compared(both):
    def longer(found):
        if found["params"].get("task") == "c4":
            found["params"]["max_tokens"] = 200

    changed(both, longer)
    (both / "similarity").rename(both / "other")
    found = agreement.compare(SMOKE)
    assert set(found.settings[found.task == "c4"]) == {"max_tokens 24 / 200"}
    assert set(found.settings[found.task == "distance"]) == {"not recorded"}
    assert found.difference[found.task != "arc_easy"].isna().all() and not found.differs.any()


def test_results_of_another_profile_are_not_this_run(both):
    def other(found):
        for name in agreement.AMOUNTS:
            if name in found["params"]:
                found["params"][name] += 1

    changed(paths.RESULTS, other)
    assert agreement.compare(SMOKE).empty
