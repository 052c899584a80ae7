"""Verdicts as tables of a README: every one, and the 13 claims with lights."""

from collections.abc import Sequence

import pandas as pd

from lib.claims.bounds import LIGHTS, TABLE, Verdict

SENTENCES = pd.read_csv(TABLE.with_name("sentences.csv"), index_col="claim").sentence


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Every verdict as a row of a table."""
    lines = [
        "| | the paper says | measured, and when it holds | value (95 % interval) | verdict |",
        "|---|---|---|---|---|",
    ]
    for v in verdicts:
        value = " ".join(filter(None, [v.numbers, f"({v.where})" if v.where else ""]))
        reason = f": {v.why}" if v.why else ""
        cells = [v.claim, v.statement, v.criterion, value, f"{v.light} **{v.verdict}**{reason}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def lights(verdicts: Sequence[Verdict]) -> str:
    """The 13 claims as sentences, and a column of lights a model; below it what they mean."""
    models = list(dict.fromkeys(v.model for v in verdicts if v.model))
    lines = [
        f"| | the paper says | {' | '.join(models)} |",
        "|---|---" + "|---" * len(models) + "|",
    ]
    for claim, sentence in SENTENCES.items():
        cells = []
        for model in models:
            parts = [
                v for v in verdicts if v.model == model and v.claim.rstrip("abcde") == str(claim)
            ]
            cells.append(" ".join(f"{v.claim.lstrip('0123456789')}{v.light}" for v in parts))
        lines.append(f"| {claim} | {sentence} | {' | '.join(cells)} |")
    told = ", ".join(f"{sign} {name}" for name, sign in list(LIGHTS.items())[:4])
    legend = f"a, b, … are parts of a claim. ✓ agrees with the paper, ✗ differs; {told}."
    return "\n".join(lines) + f"\n\n{legend} An empty cell is not measured yet.\n"
