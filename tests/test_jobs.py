"""The jobs of a run: their names, what each measures, one alone, and the minutes that are left."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from conftest import Distances

from replication import __main__ as run
from replication import paths, plan, profiles
from replication.measure import cache, distance_maps
from replication.plan import key_of
from replication.run import batch
from replication.run.execution import Launch, Outcome
from replication.run.jobs import by_job
from replication.run.notebooks import NOTEBOOKS

SMOKE, PAPER, OVERNIGHT = (profiles.get(name) for name in ("smoke", "paper", "overnight"))
HEALED = "tiny-random-similarity-n02-r8-s0-healed"


def start(output, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"DEEPER_LAYERS_OUTPUT": str(output)} | variables
    command = [sys.executable, "-m", "replication", "--profile", "smoke", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=paths.ROOT, env=environment)


# ---- which there are -----------------------------------------------------------------------


def test_jobs_are_listed_by_name_one_a_line(output, capsys):
    assert run.main(["--profile", "paper", "--jobs"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert len(set(names)) == len(names) > 300
    assert "llama-2-70b-similarity-n40-r8-s0-healed" in names
    assert {"llama-2-70b-map", "llama-2-70b-02-unhealed", "phi-2-map"} <= {*names}
    assert "llama-2-13b-unpruned-r8-s0-1250steps-healed" not in names  # its rank is 64
    assert "llama-2-13b-unpruned-r64-s0-1250steps-healed" in names


@pytest.mark.parametrize("profile", [SMOKE, PAPER, OVERNIGHT], ids=lambda profile: profile.name)
def test_a_job_is_called_the_same_wherever_the_blocks_are(profile):
    """So that a list that was made before the maps holds; also where two blocks are one.

    Guessed blocks are taken for two, so that no job passes for done before its map.
    """

    class Elsewhere(Distances):
        def best_start(self, size: int) -> int:
            return self.num_layers - size - self.start

    for model in profile.models:
        first, simple, deepest = (
            {job.name for job in by_job(model, profile, list(NOTEBOOKS), distances)}
            for distances in (Distances(), Elsewhere(1), Elsewhere(0))
        )
        assert first == simple
        guessed = by_job(model, profile, list(NOTEBOOKS), Elsewhere(1), apart=True)
        assert {job.name for job in guessed} == simple and all(guessed.values())
        assert {name for name in first if "after-the-cut" not in name} == deepest


@pytest.mark.parametrize("profile", [SMOKE, PAPER, OVERNIGHT], ids=lambda profile: profile.name)
def test_every_result_is_of_one_job_after_the_healing_that_it_needs(profile):
    for model in profile.models:
        jobs = by_job(model, profile, list(NOTEBOOKS), Distances())
        keys = [key_of(one) for requests in jobs.values() for one in requests]
        assert len(set(keys)) == len(keys)
        asked = [
            one
            for notebook in NOTEBOOKS.values()
            if model in notebook.models(profile)
            for experiment in notebook.experiments
            for one in experiment(model, Distances(), profile)
        ]
        assert {*map(key_of, asked)} <= {*keys}
        for job, requests in jobs.items():
            made = set()
            for one in requests:
                if one.kind == "healing":
                    made.add(key_of(one))
                elif one.recipe:
                    assert key_of(one.healing) in made, job
            if requests:
                assert bool(made) == job.name.endswith("-healed")


def test_a_healing_that_continues_a_shorter_one_is_in_its_job():
    """Each length in turn, and every shorter one that is made at all is made before."""
    jobs = by_job("smollm2-135m", OVERNIGHT, list(NOTEBOOKS), Distances())
    healings = {job: [r for r in of if r.kind == "healing"] for job, of in jobs.items()}
    made = {key_of(one) for of_job in healings.values() for one in of_job}
    chains = [of_job for of_job in healings.values() if len(of_job) > 1]
    assert chains
    for of_job in healings.values():
        before = set()
        for one in of_job:
            assert {key_of(shorter) for shorter in one.shorter} & made <= before
            before.add(key_of(one))
    of_paper = by_job("llama-2-70b", PAPER, list(NOTEBOOKS), Distances())
    for requests in of_paper.values():  # no chain: one healing a job
        assert sum(one.kind == "healing" for one in requests) <= 1


# ---- one of them ---------------------------------------------------------------------------


def test_a_job_needs_its_map_then_leaves_all_its_results(output):
    """In processes of their own, beside a run that holds the results.

    What was listed before the map is listed after it: a run on a cluster has the older list.
    """
    before = {job.name for job in plan.jobs_of("tiny-random", SMOKE, list(NOTEBOOKS))}
    with batch.alone():
        early = start(output, "--job", HEALED)
        assert early.returncode == 1 and "run job tiny-random-map first." in early.stdout
        assert "Traceback" not in early.stderr
        assert start(output, "--job", "tiny-random-map").returncode == 0
        done = start(output, "--job", HEALED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("ok ") and HEALED in done.stdout
    planned = plan.planned(SMOKE, list(NOTEBOOKS), plan.get_card("cpu"))
    complete = {one.job.name for one in planned if not one.missing}
    distances = distance_maps.of_model("tiny-random", SMOKE)
    jobs = by_job("tiny-random", SMOKE, list(NOTEBOOKS), distances)
    left = {job.name for job, requests in jobs.items() if requests}
    assert complete == {"tiny-random-map", HEALED} | before - left and len(jobs) > 10
    assert before <= {one.job.name for one in planned}
    same = sorted(before - {job.name for job in jobs})
    assert not same or start(output, "--job", *same).returncode == 0
    kinds = [file.parts[-3] for file in paths.RESULTS.glob("*/*/*.json")]
    assert kinds.count("healing") == 1 and kinds.count("scores") > 1


def test_a_wrong_name_and_a_launcher_end_in_a_sentence(output):
    wrong = start(output, "--job", "nope")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1
    assert "No job 'nope'" in wrong.stderr and "--jobs lists them" in wrong.stderr
    launched = start(output, "--only", "01", WORLD_SIZE="2", RANK="0")
    assert launched.returncode == 2 and launched.stderr.count("\n") == 1
    assert "torchrun" in launched.stderr and "--engine ray" in launched.stderr
    assert not (output / "data").exists()
    assert start(output, "--jobs", WORLD_SIZE="1").returncode == 0


def test_a_healing_that_had_no_memory_is_tried_again(output, monkeypatch):
    """By its job alone; the others' stay as they are."""
    tried = [{"model": "m", "block_start": 0, "block_size": size} for size in (1, 2)]
    for params in tried:
        cache.save("healing", params, {"status": "oom"}, 1, "oom")
    cache.forget_out_of_memory(iter(tried[:1]))
    assert [cache.load("healing", params) is None for params in tried] == [True, False]
    cache.forget_out_of_memory()
    assert cache.load("healing", tried[1]) is None


