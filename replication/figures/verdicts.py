"""The claims at a glance: every verdict as two signs."""

from dataclasses import asdict
from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from replication.figures.style import STYLE, WIDTH, colour, finished

SHADES = {"agrees": colour("agrees"), "differs": colour("differs"), "": colour("can't tell")}
COLUMNS = {"direction": "way", "confidence": "firmness"}  # of figure_claims.csv
SIGNS = (
    "✓ agrees   ✗ differs   ● decided   ◐ points this way\n"
    "◇ depends on the definition   ○ can't tell   – not testable here"
)


def figure_claims(verdicts: list) -> Figure:
    """What holds: a row a part of a claim, a column a model (and, of one that was also asked by
    content, another), the signs of a verdict where it was judged; of several side by side.

    verdicts: a list of claims.bounds.Verdict.
    """
    rows = [asdict(v) | {"light": v.light} for v in verdicts]
    table = pd.DataFrame(rows).rename(columns=COLUMNS)
    statements = table.groupby("claim", sort=False).statement.first()
    by_content = table.duplicated(["claim", "model"]) & (table.task == "arc_easy")  # after MMLU
    judged = table.assign(column=table.model.mask(by_content, table.model + " (ARC-Easy)"))
    judged = judged[judged.model != ""]
    columns, parts = list(judged.column.unique()), list(statements.index)
    judged = judged.assign(beside=0.35 * judged.groupby(["claim", "column"]).cumcount())
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(WIDTH, 1.2 + 0.25 * len(parts)))
        for row in judged.itertuples():
            place = columns.index(row.column) + row.beside, parts.index(row.claim)
            axis.text(*place, row.light, color=SHADES[row.way], ha="center", va="center")
        texts = [f"{part}  {fill(text, 70)}" for part, text in statements.items()]
        axis.set_yticks(range(len(parts)), texts, fontsize=7.5)
        axis.set_xticks(range(len(columns)), [fill(name, 14) for name in columns], fontsize=7.5)
        axis.set_xlim(-0.5, max(len(columns), 1) - 0.5)
        axis.set_ylim(len(parts) - 0.5, -0.5)
        axis.set_xlabel(SIGNS, fontsize=8)
        return finished(figure, table)
