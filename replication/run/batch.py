"""A run of many jobs that survives: each on its own, known as done by its results, none twice.

What the jobs (`jobs.Job`) measure, the notebooks then find, and only draw. One model on one machine
has no jobs: its notebooks measure as they go.
"""

import json
import os
import platform
import shlex
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from lib import storage
from replication import paths, plan
from replication.measure import cache
from replication.plan import Card, Planned
from replication.profiles import Profile
from replication.run.execution import STATUS, Launch, Outcome, attempt, attempt_jobs
from replication.run.jobs import Job
from replication.run.notebooks import Notebook

DONE_BEFORE = Outcome("ok", "done before")
STARTING = 10  # seconds, about, of a notebook or job that finds all results
UNKNOWN = "a100-80"  # a GPU without a row in cards.csv passes for this one: shares of a whole stay


class Occupied(RuntimeError):
    """Another runner writes to the results; the message says which."""


class Serial:
    """The engine of one machine: one launch after the other.

    Jobs of a group that wait behind each other share a process, which saves starting one for each.
    """

    room = 1  # launches at a time

    def __init__(self, execute: Callable[[Launch], Outcome] = attempt):
        self.execute, self.queue, self.done = execute, deque(), deque()

    def submit(self, launch: Launch) -> None:
        """Have `launch` executed."""
        self.queue.append(launch)

    def ended(self) -> tuple[Launch, Outcome]:
        """Wait for a submitted launch to end."""
        if not self.done:
            together = [self.queue.popleft()]
            while self.queue and self._share(together[0], self.queue[0]):
                together.append(self.queue.popleft())
            if len(together) > 1:
                outcomes = attempt_jobs(together)
            else:
                outcomes = [self.execute(together[0])]
            self.done.extend(zip(together, outcomes, strict=False))
            self.queue.extendleft(reversed(together[len(outcomes) :]))
        return self.done.popleft()

    def _share(self, first: Launch, second: Launch) -> bool:
        """Whether two jobs run in one process."""
        return self.execute is attempt and bool(first.group) and first.group == second.group

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
        other = json.loads(owner.read_text(encoding="utf-8")) if owner.exists() else {}
        which = ", ".join(f"{name} {value}" for name, value in other.items())
        raise Occupied(f"Another run writes to {paths.RESULTS} ({which}): wait for it.") from error
    me = {
        "pid": os.getpid(),
        "host": platform.node(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": shlex.join(sys.argv),
    }
    try:
        storage.atomic_write(owner, json.dumps(me).encode())
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


@dataclass(frozen=True)
class Batch:
    """What a run has: notebooks by number, their parameters, minutes for each; its command."""

    notebooks: Mapping[str, Notebook]
    parameters: dict
    profile: Profile
    time_limit: float | None = None
    command: tuple[str, ...] = ()

    def launch(self, job: Job) -> Launch:
        """A job, as a process."""
        limits = {"command": self.command, "time_limit": self.time_limit}
        return Launch(job=job.name, group=f"{job.model} {job.notebook}", **limits)

    def planned(self) -> list[Planned]:
        """Its jobs, what they lack, and what that takes."""
        return plan.planned(self.profile, list(self.notebooks), self.card)

    def seconds(self, planned: Planned) -> float:
        """What a job takes by the plan."""
        return 3600 * planned.hours(self.card)

    @cached_property
    def card(self) -> Card:
        """What computes here, or a card for one that is not known."""
        try:
            return plan.get_card(dtype=self.profile.dtype)
        except ValueError:
            return plan.get_card(UNKNOWN)


def run(batch: Batch, engine, split: bool = True) -> dict[str, Outcome]:
    """Run the jobs of a batch if it is `split`, then its notebooks; all Outcomes, by name.

    If a job fails, the notebooks that it was for draw what the others measured, and do not try to
    measure the rest.
    """
    cache.forget_out_of_memory()
    files = {number: notebook.file for number, notebook in batch.notebooks.items()}
    progress = Progress(dict.fromkeys(files.values(), STARTING), engine.room)
    if split:
        run_jobs(batch, engine, progress)
    else:
        for planned in batch.planned():
            progress.expected[files[planned.job.notebook]] += batch.seconds(planned)
    ends = dict.fromkeys(outcome.status for outcome in progress.outcomes.values())
    failed = [status for status in ends if status != "ok"]
    for notebook in batch.notebooks.values():
        read_only = bool(failed) and notebook.draws
        engine.submit(Launch(notebook, batch.parameters, read_only, batch.time_limit))
        _, outcome = engine.ended()
        reasons = [status for status in failed if status not in outcome.reason]
        if read_only and outcome.status == "incomplete" and reasons:
            reason = f"{outcome.reason}; jobs: {', '.join(reasons)}"
            outcome = replace(outcome, reason=reason)
        progress.add(notebook.file, outcome)
    return progress.outcomes


def run_jobs(batch: Batch, engine, progress: "Progress") -> None:
    """Add the Outcome of each job to `progress`; one that is done is not started.

    Once a map is there, it may show more jobs: those of a model whose depth was not known.
    """
    while new := [p for p in batch.planned() if p.job.name not in progress.outcomes]:
        progress.expected |= {p.job.name: STARTING + batch.seconds(p) for p in new}
        for planned in new:
            if not planned.missing:
                progress.add(planned.job.name, DONE_BEFORE)
        left = [planned.job for planned in new if planned.missing]
        for job, outcome in in_order(left, engine, batch.launch):
            progress.add(job.name, outcome)


def in_order(
    jobs: Iterable[Job], engine, launch: Callable[[Job], Launch]
) -> Iterator[tuple[Job, Outcome]]:
    """Each job and how it ended; it starts once its model's map is there.

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
    """A line for each end, in a terminal and in a log alike; in a terminal a bar below them.

    expected: seconds of each, by the plan. room: how many run at a time.
    """

    def __init__(self, expected: dict[str, float], room: int = 1):
        self.expected, self.room = expected, room
        self.outcomes: dict[str, Outcome] = {}
        self.bar = tqdm(desc="jobs", disable=None)

    def add(self, name: str, outcome: Outcome) -> None:
        """Count and print one end."""
        self.outcomes[name] = outcome
        ends, total = len(self.outcomes), len(self.expected)
        failed = sum(end.status != "ok" for end in self.outcomes.values())
        line = f"[{ends}/{total}] {name}: {outcome.status}, {outcome.seconds:.0f} s"
        line += f"; {failed} failed, {total - ends} left"
        if seconds := self.seconds_left():
            line += f", about {seconds / 60:.0f} min"
        self.bar.total = total
        self.bar.update()
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
        if ends == total:
            self.bar.close()

    def seconds_left(self) -> float | None:
        """What is left by the plan, at the pace of what has ended; None before anything has."""
        ended = {n: end.seconds for n, end in self.outcomes.items() if end.status == "ok"}
        ended = {name: seconds for name, seconds in ended.items() if seconds}
        left = [self.expected[name] for name in self.expected if name not in self.outcomes]
        if not ended or not left:
            return None
        pace = sum(ended.values()) / sum(self.expected[name] for name in ended)
        return pace * max(max(left), sum(left) / self.room)


def table(outcomes: Mapping[str, Outcome]) -> str:
    """The closing table: status, seconds, name and reason of each job and notebook."""
    rows = [outcome.row(name) for name, outcome in outcomes.items()]
    return "\n".join([f"{'status':{STATUS}} {'time':>10}  job", *rows])
