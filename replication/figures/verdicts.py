"""The claims at a glance: every verdict as two signs."""

from collections.abc import Sequence
from dataclasses import asdict
from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from replication.figures.style import (
    RECORD_ABOVE,
    STYLE,
    WIDTH,
    colour,
    finished,
    is_recorded,
)
from replication.tables import RECORD_PREFIX

SHADES = {"agrees": colour("agrees"), "differs": colour("differs"), "": colour("can't tell")}
COLUMNS = {"direction": "way", "confidence": "firmness"}  # of figure_claims.csv
SIGNS = (
    "✓ agrees   ✗ differs   ● decided   ◐ points this way\n"
    "◇ depends on the definition   ○ can't tell   – not testable here"
)


def figure_claims(verdicts: list, recorded: Sequence = ()) -> Figure:
    """What holds: a row a part of a claim, a column a model (and, of one that was also asked by
    content, another), the signs of a verdict where it was judged; of several side by side.

    verdicts: a list of claims.bounds.Verdict; recorded: those of the recorded run, beside them.
    """
    rows = [asdict(verdict) | {"light": verdict.light} for verdict in verdicts]
    for verdict in recorded:
        if verdict.model:
            name = RECORD_PREFIX + verdict.model
            rows.append(asdict(verdict) | {"light": verdict.light, "model": name})
    table = pd.DataFrame(rows).rename(columns=COLUMNS)
    statements = table.groupby("claim", sort=False).statement.first()
    judged = _by_column(table)
    columns, parts = list(judged.column.unique()), list(statements.index)
    own = sum(not is_recorded(name) for name in columns)
    with plt.rc_context(STYLE):
        width = max(WIDTH, 3.6 + 0.95 * len(columns))
        height = 1.2 + 0.25 * len(parts)
        figure, axis = plt.subplots(figsize=(width, height))
        for row in judged.itertuples():
            x = columns.index(row.column) + 0.35 * row.beside
            y = parts.index(row.claim)
            axis.text(x, y, row.light, color=SHADES[row.way], ha="center", va="center")
        note = {"color": SHADES[""], "ha": "left", "va": "center", "fontsize": 7.5}
        for part in set(parts) - set(judged.claim):
            axis.text(-0.4, parts.index(part), "not judged of any model", **note)
        if 0 < own < len(columns):
            axis.axvline(own - 0.5, color="0.7", lw=1)
        texts = [f"{part}  {fill(text, 70)}" for part, text in statements.items()]
        axis.set_yticks(range(len(parts)), texts, fontsize=7.5)
        heads = []
        for name in columns:
            head = fill(name.removeprefix(RECORD_PREFIX), 15)
            heads.append(RECORD_ABOVE + head if is_recorded(name) else head)
        axis.set_xticks(range(len(columns)), heads, fontsize=7.5)
        axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
        axis.spines[["top", "bottom"]].set_visible(False)
        axis.set_xlim(-0.5, max(len(columns), 1) - 0.5)
        axis.set_ylim(len(parts) - 0.5, -0.5)
        axis.set_xlabel(SIGNS, fontsize=8)
        return finished(figure, table)


def _by_column(table: pd.DataFrame) -> pd.DataFrame:
    """Return the verdicts of models with the column of each, and how many stand before it there.

    Of a model that MMLU has judged, what ARC-Easy says has a column of its own.
    """
    is_by_content = table.duplicated(["claim", "model"]) & (table.task == "arc_easy")
    columns = table.model.mask(is_by_content, table.model + " (ARC-Easy)")
    judged = table.assign(column=columns)[table.model != ""]
    return judged.assign(beside=judged.groupby(["claim", "column"]).cumcount())
