"""The jobs of a run: their names, what each measures, and their order."""

import pytest
from conftest import Distances, start

from lib.models import registry
from replication import profiles
from replication.measure import signals
from replication.run import batch, executors, job_results, job_worker
from replication.run.execution import Launch, Outcome
from replication.run.job_results import key_of
from replication.run.jobs import Job, by_job
from replication.run.notebooks import NOTEBOOKS

SMOKE, OVERNIGHT = profiles.get("smoke"), profiles.get("overnight")
PAPER = profiles.get("paper", ["llama-2-70b", "mistral-7b"])
UNHEALED = "tiny-random-02-unhealed"
NUMBERS = list(NOTEBOOKS)


# ---- which there are -----------------------------------------------------------------------


class Elsewhere(Distances):
    """Distances whose most similar block ends `start` layers before the last one."""

    def best_start(self, size: int) -> int:
        return max(0, self.num_layers - size - self.start)


@pytest.mark.parametrize("profile", [SMOKE, PAPER, OVERNIGHT], ids=lambda profile: profile.name)
def test_jobs_have_the_same_names_and_every_result_once(profile):
    """A list that was made before the maps holds, also where two blocks are one.

    A job heals before it scores, and heals once: each length is a job of its own.
    """
    for model in profile.models:
        guess = job_results.AssumedStarts(registry.num_layers(model))
        jobs = by_job(model, profile, NUMBERS, guess)
        assert all(jobs.values())  # so that no job passes for done before its map
        names = {job.name for job in jobs}
        simple = Elsewhere(1, guess.num_layers)
        assert names == {job.name for job in by_job(model, profile, NUMBERS, simple)}
        keys = [key_of(request) for requests in jobs.values() for request in requests]
        assert len(set(keys)) == len(keys)
        assert {*keys} >= {
            key_of(request)
            for notebook in NOTEBOOKS.values()
            if model in notebook.models(profile)
            for experiment in notebook.experiments
            for request in signals.to_measure(experiment(model, guess, profile))
        }
        for job, requests in jobs.items():
            made = set()
            for request in requests:
                if request.kind == "healing":
                    made.add(key_of(request))
                elif request.recipe:
                    assert key_of(request.healing) in made, job
            assert len(made) <= 1
            assert bool(made) == job.name.endswith("-healed")


# ---- in which order ------------------------------------------------------------------------


KINDS = ("map", "02-unhealed", "similarity-n02-r8-s0-healed")
MODELS = {"a/b": "b", "c/d": "d"}


class Twice(batch.Batch):
    """Jobs of two models, none of them done."""

    def jobs(self):
        return {
            Job(f"{short}-{kind}", model, "02"): False
            for model, short in MODELS.items()
            for kind in KINDS
        }


def executor(tried: list[str], ends: dict[str, Outcome]):
    """Return an executor that notes what it is given, and in which the last ends first."""

    def execute(launches):
        for launch in reversed(launches):
            tried.append(launch.name)
            yield launch, ends.get(launch.name, Outcome("ok"))

    return execute


def test_a_job_needs_its_models_map():
    """A failure changes no other job; a model that is not available is tried once."""
    whole = Twice({}, {}, SMOKE)
    for failing, absent in (("d-02-unhealed", ""), ("b-map", "b")):
        tried, progress = [], batch.Progress(0)
        outcomes = {failing: Outcome("skipped: gated")}
        batch.run_jobs(whole, executor(tried, outcomes), progress)
        assert progress.total == len(progress.outcomes) == 6
        for job in whole.jobs():
            fails = job.name == failing or MODELS[job.model] == absent
            assert progress.outcomes[job.name].status == ("skipped: gated" if fails else "ok")
            assert (job.name in tried) == (job.is_map or MODELS[job.model] != absent)
            assert job.name not in tried or tried.index(job.map_name) <= tried.index(job.name)


