"""Run notebooks headless through papermill: `python -m lib.run --profile quick --only 01 02`.

Ends with a table of every job and notebook, and with status 0 only if all of them finished and
left their figures whole. Imports neither torch nor transformers, so bad input ends at once.
"""

import argparse
import json
import logging
import os
import signal
import sys
from contextlib import closing

from lib import profiles
from lib.measure import experiments
from lib.models import formats
from lib.plan import assumptions, printing
from lib.profiles import Profile
from lib.run import batch, progress
from lib.run.execution import check_parameters
from lib.run.notebooks import NOTEBOOKS


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lib.run", description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default="quick", help=f"one of {', '.join(profiles.PROFILES)}")
    parser.add_argument("--only", nargs="+", metavar="NN", help="notebook numbers, as 01 02")
    parser.add_argument(
        "--figure", metavar="N", help="instead: the notebook of a figure, as 4 or 1c"
    )
    parser.add_argument("--models", nargs="+", help="names, folders, hub ids or .gguf files")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="cut every count of the profile to N"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="heal for at most N steps")
    parser.add_argument("--dtype", help=f"of the weights: {', '.join(formats.DTYPES)}")
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: spread the jobs over the GPUs of a Ray cluster, or of this machine",
    )
    parser.add_argument("--time-limit", type=float, metavar="MINUTES", help="end a job after this")
    parser.add_argument(
        "--plan", action="store_true", help="print what each job takes and if it fits; run none"
    )
    parser.add_argument(
        "--card", help=f"to plan for: {', '.join(assumptions.NAMES)}; default: at hand"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="other notebook parameters"
    )
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
        try:
            parameters[name] = json.loads(value)
        except json.JSONDecodeError:
            parameters[name] = value
    return {name: value for name, value in parameters.items() if value is not None}


def chosen(options: argparse.Namespace) -> list[str]:
    """The numbers of the notebooks asked for. Raises ValueError for one that does not exist."""
    if options.figure:
        wanted = f"figure_{options.figure}"
        numbers = [
            number
            for number, notebook in NOTEBOOKS.items()
            if any(name.rstrip("abcd") == wanted or name == wanted for name in notebook.figures)
        ]
        if not numbers:
            raise ValueError(f"No notebook draws figure {options.figure}.")
        return numbers
    numbers = options.only or list(NOTEBOOKS)
    for number in numbers:
        if number not in NOTEBOOKS:
            raise ValueError(f"No notebook {number}: choose among {', '.join(NOTEBOOKS)}.")
    return numbers


def run(options: argparse.Namespace, profile: Profile, numbers: list[str], parameters: dict) -> int:
    """Jobs first where there are any, then the notebooks; the exit status."""
    notebooks = {number: NOTEBOOKS[number] for number in numbers}
    parts = experiments.jobs(profile, numbers)
    if options.engine == "ray":
        from lib.run.cluster import Ray as Engine
    else:
        from lib.run.batch import Serial as Engine

        parts = experiments.by_model(parts) if len(profile.models) > 1 else []
    with batch.alone(), closing(Engine()) as engine:
        whole = batch.Batch(notebooks, parameters, profile, options.time_limit)
        found = batch.run(whole, parts, engine)
    print(progress.table(found))
    return int(any(outcome.status != "ok" for outcome in found.values()))


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) != signal.SIG_IGN:  # as under nohup
            signal.signal(ending, signal.default_int_handler)  # no kernel stays behind
    try:
        parameters = parameters_of(options)
        sizes, dtype = parameters.get("SIZES"), parameters.get("DTYPE")
        if options.time_limit is not None and options.time_limit <= 0:
            raise ValueError(f"--time-limit takes minutes above 0, not {options.time_limit:g}.")
        counts = (options.models, options.limit, options.steps, sizes)
        profile = profiles.get(options.profile, *counts, dtype)
        numbers = chosen(options)
        for number in numbers:
            check_parameters(NOTEBOOKS[number], parameters)
        if options.plan:
            print(printing.table(profile, numbers, options.card))
            return 0
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        return run(options, profile, numbers, parameters)
    except (batch.Occupied, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from here.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
