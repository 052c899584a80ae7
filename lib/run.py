"""Run notebooks headless through papermill: `python -m lib.run --profile quick --only 01 02`.

A notebook counts as done if it ran to its end and left its figures; only then does its executed
copy appear under its own name in papermill_runs/<profile>/. Imports neither torch nor
transformers, so bad input ends at once.
"""

import argparse
import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import papermill

from lib import paths, profiles


@dataclass(frozen=True)
class Notebook:
    """A notebook, the figures it leaves, and its minutes in `quick` on two idle cores."""

    file: str
    figures: tuple[str, ...]
    minutes: float


NOTEBOOKS = {
    "01": Notebook(
        "01_similarity_heatmaps", ("figure_1a", "figure_1b", "figure_1c", "figure_4"), 1
    ),
    "02": Notebook("02_pruning_curves", ("figure_2", "figure_3", "figure_5", "figure_6"), 5),
    "03": Notebook("03_healing", ("figure_1d", "figure_2", "figure_3", "figure_6"), 10),
    "04": Notebook("04_simple_vs_similarity", ("figure_5",), 1),
    "05": Notebook("05_ablation_prompts", ("figure_7",), 3),
    "06": Notebook("06_ablation_seeds", ("figure_8",), 2),
    "07": Notebook("07_ablation_lora_rank", ("figure_9",), 4),
    "09": Notebook("09_inference_cost", ("figure_cost",), 2),
    "10": Notebook(
        "10_beyond_the_paper", ("figure_beyond", "figure_damage", "figure_heal_where"), 4
    ),
}


class RunError(RuntimeError):
    """A notebook did not finish; the message says why in one sentence."""


def execute(number: str, parameters: dict) -> Path:
    """Run notebook `number` with `parameters` and return its executed copy.

    Raises ValueError for a parameter that the notebook does not have, RunError if it fails or
    leaves a figure out; a failed copy is kept as <name>.failed.ipynb.
    """
    check_parameters(number, parameters)
    notebook = NOTEBOOKS[number]
    source = paths.NOTEBOOKS / f"{notebook.file}.ipynb"
    profile = parameters.get("PROFILE", "quick")
    folder = paths.RUNS / profile
    folder.mkdir(parents=True, exist_ok=True)
    running = folder / f"{notebook.file}.running.ipynb"
    start = time.time()
    try:
        papermill.execute_notebook(
            str(source),
            str(running),
            parameters,
            kernel_name="python3",
            cwd=str(paths.NOTEBOOKS),
            extra_arguments=["--log-level=ERROR"],
        )
        _check_figures(notebook, paths.FIGURES / profile, since=start)
    except Exception as error:
        if running.exists():
            os.replace(running, folder / f"{notebook.file}.failed.ipynb")
        if isinstance(error, RunError):
            raise
        reason = getattr(error, "evalue", None) or str(error)
        first = (reason.strip().splitlines() or [type(error).__name__])[0]
        raise RunError(f"{source.name} failed: {first}") from error
    done = folder / f"{notebook.file}.ipynb"
    os.replace(running, done)
    return done


def check_parameters(number: str, parameters: dict) -> None:
    """Raise ValueError for a parameter that notebook `number` does not have."""
    source = paths.NOTEBOOKS / f"{NOTEBOOKS[number].file}.ipynb"
    known = papermill.inspect_notebook(str(source))
    for name in parameters:
        if name not in known:
            raise ValueError(f"{source.name} has no parameter {name}: it has {', '.join(known)}.")


def _check_figures(notebook: Notebook, folder: Path, since: float) -> None:
    for name in notebook.figures:
        for file in (folder / f"{name}.png", folder / f"{name}.csv"):
            if not file.exists() or file.stat().st_mtime < since - 1:
                raise RunError(f"{notebook.file}.ipynb finished without writing {file.name}.")


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
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="other notebook parameters"
    )
    return parser.parse_args(argv)


def parameters_of(options: argparse.Namespace) -> dict:
    """Notebook parameters from the command line, checked before anything runs."""
    profiles.get(options.profile, options.models, options.limit, options.steps)
    parameters = {
        "PROFILE": options.profile,
        "MODELS": options.models,
        "LIMIT": options.limit,
        "STEPS": options.steps,
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


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    failed = False
    try:
        parameters = parameters_of(options)
        numbers = chosen(options)
        for number in numbers:
            check_parameters(number, parameters)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for number in numbers:
        start = time.monotonic()
        try:
            print(f"{execute(number, parameters)}  {time.monotonic() - start:.0f} s")
        except RunError as error:
            print(error, file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
