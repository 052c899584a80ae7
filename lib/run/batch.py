"""A run of many jobs that survives: each on its own, recorded when it ends, none twice.

A job (`experiments.Job`) is a notebook over fewer models and depths. What the jobs measure, the
notebooks over the full lists then find, and only draw. On a cluster a job is one model at one
depth, on one machine it is one model; and one model on one machine has no jobs: its notebooks
measure as they go.
"""

import json
import os
import platform
import shlex
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from filelock import FileLock, Timeout

from lib import paths, results
from lib.measure.experiments import DRAWN, Job, by_model
from lib.measure.experiments import jobs as all_jobs
from lib.models import registry
from lib.profiles import Profile
from lib.run.execution import Launch, Outcome, attempt
from lib.run.notebooks import Notebook
from lib.run.progress import DONE_BEFORE, Progress


class Occupied(RuntimeError):
    """Another runner writes to the results; the message says which."""


class Serial:
    """The engine of one machine: one launch after the other."""

    def __init__(self, execute: Callable[[Launch], Outcome] = attempt):
        self.execute, self.queue = execute, deque()

    def submit(self, launch: Launch) -> None:
        """Have `launch` executed."""
        self.queue.append(launch)

    def ended(self) -> tuple[Launch, Outcome]:
        """Wait for a submitted launch to end."""
        launch = self.queue.popleft()
        return launch, self.execute(launch)

    def close(self) -> None:
        """Nothing is left open."""


@contextmanager
def alone() -> Iterator[None]:
    """Be the only runner of the results folder. Raises Occupied if there is another."""
    owner = paths.RESULTS / "runner.json"
    paths.RESULTS.mkdir(parents=True, exist_ok=True)
    lock = FileLock(paths.RESULTS / "runner.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        first = json.loads(owner.read_text(encoding="utf-8")) if owner.exists() else {}
        told = ", ".join(f"{name} {value}" for name, value in first.items())
        raise Occupied(f"Another run writes to {paths.RESULTS} ({told}): wait for it.") from error
    me = {
        "pid": os.getpid(),
        "host": platform.node(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": shlex.join(sys.argv),
    }
    try:
        paths.write_whole(owner, json.dumps(me).encode())
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


@dataclass(frozen=True)
class Batch:
    """What the jobs of a run have in common: notebooks by number, parameters, minutes for each."""

    notebooks: Mapping[str, Notebook]
    parameters: dict
    profile: Profile
    time_limit: float | None = None

    def launch(self, job: Job) -> Launch:
        """The notebook of a job, as a shard."""
        parameters = self.parameters | job.parameters
        return Launch(
            self.notebooks[job.notebook], parameters, shard(job), time_limit=self.time_limit
        )

    def label(self, job: Job) -> str:
        """A job as the closing table calls it."""
        size = "" if job.size is None else f" n={job.size}"
        return f"{self.notebooks[job.notebook].file} {job.model}{size}"


def run(batch: Batch, jobs: list[Job], engine) -> dict[str, Outcome]:
    """Every job of `jobs`, then the notebooks over the full lists; how each ended, by its label.

    If a job fails, the notebooks that it was for draw what the others measured, and do not try to
    measure the rest.
    """
    results.forget_out_of_memory()
    progress = Progress(len(jobs) + len(batch.notebooks))
    found = run_jobs(batch, jobs, engine, progress)
    failed = any(outcome.status != "ok" for outcome in found.values())
    for number, notebook in batch.notebooks.items():
        draws_only = failed and number in DRAWN
        engine.submit(Launch(notebook, batch.parameters, "", draws_only, batch.time_limit))
        _, outcome = engine.ended()
        if not jobs and outcome.status == "ok":
            note_measured(batch, number, outcome.seconds)
        found[notebook.file] = outcome
        progress.told(notebook.file, outcome)
    return found


def run_jobs(batch: Batch, jobs: list[Job], engine, progress: Progress) -> dict[str, Outcome]:
    """How each job ended; one that is recorded as done is not started, the others are recorded."""
    found, to_do = {}, []
    for job in jobs:
        before = record(job, batch.profile, batch.parameters)
        if before and before["status"] == "ok":
            found[batch.label(job)] = Outcome("ok", DONE_BEFORE, before["seconds"])
            progress.told(batch.label(job), found[batch.label(job)])
        else:
            to_do.append(job)
    for job, outcome in in_order(to_do, engine, batch.launch):
        params = record_params(job, batch.profile, batch.parameters)
        results.save("job", params, {"reason": outcome.reason}, outcome.seconds, outcome.status)
        found[batch.label(job)] = outcome
        progress.told(batch.label(job), outcome)
    return found


def in_order(
    jobs: Iterable[Job], engine, launch: Callable[[Job], Launch]
) -> Iterator[tuple[Job, Outcome]]:
    """Each job and how it ended; it starts once its model's jobs of earlier waves have ended.

    The jobs of a model that cannot be had end with the first of them.
    """
    waiting, running = list(jobs), {}
    left = Counter((job.model, job.wave) for job in waiting)
    while waiting or running:
        ready = [job for job in waiting if not any(left[job.model, w] for w in range(job.wave))]
        waiting = [job for job in waiting if any(left[job.model, w] for w in range(job.wave))]
        for job in ready:
            started = launch(job)
            running[started.shard] = job
            engine.submit(started)
        done, outcome = engine.ended()
        job = running.pop(done.shard)
        left[job.model, job.wave] -= 1
        yield job, outcome
        if outcome.status.startswith("skipped"):
            for other in [other for other in waiting if other.model == job.model]:
                waiting.remove(other)
                left[other.model, other.wave] -= 1
                yield other, replace(outcome, seconds=0.0)


# ---- what is known of a job ------------------------------------------------------------------


def record(job: Job, profile: Profile, parameters: dict) -> dict | None:
    """The record (kind "job") of how a job last ended: status, seconds, and values.reason.

    That of the same model at all depths, where it was done with them.
    """
    whole = results.load("job", record_params(replace(job, size=None), profile, parameters))
    if job.size is None or (whole and whole["status"] == "ok"):
        return whole
    return results.load("job", record_params(job, profile, parameters))


def note_measured(batch: Batch, number: str, seconds: float) -> None:
    """Record the jobs that a whole notebook has done."""
    done = by_model(all_jobs(batch.profile, [number]))
    for job in done:
        before = record(job, batch.profile, batch.parameters)
        if before is None or before["status"] != "ok":
            params = record_params(job, batch.profile, batch.parameters)
            results.save("job", params, {"reason": ""}, seconds / len(done))


def record_params(job: Job, profile: Profile, parameters: dict) -> dict:
    """What a job's record is keyed by: all that decides what it measures.

    A record only saves starting a kernel: what is missing in spite of it, the notebooks measure.
    """
    counts = asdict(replace(profile, models=(), sizes=()))
    others = {name: value for name, value in parameters.items() if name != "MODELS"}
    return asdict(job) | {
        "revision": registry.resolve(job.model).revision,
        "profile": counts,
        "parameters": others,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "versions": results.VERSIONS,
    }


def shard(job: Job) -> str:
    """The name of a job's folder."""
    name = paths.component(job.model)
    unique = results.key("job", asdict(job))[:6]
    return f"{job.notebook}-{name}{'' if job.size is None else f'-n{job.size}'}-{unique}"