def test_what_is_done_is_not_repeated(output):
    """After a failure a notebook only draws, where it is one that needs what has failed.

    Notebook 09 always measures: what it times is in no job.
    """
    numbers = ("01", "02", "04", "09", "12")
    whole = batch.Batch({number: NOTEBOOKS[number] for number in numbers}, {}, SMOKE)
    jobs = {job.name: job for job in whole.jobs()}
    tried, read_only = [], {}
    fails = set(jobs)

    def run_jobs(launches):
        for launch in launches:
            tried.append(launch.job)
            killed = Outcome("killed", "by intention")
            fine = launch.job not in fails
            yield launch, job_worker.run_job(jobs[launch.job], SMOKE, numbers) if fine else killed

    def draw(launches):
        for launch in launches:
            read_only[launch.name[:2]] = launch.read_only
            yield launch, Outcome("incomplete", "without m") if fails else Outcome("ok")

    batch.run(whole, draw, run_jobs)
    assert read_only == {number: number != "09" for number in numbers}
    fails.clear()
    fails.add(UNHEALED)
    tried.clear()
    outcomes = batch.run(whole, draw, run_jobs)
    assert {name for name in jobs if outcomes[name].status != "ok"} == fails
    assert tried == list(jobs)
    need = {"02", "04"}  # the unhealed scores
    assert read_only == {number: number in need for number in numbers}
    fails.clear()
    tried.clear()
    outcomes = batch.run(whole, draw, run_jobs)
    assert {end.status for end in outcomes.values()} == {"ok"}
    assert tried == [UNHEALED]
    assert outcomes["tiny-random-map"] == batch.DONE_BEFORE


def test_a_model_of_unknown_depth_has_its_other_jobs_after_its_map(output, monkeypatch):
    """As a hub model, of which no config.json is here."""
    tried = []
    depth = registry.num_layers("tiny-random")
    monkeypatch.setattr(registry, "num_layers", lambda name: depth if tried else None)

    whole = batch.Batch({"02": NOTEBOOKS["02"]}, {}, SMOKE)
    batch.run_jobs(whole, executor(tried, {}), batch.Progress(0))
    assert tried == ["tiny-random-map", UNHEALED]


# ---- what ends a run -----------------------------------------------------------------------


def failed(*reasons: str) -> list[Outcome]:
    """A launch for each reason, which failed."""
    return [Outcome("failed", reason) for reason in reasons]


FULL = "[Errno 28] No space left on device: '/disk/{}.part'"
DISK = failed(FULL.format(1), "I/O error: No space left on device (os error 28)", FULL.format(2))
CARD = failed("CUDA error: ECC", "CUDA error: launch failure", "02_a.ipynb failed: CUDA error: x")
ALIKE = failed("No file 'a' in /x/1.", "No file 'b' in /x/2.", "b-map failed: No file 'c' in /y.")
OTHERS = [
    Outcome(status, "the same")
    for status in ("ok", "incomplete", "oom", "killed", "lost", "skipped: not available")
]
ENDS = {  # how launches end, and after how many the run does
    "disk": ([*DISK, Outcome("ok")], 3),
    "card": ([*CARD, Outcome("ok")], 3),
    "alike": ([Outcome("ok"), *ALIKE, Outcome("ok")], 4),
    "one bad job": ([Outcome("ok"), DISK[0], Outcome("ok"), *DISK[1:], Outcome("ok")], None),
    "of different kinds": ([DISK[0], CARD[0], DISK[1], CARD[1], *ALIKE[:2], *DISK[1:]], None),
    **{each.status: ([each] * 5, None) for each in OTHERS},
    **{f"{each.status} between": ([*CARD[:2], each, *CARD[:2]], None) for each in OTHERS},
}


@pytest.mark.parametrize("case", ENDS)
def test_three_failures_of_a_kind_in_a_row_end_what_runs_alone(case, monkeypatch):
    """A broken card or a full disk; not one bad job, nor what needs more memory."""
    ends, last = ENDS[case]
    remaining, launches = iter(ends), [Launch(job=str(number)) for number in range(len(ends))]
    monkeypatch.setattr(executors, "attempt", lambda launch: next(remaining))
    outcomes = []
    try:
        outcomes += executors.one_by_one(launches)
    except executors.MachineFailed:
        outcomes = None
    assert (outcomes is None) == (last is not None)
    assert len([*remaining]) == len(ends) - (last or len(ends))


def test_a_run_that_is_ended_says_how_to_go_on(output, monkeypatch, capsys):
    """In one sentence; nothing else is tried."""
    tried = []

    def attempt(launch):
        tried.append(launch.name)
        return DISK[0]

    monkeypatch.setattr(executors, "attempt", attempt)
    numbers = ["01", "02", "03", "04", "09"]
    assert start("replication", "--profile", "smoke", "--only", *numbers) == 1
    assert tried == [NOTEBOOKS[number].file for number in numbers[:3]]
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in sentence
    assert "repeat the command: what is done stays" in sentence
