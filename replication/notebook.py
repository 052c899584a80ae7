"""What a notebook shows of itself: how much it measures, and the code of a function."""

import inspect
from collections.abc import Callable
from dataclasses import asdict
from html import escape

import pandas as pd
from IPython.display import HTML

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
    both = {"this run": asdict(profile), "the paper": asdict(PROFILES["paper"])}
    for told in both.values():
        weights = told["quantization"] or told["dtype"] or "unquantised"
        told |= {"models": ", ".join(told["models"]), "quantization": weights}
    short = {who: {row: text.format(**t) for row, text in ROWS.items()} for who, t in both.items()}
    tables = (pd.DataFrame(told).to_html(border=0) for told in (short, both))
    return HTML("{}<details><summary>all settings</summary>{}</details>".format(*tables))


def source(*functions: Callable) -> HTML:
    """The code of functions, each folded under its name."""
    folded = "<details><summary><code>{}.{}</code></summary><pre>{}</pre></details>".format
    code = (folded(f.__module__, f.__qualname__, escape(inspect.getsource(f))) for f in functions)
    return HTML("".join(code))
