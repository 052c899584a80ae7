"""The jobs of a run: their names, what each measures, one alone, and the minutes that are left."""

import shutil

import pytest
from conftest import Distances, replicate

from replication import __main__ as run
from replication import paths, plan, profiles
from replication.plan import key_of
from replication.run import batch
from replication.run.execution import Launch, Outcome
from replication.run.jobs import by_job
from replication.run.notebooks import NOTEBOOKS

SMOKE, PAPER, OVERNIGHT = (profiles.get(name) for name in ("smoke", "paper", "overnight"))
OF_ALL = pytest.mark.parametrize("profile", [SMOKE, PAPER, OVERNIGHT], ids=lambda of: of.name)
HEALED, UNHEALED = "tiny-random-similarity-n02-r8-s0-healed", "tiny-random-02-unhealed"
NUMBERS = list(NOTEBOOKS)


# ---- which there are -----------------------------------------------------------------------


def test_jobs_are_listed_by_name_one_a_line(output, capsys):
    assert run.main(["--profile", "paper", "--jobs"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert len(set(names)) == len(names) > 300
    assert {"llama-2-70b-map", "llama-2-70b-02-unhealed", "phi-2-map"} <= {*names}
    assert "llama-2-70b-similarity-n40-r8-s0-healed" in names
    of_rank = [f"llama-2-13b-unpruned-r{rank}-s0-1250steps-healed" for rank in (8, 64)]
    assert [name in names for name in of_rank] == [False, True]


class Elsewhere(Distances):
    """Distances whose most similar block ends `start` layers before the last one."""

    def best_start(self, size: int) -> int:
        return self.num_layers - size - self.start


@OF_ALL
def test_a_job_is_called_the_same_wherever_the_blocks_are(profile):
    """So that a list that was made before the maps holds; also where two blocks are one.

    Guessed blocks are taken for two, so that no job passes for done before its map.
    """
    for model in profile.models:
        first, simple, deepest = (
            {job.name for job in by_job(model, profile, NUMBERS, distances)}
            for distances in (Distances(), Elsewhere(1), Elsewhere(0))
        )
        guessed = by_job(model, profile, NUMBERS, Elsewhere(1), apart=True)
        assert {job.name for job in guessed} == simple == first and all(guessed.values())
        assert {name for name in first if "after-the-cut" not in name} == deepest


@OF_ALL
def test_every_result_is_of_one_job_after_the_healing_that_it_needs(profile):
    """A job heals once; but lengths that continue each other are one job, shorter ones first."""
    for model in profile.models:
        jobs = by_job(model, profile, NUMBERS, Distances())
        keys = [key_of(one) for requests in jobs.values() for one in requests]
        assert len(set(keys)) == len(keys)
        requested = {
            key_of(one)
            for notebook in NOTEBOOKS.values()
            if model in notebook.models(profile)
            for experiment in notebook.experiments
            for one in experiment(model, Distances(), profile)
        }
        assert requested <= {*keys}
        for job, requests in jobs.items():
            made = set()
            for one in requests:
                if one.kind == "healing":
                    shorter = {*map(key_of, one.shorter)} & {*keys}
                    assert model != "smollm2-135m" or shorter <= made
                    made.add(key_of(one))
                elif one.recipe:
                    assert key_of(one.healing) in made, job
            assert model != "llama-2-70b" or len(made) <= 1
            assert not requests or bool(made) == job.name.endswith("-healed")


# ---- some of them --------------------------------------------------------------------------


@pytest.fixture
def mapped(smoke_run, output):
    """Results that are a map alone."""
    shutil.copytree(smoke_run / "data/results/similarity", paths.RESULTS / "similarity")
    return output


def test_a_job_needs_its_map(output, capsys):
    assert run.main(["--profile", "smoke", "--job", HEALED]) == 1
    printed = capsys.readouterr()
    assert "run job tiny-random-map first." in printed.out and "Traceback" not in printed.err


def test_jobs_leave_all_their_results_and_no_others(mapped, capsys):
    """A row each, beside a run that holds the results; what was listed before the map still is."""
    before = {job.name for job in by_job("tiny-random", SMOKE, NUMBERS, Elsewhere(1), apart=True)}
    names = [UNHEALED, HEALED]
    with batch.alone():
        assert run.main(["--profile", "smoke", "--job", *names]) == 0
    assert [row.split()[-1] for row in capsys.readouterr().out.splitlines()[-2:]] == names
    planned = plan.planned(SMOKE, NUMBERS, plan.get_card("cpu"))
    assert before <= {one.job.name for one in planned}
    done = {one.job.name for one in planned if not one.missing and one.states}
    assert done == {"tiny-random-map", *names} and len(planned) > 10
    kinds = [file.parts[-3] for file in paths.RESULTS.glob("*/*/*.json")]
    assert kinds.count("healing") == 1 and kinds.count("scores") > 1


def test_a_run_is_one_process(output, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run.main(["--profile", "smoke"]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "torchrun" in sentence and not list(output.iterdir())
    assert run.main(["--profile", "smoke", "--jobs"]) == 0


def test_jobs_of_several_models_then_notebooks_that_only_draw(mapped):
    """One model cannot be had: its jobs end with the first, the figures say so."""
    models = ("tiny-random", "nobody/absent")
    done = replicate(mapped, "--profile", "smoke", "--only", "02", "--models", *models)
    assert done.returncode == 1
    table = done.stdout[done.stdout.index("status  ") :].splitlines()[1:]
    statuses = {line[35:].partition(":")[0]: line[:22].strip() for line in table}
    assert statuses == {
        "tiny-random-map": "ok",
        UNHEALED: "ok",
        "absent-map": "skipped: not available",
        "02_pruning_curves": "incomplete",
    }
    assert (mapped / "data/results/jobs" / f"{UNHEALED}.log").exists()


def test_jobs_of_a_group_share_a_process_and_one_that_dies_takes_no_other_down(monkeypatch):
    started = []

    def together(launches):
        started.append([launch.job for launch in launches])
        ends = ["killed" if name == "dies" else "ok" for name in started[-1]]
        last = ends.index("killed") + 1 if "killed" in ends else len(ends)
        return [Outcome(end) for end in ends[:last]]

    def alone(launch):
        return together([launch])[0]

    monkeypatch.setattr(batch, "attempt_jobs", together)
    monkeypatch.setattr(batch, "attempt", alone)
    engine = batch.Serial(alone)
    names = {"a": "m 02", "dies": "m 02", "b": "m 02", "c": "m 03", "d": ""}
    for name, group in names.items():
        engine.submit(Launch(job=name, group=group))
    outcomes = {launch.job: outcome.status for launch, outcome in (engine.ended() for _ in names)}
    assert outcomes == dict.fromkeys("abcd", "ok") | {"dies": "killed"}
    assert started == [["a", "dies", "b"], ["b"], ["c"], ["d"]]


def test_what_is_left_is_the_plans_seconds_at_the_pace_of_what_ended():
    """With room for several, as long as the longest of them at least."""
    expected = {"map": 10.0, "short": 60.0, "long": 600.0, "other": 540.0}
    progress, lefts = batch.Progress(dict(expected)), []
    for name, end in {
        "map": batch.DONE_BEFORE,
        "short": Outcome("ok", seconds=120.0),  # half as fast as planned
        "long": Outcome("failed", seconds=1.0),  # tells nothing of the pace
        "other": Outcome("ok", seconds=1080.0),
    }.items():
        progress.add(name, end)
        lefts.append(progress.seconds_left())
    assert lefts == [None, pytest.approx(2 * (600 + 540)), pytest.approx(2 * 540), None]
    progress = batch.Progress(expected | {str(n): 60.0 for n in range(40)}, room=8)
    progress.add("short", Outcome("ok", seconds=60.0))
    assert progress.seconds_left() == pytest.approx(600)
