"""Verdicts as tables of a README: every one, and the 13 claims with lights."""

from collections.abc import Sequence

import pandas as pd

from replication import figures
from replication.claims.bounds import LIGHTS, Verdict


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
    judged = pd.DataFrame({"claim": v.claim, "model": v.model, "light": v.light} for v in verdicts)
    table = figures.lights(judged)
    lines = [f"| | {' | '.join(table)} |", "|---" * (1 + len(table.columns)) + "|"]
    lines += [f"| {' | '.join(map(str, cells))} |" for cells in table.itertuples()]
    told = ", ".join(f"{sign} {name}" for name, sign in list(LIGHTS.items())[:4])
    legend = f"a, b, … are parts of a claim. ✓ agrees with the paper, ✗ differs; {told}."
    return "\n".join(lines) + f"\n\n{legend} Empty: not measured, or not about this model.\n"
