"""What a notebook begins with, and what it shows of itself.

With the profile `recorded` a notebook draws the recorded run, and where a job has failed what the
others left. Its cells that begin with the comment LIVE are then skipped. Of the recorded run they
show what they left when they were recorded: `python -m replication.notebook FILE …` takes that from
executed notebooks. Those are of the recorded run, too, executed with DEEPER_LAYERS_LIVE=1, so that
what such a cell shows stands beside the tables it is compared with.
"""

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from importlib.metadata import version

import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import HTML, display
from matplotlib import colormaps, colors

from replication import paths
from replication.profiles import DRAW_ONLY_PROFILE, PROFILES, Profile

LIVE = "# runs the model"  # the first line of such a cell
SKIPPED = "Skipped: this cell runs the model, and this run only draws. Try PROFILE = 'quick'."
SHOWN = "Recorded: this cell runs the model. Set PROFILE = 'quick' to run it yourself."
WIDGET = "application/vnd.jupyter.widget-view+json"  # an output that needs a kernel
PARAMETERS, INJECTED = "PROFILE: str", "# Parameters"  # how a notebook's cell and papermill's begin
ASSIGNED = re.compile(r"^(\w+)(?:: \w+)? = ", re.MULTILINE)
CELLS = paths.RECORDED / "cells.ipynb"  # such cells, and what they left
WORDS = {  # what a shown table calls its columns
    "task": "questions or texts",
    "strategy": "cut",
    "block_size": "layers dropped",
    "standard_error": "s.e.",
    "fraction": "half lost at",
    "shallow": "shallow blocks",
    "deep": "deep blocks",
    "last_is_least": "last layer least similar",
    "without_first": "the same without the first layer",
    "first_layer": "first layer",
    "last_layer": "last layer",
    "area": "blocks",
    "by_growth": "by growth",
    "quantization": "format",
    "ratio": "share of the whole model's",
    "ratio_low": "from",
    "ratio_high": "to",
    "rank_correlation": "rank correlation",
    "best_three": "sizes among the best three",
    "as_a_random_start": "sizes no better than the median",
    "excess": "excess (nats)",
}


def start(profile: Profile) -> HTML:
    """What every notebook begins with: versions, and the settings next to the paper's.

    In a run that only draws, cells that begin with LIVE are skipped from here on. Raises ValueError
    for a parameter of papermill that the notebook does not have.
    """
    is_recorded = profile.name == DRAW_ONLY_PROFILE and paths.LIVE_VARIABLE not in os.environ
    drawn = paths.draws_only() or is_recorded
    if shell := get_ipython():
        check_parameters(shell.user_ns["In"])
        transforms = [t for t in shell.input_transformers_cleanup if t is not skip_live]
        shell.input_transformers_cleanup[:] = [*transforms, *([skip_live] if drawn else [])]
    print(" | ".join(f"{name} {version(name)}" for name in ("torch", "transformers")))
    return settings(profile)


def check_parameters(cells: Sequence[str]) -> None:
    """Raise ValueError for a name that papermill set, in a cell of its own, and nothing reads.

    cells: all that were run, in their order. papermill itself only warns of such a name.
    """
    own = [cell for cell in cells if cell.startswith(PARAMETERS)]
    injected = [cell for cell in cells if cell.startswith(INJECTED)]
    if not own or not injected:
        return
    known = ASSIGNED.findall(own[-1])
    if unknown := [name for name in ASSIGNED.findall(injected[-1]) if name not in known]:
        raise ValueError(f"No parameter {unknown[0]!r}: this notebook has {', '.join(known)}.")


def skip_live(lines: list[str]) -> list[str]:
    """The lines of a cell, or one that shows what was recorded of it if it begins with LIVE."""
    if not lines or lines[0].strip() != LIVE:
        return lines
    code = "".join(lines).strip()
    return [f"notebook.show_recorded({code!r})\n"]


def show_recorded(code: str) -> None:
    """Show what a cell has left when it was recorded, or say that it is skipped.

    A cell whose code has changed since then is skipped, and each cell of a run that is not the
    recorded one.
    """
    # as JSON: to import nbformat takes a second of each kernel
    cells = [] if paths.draws_only() else json.loads(CELLS.read_text(encoding="utf-8"))["cells"]
    recorded = {"".join(cell["source"]): cell["outputs"] for cell in cells}
    print(SHOWN if code in recorded else SKIPPED)
    for output in recorded.get(code, []):
        data = output.get("data") or {"text/plain": output["text"]}
        if output.get("name") != "stderr" and WIDGET not in data:  # progress bars
            display({kind: "".join(lines) for kind, lines in data.items()}, raw=True)


def record(files: Sequence[str]) -> None:
    """Record the cells that begin with LIVE of executed notebooks, with what they have left."""
    import nbformat

    notebooks = [nbformat.read(file, as_version=4) for file in files]
    cells = [cell for each in notebooks for cell in each.cells if cell.source.startswith(LIVE)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), CELLS)


def settings(profile: Profile) -> HTML:
    """A profile next to `paper`: all its settings, folded."""
    columns = {}
    for title, shown in {"this run": profile, "profile paper": PROFILES["paper"]}.items():
        of_profile = asdict(shown)
        columns[title] = of_profile | of_profile.pop("task_counts")
    table = pd.DataFrame(columns).to_html(border=0)
    return HTML(f"<details><summary>all settings</summary>{table}</details>")


def in_words(table: pd.DataFrame, columns: str, digits: int = 3, **words: str) -> pd.DataFrame:
    """Return columns of a table as a notebook shows them: by model, in WORDS, rounded.

    columns: their names, with spaces between. words: of columns that WORDS lacks.
    """
    shown = table.set_index("model")[columns.split()]
    return shown.rename(columns=WORDS | words).round(digits)


def shaded(tokens: Sequence[str], values: np.ndarray) -> HTML:
    """A text, each token the darker the larger its value; a mouse over it shows the value."""
    span = '<span style="background: {}; color: black" title="{:.3f}">{}</span>'
    shades = map(colors.to_hex, colormaps["Blues"](0.6 * values / values.max()))
    cells = zip(shades, values, map(escape, tokens), strict=True)
    return HTML("".join(span.format(*cell) for cell in cells))


if __name__ == "__main__":
    record(sys.argv[1:])
