"""A run of many jobs that survives: each on its own, known as done by its results, none twice.

What the jobs (`jobs.Job`) measure, the notebooks then find, and only draw. One model on one machine
has no jobs: its notebooks measure as they go.
"""

import os
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from filelock import FileLock, Timeout

from lib import storage
from replication import paths, plan
from replication.measure import cache
from replication.profiles import Profile
from replication.run.execution import STATUS, Launch, Outcome, attempt
from replication.run.jobs import Job
from replication.run.notebooks import Notebook

DONE_BEFORE = Outcome("ok", "done before")


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
    owner = paths.RESULTS / "runner.txt"
    paths.RESULTS.mkdir(parents=True, exist_ok=True)
    lock = FileLock(paths.RESULTS / "runner.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        other = owner.read_text(encoding="utf-8") if owner.exists() else "it has just begun"
        raise Occupied(f"Another run writes to {paths.RESULTS} ({other}): wait for it.") from error
    try:
        storage.atomic_write(owner, f"pid {os.getpid()} on {platform.node()}".encode())
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


@dataclass(frozen=True)
class Batch:
    """What a run has: notebooks by number, their parameters, its command."""

    notebooks: Mapping[str, Notebook]
    parameters: dict
    profile: Profile
    command: tuple[str, ...] = ()

    def jobs(self) -> dict[Job, bool]:
        """Return its jobs, and whether all results of each are there."""
        return {
            job: all(map(plan.is_done, requests))
            for model in self.profile.models
            for job, requests in plan.jobs_of(model, self.profile, list(self.notebooks)).items()
        }


def run(batch: Batch, engine, split: bool = True) -> dict[str, Outcome]:
    """Run the jobs of a batch if it is `split`, then its notebooks; return all Outcomes by name.

    If a job fails, the notebooks that it was for draw what the others measured, and do not try to
    measure the rest.
    """
    cache.forget_out_of_memory()
    progress = Progress(len(batch.notebooks))
    if split:
        run_jobs(batch, engine, progress)
    failed = any(outcome.status != "ok" for outcome in progress.outcomes.values())
    for notebook in batch.notebooks.values():
        engine.submit(Launch(notebook, batch.parameters, read_only=failed and notebook.draws))
        _, outcome = engine.ended()
        progress.add(notebook.file, outcome)
    return progress.outcomes


def run_jobs(batch: Batch, engine, progress: "Progress") -> None:
    """Add the Outcome of each job to `progress`; one that is done is not started.

    Once a map is there, it may show more jobs: those of a model whose depth was not known.
    """

    def launch(job: Job) -> Launch:
        return Launch(job=job.name, command=batch.command)

    while new := {j: done for j, done in batch.jobs().items() if j.name not in progress.outcomes}:
        progress.total += len(new)
        for job in (job for job, done in new.items() if done):
            progress.add(job.name, DONE_BEFORE)
        left = [job for job, done in new.items() if not done]
        for job, outcome in in_order(left, engine, launch):
            progress.add(job.name, outcome)


def in_order(
    jobs: Iterable[Job], engine, launch: Callable[[Job], Launch]
) -> Iterator[tuple[Job, Outcome]]:
    """Yield each job and how it ended; it starts once its model's map is there.

    The jobs of a model that cannot be had, or whose map fails, end with the first of them.
    """
    waiting, running = list(jobs), {}
    without_map = {job.model for job in waiting if job.is_map}
    while waiting or running:
        ready = [job for job in waiting if job.is_map or job.model not in without_map]
        waiting = [job for job in waiting if not job.is_map and job.model in without_map]
        for job in ready:
            running[job.name] = job
            engine.submit(launch(job))
        done, outcome = engine.ended()
        job = running.pop(done.job)
        yield job, outcome
        if job.is_map and outcome.status == "ok":
            without_map.discard(job.model)
        elif job.is_map:
            for other in [other for other in waiting if other.model == job.model]:
                yield other, replace(outcome, seconds=0.0)
            waiting = [other for other in waiting if other.model != job.model]


# ---- what a reader sees ----------------------------------------------------------------------


class Progress:
    """How jobs and notebooks ended, a line for each, in a terminal and in a log alike."""

    def __init__(self, total: int):
        self.total = total
        self.outcomes: dict[str, Outcome] = {}

    def add(self, name: str, outcome: Outcome) -> None:
        """Count and print one end."""
        self.outcomes[name] = outcome
        ends = len(self.outcomes)
        failed = sum(end.status != "ok" for end in self.outcomes.values())
        line = f"[{ends}/{self.total}] {name}: {outcome.status}, {outcome.seconds:.0f} s"
        print(f"{line}; {failed} failed, {self.total - ends} left", flush=True)


def table(outcomes: Mapping[str, Outcome]) -> str:
    """Return the closing table: status, seconds, name and reason of each job and notebook."""
    rows = [outcome.row(name) for name, outcome in outcomes.items()]
    return "\n".join([f"{'status':{STATUS}} {'time':>10}  job", *rows])