# ---- a run of several models -----------------------------------------------------------------


def test_jobs_of_several_models_then_notebooks_that_only_draw(output, tmp_path):
    """One model cannot be had: its jobs end with the first, the figures say so."""
    done = start(output, "--only", "02", "--models", "tiny-random", "nobody/absent")
    assert done.returncode == 1
    table = done.stdout[done.stdout.index("status  ") :].splitlines()[1:]
    statuses = {line[35:].partition(":")[0]: line[:22].strip() for line in table}
    assert statuses == {
        "tiny-random-map": "ok",
        "tiny-random-02-unhealed": "ok",
        "absent-map": "skipped: not available",
        "02_pruning_curves": "incomplete",
    }
    assert (output / "data/results/jobs/tiny-random-map.log").exists()


def test_jobs_of_a_group_share_a_process_and_one_that_dies_takes_no_other_down(monkeypatch):
    started = []

    def together(launches):
        started.append([launch.job for launch in launches])
        ended = [
            Outcome("ok") if launch.job != "dies" else Outcome("killed") for launch in launches
        ]
        last = next((i for i, one in enumerate(ended) if one.status == "killed"), len(ended))
        return ended[: last + 1]

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


def test_a_process_measures_several_jobs_and_prints_a_row_of_each(output):
    start(output, "--job", "tiny-random-map")
    listed = start(output, "--only", "02", "12", "--jobs").stdout.split()
    names = [name for name in listed if name != "tiny-random-map"]
    assert len(names) > 1
    done = start(output, "--only", "02", "12", "--job", *names)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [row.split()[-1] for row in done.stdout.splitlines()[-len(names) :]] == names


# ---- the minutes that are left ---------------------------------------------------------------


def test_what_is_left_is_the_plans_seconds_at_the_pace_of_what_ended(capsys):
    progress = batch.Progress({"map": 10.0, "short": 60.0, "long": 600.0, "other": 540.0})
    assert progress.seconds_left() is None
    progress.add("map", batch.DONE_BEFORE)
    assert progress.seconds_left() is None and "about" not in capsys.readouterr().out
    progress.add("short", Outcome("ok", seconds=120.0))  # half as fast as planned
    assert progress.seconds_left() == pytest.approx(2 * (600 + 540))
    assert "2 left, about 38 min" in capsys.readouterr().out
    progress.add("long", Outcome("failed", seconds=1.0))  # tells nothing of the pace
    assert progress.seconds_left() == pytest.approx(2 * 540)
    progress.add("other", Outcome("ok", seconds=1080.0))
    assert progress.seconds_left() is None


def test_as_many_at_a_time_as_there_is_room_for():
    progress = batch.Progress({"first": 60.0} | {str(n): 60.0 for n in range(40)}, room=8)
    progress.add("first", Outcome("ok", seconds=60.0))
    assert progress.seconds_left() == pytest.approx(40 * 60 / 8)
    progress.expected["longest"] = 6000.0
    assert progress.seconds_left() == pytest.approx(6000)


def test_a_notebook_that_measures_is_expected_to_take_what_it_lacks(output):
    """As the only one of its model, on this machine; the first to end tells the pace."""
    seen = []

    class Noting(batch.Serial):
        def ended(self):
            launch, outcome = super().ended()
            seen.append(launch.notebook.file)
            return launch, replace(outcome, seconds=20.0)

    notebooks = {number: NOTEBOOKS[number] for number in ("00", "02", "03")}
    whole = batch.Batch(notebooks, {}, SMOKE)
    seconds = sum(whole.seconds(planned) for planned in whole.planned())
    lefts, real = [], batch.Progress.add

    def add(progress, name, outcome):
        real(progress, name, outcome)
        lefts.append(progress.seconds_left())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch.Progress, "add", add)
        batch.run(whole, Noting(lambda launch: Outcome("ok")), split=False)
    assert seen == [notebook.file for notebook in notebooks.values()]
    assert lefts[0] == pytest.approx(20 / batch.STARTING * (2 * batch.STARTING + seconds))
