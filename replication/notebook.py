"""What a notebook begins with, and what it shows of itself: its settings, the code of a function.

With the profile `recorded` a notebook draws the recorded run, and where a job has failed what the
others left. Its cells that begin with the comment LIVE then say that they are skipped.
"""

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from html import escape
from importlib.metadata import version

import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import HTML
from matplotlib import colormaps, colors

from replication.profiles import DRAWN, PROFILES, Profile

ROWS = {
    "models": "{models}",
    "weights": "{quantization}",
    "texts for the distances": "{similarity_sequences:,} of {similarity_tokens:,} tokens",
    "texts for the loss": "{c4_sequences:,} of {c4_tokens:,} tokens",
    "MMLU": "{mmlu_subjects} subjects, at most {mmlu_questions:,} questions of each",
    "examples before an MMLU question": "{mmlu_shots}",
    "BoolQ": "{boolq_questions:,} questions",
    "healing": "{heal_steps:,} steps of {heal_batch} texts of {heal_tokens:,} tokens",
}
LIVE = "# runs the model"  # the first line of such a cell
SKIPPED = "Skipped: this cell runs the model, and this run only draws. Try PROFILE = 'quick'."


def start(profile: Profile) -> HTML:
    """What every notebook begins with: versions, and the settings next to the paper's.

    In a run that only draws, cells that begin with LIVE are skipped from here on.
    """
    drawn = profile.name == DRAWN or bool(os.environ.get("DEEPER_LAYERS_DRAW_ONLY"))
    if shell := get_ipython():
        transforms = [t for t in shell.input_transformers_cleanup if t is not skip_live]
        shell.input_transformers_cleanup[:] = [*transforms, *([skip_live] if drawn else [])]
    print(" | ".join(f"{name} {version(name)}" for name in ("torch", "transformers")))
    return settings(profile)


def skip_live(lines: list[str]) -> list[str]:
    """The lines of a cell, or a line that says why it is skipped if it begins with LIVE."""
    return [f"print({SKIPPED!r})\n"] if lines and lines[0].strip() == LIVE else lines


def settings(profile: Profile) -> HTML:
    """A profile next to `paper`: what matters most as a table, all its fields folded."""
    columns = {"this run": asdict(profile), "profile paper": asdict(PROFILES["paper"])}
    short = {}
    for name, fields in columns.items():
        fields["models"] = ", ".join(fields["models"])
        fields["quantization"] = fields["quantization"] or fields["dtype"] or "unquantised"
        short[name] = {row: text.format(**fields) for row, text in ROWS.items()}
    tables = (pd.DataFrame(table).to_html(border=0) for table in (short, columns))
    return HTML("{}<details><summary>all settings</summary>{}</details>".format(*tables))


def source(*functions: Callable) -> HTML:
    """The code of functions, each folded under its name."""
    folded = "<details><summary><code>{}.{}</code></summary><pre>{}</pre></details>"
    html = ""
    for function in functions:
        code = escape(inspect.getsource(function))
        html += folded.format(function.__module__, function.__qualname__, code)
    return HTML(html)


def shaded(tokens: Sequence[str], values: np.ndarray) -> HTML:
    """A text, each token the darker the larger its value; a mouse over it shows the value."""
    span = '<span style="background: {}; color: black" title="{:.3f}">{}</span>'
    shades = map(colors.to_hex, colormaps["Blues"](0.6 * values / values.max()))
    cells = zip(shades, values, map(escape, tokens), strict=True)
    return HTML("".join(span.format(*cell) for cell in cells))
