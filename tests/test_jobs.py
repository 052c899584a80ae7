"""The jobs of a run: their names, what each measures, their order, and one alone."""

import os
import shutil
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import Distances, replicate

from lib.models import registry
from replication import paths, plan, profiles
from replication.measure import signals
from replication.plan import key_of
from replication.run import batch, measuring
from replication.run.execution import Launch, Outcome
from replication.run.jobs import Job, by_job
from replication.run.notebooks import NOTEBOOKS

SMOKE, OVERNIGHT = profiles.get("smoke"), profiles.get("overnight")
PAPER = profiles.get("paper", ["llama-2-70b", "mistral-7b"])
HEALED, UNHEALED = "tiny-random-similarity-n02-r8-s0-healed", "tiny-random-02-unhealed"
NUMBERS = list(NOTEBOOKS)


# ---- which there are -----------------------------------------------------------------------


class Elsewhere(Distances):
    """Distances whose most similar block ends `start` layers before the last one."""

    def best_start(self, size: int) -> int:
        return max(0, self.num_layers - size - self.start)


@pytest.mark.parametrize("profile", [SMOKE, PAPER, OVERNIGHT], ids=lambda profile: profile.name)
def test_jobs_have_the_same_names_and_every_result_once(profile):
    """A list that was made before the maps holds, also where two blocks are one.

    A job heals before it scores; lengths that continue each other are one job, shorter ones first.
    """
    for model in profile.models:
        guess = plan.Guess(registry.num_layers(model))
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
            for request in signals.asked(experiment(model, guess, profile))
        }
        for job, requests in jobs.items():
            made = set()
            for request in requests:
                if request.kind == "healing":
                    shorter = {*map(key_of, request.shorter)} & {*keys}
                    assert model != "smollm2-135m" or shorter <= made
                    made.add(key_of(request))
                elif request.recipe:
                    assert key_of(request.healing) in made, job
            assert model != "llama-2-70b" or len(made) <= 1
            assert bool(made) == job.name.endswith("-healed")


# ---- in which order ------------------------------------------------------------------------


KINDS = ("map", "02-unhealed", "similarity-n02-r8-s0-healed")
ALL = [Job(f"{model[-1]}-{kind}", model, "02") for model in ("a/b", "c/d") for kind in KINDS]


class Backwards(batch.Serial):
    """An engine in which what was submitted last ends first."""

    def ended(self):
        launch = self.queue.pop()
        return launch, self.execute(launch)


def ended(engine, ends: dict[str, Outcome]) -> tuple[dict[str, str], list[str]]:
    """Return the status of each job, and the jobs that were tried, in order."""
    tried = []
    statuses = {}

    def execute(launch):
        tried.append(launch.job)
        return ends.get(launch.job, Outcome("ok"))

    def launched(job):
        return Launch(job=job.name)

    for job, outcome in batch.in_order(ALL, engine(execute), launched):
        statuses[job.name] = outcome.status
    return statuses, tried


@pytest.mark.parametrize("engine", [batch.Serial, Backwards])
def test_a_job_needs_its_models_map_only(engine):
    """A failure changes no other job; a model that cannot be had is tried once."""
    failing = "d-02-unhealed"
    statuses, tried = ended(engine, {failing: Outcome("failed")})
    assert len(tried) == len(ALL)
    for job in ALL:
        assert tried.index(job.map_name) <= tried.index(job.name)
        assert statuses[job.name] == ("failed" if job.name == failing else "ok")
    if engine is Backwards:  # the jobs of one model do not wait for the other's map
        assert tried.index("b-map") > tried.index(failing)
    statuses, tried = ended(engine, {"b-map": Outcome("skipped: gated")})
    for job in ALL:
        absent = job.model == "a/b"
        assert statuses[job.name] == ("skipped: gated" if absent else "ok")
        assert (job.name in tried) == (job.is_map or not absent)


def test_what_is_done_is_not_repeated(output):
    """After a failure a notebook only draws, where it is one that jobs measure for."""
    numbers = ("01", "02", "09")
    whole = batch.Batch({number: NOTEBOOKS[number] for number in numbers}, {}, SMOKE)
    jobs = {job.name: job for job in whole.jobs()}
    tried, read_only = [], {}
    fails = {UNHEALED}

    def execute(launch):
        if not launch.job:
            read_only[launch.notebook.file[:2]] = launch.read_only
            return Outcome("incomplete", "without m") if fails else Outcome("ok", seconds=1.0)
        tried.append(launch.job)
        if launch.job in fails:
            return Outcome("killed", "by intention")
        return measuring.run_job(jobs[launch.job], SMOKE, numbers)

    outcomes = batch.run(whole, batch.Serial(execute))
    assert {name for name in jobs if outcomes[name].status != "ok"} == fails
    assert tried == list(jobs)
    assert read_only == {"01": True, "02": True, "09": False}
    fails.clear()
    tried.clear()
    outcomes = batch.run(whole, batch.Serial(execute))
    assert {end.status for end in outcomes.values()} == {"ok"}
    assert tried == [UNHEALED]
    assert outcomes["tiny-random-map"] == batch.DONE_BEFORE


def test_a_model_of_unknown_depth_has_its_other_jobs_after_its_map(output, monkeypatch):
    """As a hub model, of which no config.json is here."""
    tried = []
    depth = registry.num_layers("tiny-random")
    monkeypatch.setattr(registry, "num_layers", lambda name: depth if tried else None)

    def execute(launch):
        tried.append(launch.job)
        return Outcome("ok", seconds=1.0)

    whole = batch.Batch({"02": NOTEBOOKS["02"]}, {}, SMOKE)
    batch.run_jobs(whole, batch.Serial(execute), batch.Progress(0))
    assert tried == ["tiny-random-map", UNHEALED]


# ---- some of them --------------------------------------------------------------------------


@pytest.fixture
def mapped(smoke_run, output):
    """Results that are a map alone."""
    results = smoke_run / "data" / "results"
    shutil.copytree(results / "similarity", paths.RESULTS / "similarity")
    if (results / "format.json").exists():
        shutil.copy(results / "format.json", paths.RESULTS)
    return output


def test_a_job_killed_in_the_middle_of_its_healing_goes_on(smoke_run, mapped):
    """Beside a run that holds the results; with the results of a run that was not killed."""
    options = ["--profile", "smoke", "--job", HEALED]
    environment = os.environ | {"DEEPER_LAYERS_OUTPUT": str(mapped)}
    killed = subprocess.Popen([sys.executable, "-m", "replication", *options], env=environment)
    while not list(paths.RESULTS.glob("adapters/*/checkpoint-*")):
        assert killed.poll() is None
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert not list(paths.RESULTS.glob("healing/*/*.parquet"))
    with batch.alone():
        done = replicate(mapped, *options)
    assert done.returncode == 0, done.stderr
    healings = list(paths.RESULTS.glob("healing/*/*.parquet"))
    scores = list(paths.RESULTS.glob("scores/*/*.parquet"))
    assert len(healings) == 1 and len(scores) > 1  # and no others
    for file in healings + scores:
        uninterrupted = smoke_run / "data/results" / file.relative_to(paths.RESULTS)
        rows = [pd.read_parquet(one).drop(columns="took") for one in (file, uninterrupted)]
        pd.testing.assert_frame_equal(*rows)
    jobs = plan.jobs_of("tiny-random", SMOKE, NUMBERS)
    complete = {name for name, requests in jobs.items() if all(map(plan.is_done, requests))}
    names = {job.name for job in complete}
    assert {"tiny-random-map", HEALED} <= names and UNHEALED not in names
