"""Run jobs, then the notebooks that they were for: isolated, resumable, none twice.

What the jobs (`jobs.Job`) measure, the notebooks then find, and only draw. One model on one machine
has no jobs: its notebooks measure as they go.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from filelock import FileLock, Timeout

from replication import paths, plan
from replication.profiles import Profile
from replication.run.execution import Launch, Outcome
from replication.run.executors import Executor
from replication.run.jobs import Job
from replication.run.notebooks import Notebook

DONE_BEFORE = Outcome("ok", "done before")


class ResultsLocked(RuntimeError):
    """Another run writes to the results."""


@contextmanager
def exclusive_run() -> Iterator[None]:
    """Be the only run that writes to the results folder. Raises ResultsLocked if another does."""
    try:
        with FileLock(paths.RESULTS / "runner.lock", timeout=0):
            yield
    except Timeout as error:
        raise ResultsLocked(f"Another run writes to {paths.RESULTS}: wait for it.") from error


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

    def lacks_results(self, number: str) -> bool:
        """Return whether a result is missing that a job should have measured for a notebook."""
        alone = replace(self, notebooks={number: self.notebooks[number]})
        return not all(alone.jobs().values())


@dataclass
class Progress:
    """How jobs and notebooks ended, a line for each, in a terminal and in a log alike."""

    total: int
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return sum(outcome.status != "ok" for outcome in self.outcomes.values())

    def add(self, name: str, outcome: Outcome) -> None:
        """Count and print one end."""
        self.outcomes[name] = outcome
        place = f"[{len(self.outcomes)}/{self.total}, {self.failed} failed]"
        reason = f": {outcome.reason}" if outcome.reason else ""
        print(f"{place} {name}: {outcome.status}, {outcome.seconds:.0f} s{reason}", flush=True)


def run_jobs(batch: Batch, executor: Executor, progress: Progress) -> None:
    """Add the Outcome of each job to `progress`: first the maps, then what needs them.

    A job that is done is not started. The jobs of a model that is not available, or whose map
    fails, end as its map did. Which jobs a model has may be known only after its map.
    """
    for are_maps in (True, False):
        jobs = {job: done for job, done in batch.jobs().items() if job.is_map == are_maps}
        progress.total += len(jobs)
        launches = []
        for job, done in jobs.items():
            the_map = progress.outcomes.get(job.map_name, DONE_BEFORE)
            if the_map.status != "ok":
                progress.add(job.name, replace(the_map, seconds=0.0))
            elif done:
                progress.add(job.name, DONE_BEFORE)
            else:
                launches.append(Launch(job=job.name, command=batch.command))
        for launch, outcome in executor(launches):
            progress.add(launch.name, outcome)


def run(
    batch: Batch, executor: Executor, job_executor: Executor | None = None
) -> dict[str, Outcome]:
    """Run the jobs of a batch, if somebody executes them, then its notebooks; return all Outcomes.

    If a job fails, the notebooks that need its results draw what the others measured, and do not
    try to measure the rest, which would fail in them, too.
    """
    progress = Progress(len(batch.notebooks))
    if job_executor:
        run_jobs(batch, job_executor, progress)
    a_job_failed = progress.failed > 0
    launches = []
    for number, notebook in batch.notebooks.items():
        only_draws = a_job_failed and notebook.draws and batch.lacks_results(number)
        launches.append(Launch(notebook, batch.parameters, read_only=only_draws))
    for launch, outcome in executor(launches):
        progress.add(launch.name, outcome)
    return progress.outcomes
