"""A run of many jobs that survives: each on its own, known as done by its copy, none twice.

A job (`jobs.Job`) is a notebook over fewer models and depths. What the jobs measure, the
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
from tqdm.auto import tqdm

from lib import storage
from lib.models import registry
from replication import paths, results
from replication.profiles import Profile
from replication.run.execution import Launch, Outcome, attempt, finished
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
    """What the jobs of a run have in common: notebooks by number, parameters, minutes for each."""

    notebooks: Mapping[str, Notebook]
    parameters: dict
    profile: Profile
    time_limit: float | None = None

    def launch(self, job: Job) -> Launch:
        """The notebook of a job, as a shard that is called by all that decides what it measures."""
        size = "" if job.size is None else f"-n{job.size}"
        others = {name: value for name, value in self.parameters.items() if name != "MODELS"}
        measures = asdict(job) | {
            "revision": registry.resolve(job.model).revision,
            "profile": asdict(replace(self.profile, models=(), sizes=())),
            "parameters": others,
            "versions": results.VERSIONS,
        }
        profile = self.profile
        roles = [
            job.model in profile.ablation_models,
            job.model in profile.rank_models,
            job.model in profile.study_models,
            profile.heals_fully(job.model),
        ]
        unique = results.key("job", measures | {"roles": roles})[:8]
        shard = f"{job.notebook}-{storage.component(job.model)}{size}-{unique}"
        parameters = self.parameters | job.parameters
        return Launch(
            self.notebooks[job.notebook],
            parameters,
            shard,
            time_limit=self.time_limit,
            run_models=profile.models,
        )

    def done(self, job: Job) -> bool:
        """Whether it has left all that it measures, alone or with the model's other depths.

        That only saves starting a kernel: what is missing in spite of it, the notebooks measure.
        """
        return any(finished(self.launch(job)) for job in {job, replace(job, size=None)})

    def label(self, job: Job) -> str:
        """A job as the closing table calls it."""
        size = "" if job.size is None else f" n={job.size}"
        return f"{self.notebooks[job.notebook].file} {job.model}{size}"


def run(batch: Batch, jobs: list[Job], engine) -> dict[str, Outcome]:
    """Run every job of `jobs`, then the notebooks over the full lists; all Outcomes, by label.

    If a job fails, the notebooks that it was for draw what the others measured, and do not try to
    measure the rest.
    """
    results.forget_out_of_memory()
    progress = Progress(len(jobs) + len(batch.notebooks))
    run_jobs(batch, jobs, engine, progress)
    failed = any(outcome.status != "ok" for outcome in progress.outcomes.values())
    for notebook in batch.notebooks.values():
        read_only = failed and notebook.draws
        engine.submit(Launch(notebook, batch.parameters, "", read_only, batch.time_limit))
        _, outcome = engine.ended()
        progress.add(notebook.file, outcome)
    return progress.outcomes


def run_jobs(batch: Batch, jobs: list[Job], engine, progress: "Progress") -> None:
    """Add the Outcome of each job to `progress`; one that is done is not started."""
    done = [job for job in jobs if batch.done(job)]
    for job in done:
        progress.add(batch.label(job), DONE_BEFORE)
    for job, outcome in in_order([j for j in jobs if j not in done], engine, batch.launch):
        progress.add(batch.label(job), outcome)


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


# ---- what a reader sees ----------------------------------------------------------------------


class Progress:
    """A line for each end, in a terminal and in a log alike; in a terminal a bar below them."""

    def __init__(self, total: int):
        self.outcomes: dict[str, Outcome] = {}
        self.start = time.monotonic()
        self.bar = tqdm(total=total, desc="jobs", disable=None)

    def add(self, name: str, outcome: Outcome) -> None:
        """Count and print one end. The estimate is the mean time so far for each one left."""
        self.outcomes[name] = outcome
        ends, total = len(self.outcomes), self.bar.total
        failed = sum(end.status != "ok" for end in self.outcomes.values())
        worked = sum(end != DONE_BEFORE for end in self.outcomes.values())
        line = f"[{ends}/{total}] {name}: {outcome.status}, {outcome.seconds:.0f} s"
        line += f"; {failed} failed, {total - ends} left"
        if worked and ends < total:
            minutes = (time.monotonic() - self.start) / worked * (total - ends) / 60
            line += f", about {minutes:.0f} min"
        self.bar.update()
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
        if ends == total:
            self.bar.close()


def table(outcomes: Mapping[str, Outcome]) -> str:
    """The closing table: status, seconds, name and reason of each job and notebook."""
    lines = [f"{'status':22} {'time':>10}  job"]
    for name, outcome in outcomes.items():
        reason = f": {outcome.reason}" if outcome.reason else ""
        lines.append(f"{outcome.status:22} {outcome.seconds:8.0f} s  {name}{reason}")
    return "\n".join(lines)
