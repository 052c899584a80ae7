"""What a notebook shows of itself: how much it measures, and the code of a function."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import asdict
from html import escape
from importlib.metadata import version

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib import colormaps, colors

from replication.profiles import PROFILES, Profile

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


def settings(profile: Profile) -> HTML:
    """A profile next to the paper's: what matters most as a table, all its fields folded."""
    columns = {"this run": asdict(profile), "the paper": asdict(PROFILES["paper"])}
    short = {}
    for name, fields in columns.items():
        fields["models"] = ", ".join(fields["models"])
        fields["quantization"] = fields["quantization"] or fields["dtype"] or "unquantised"
        short[name] = {row: text.format(**fields) for row, text in ROWS.items()}
    tables = (pd.DataFrame(table).to_html(border=0) for table in (short, columns))
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    folded = "{}<details><summary>all settings</summary>{}</details><p>{}</p>"
    return HTML(folded.format(*tables, versions))


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
