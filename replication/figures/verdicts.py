"""The claims at a glance: every verdict on one axis."""

from dataclasses import asdict
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from replication.figures.style import STYLE, WIDTH, colour, finished

SHADES = {verdict: colour(verdict) for verdict in ("agrees", "differs", "can't tell")}
SHADES[""] = SHADES["can't tell"]
FIRM = {"decided": 1.0, "points this way": 0.35, "can't tell": 1.0}  # opacity; others are words
COLUMNS = {"direction": "way", "confidence": "firmness"}  # of figure_claims.csv


def figure_claims(verdicts: list) -> Figure:
    """How far each statistic lies within its bound: a row a part of a claim, a mark a model.

    verdicts: a list of claims.bounds.Verdict. Right of the grey band a claim agrees with the
    paper, left of it it differs; within it the interval lies across the bound. Pale: more healing
    or another definition may change it. What cannot be tested here has a dash.
    """
    rows = [asdict(v) | {"verdict": v.verdict, "light": v.light} for v in verdicts]
    table = pd.DataFrame(rows).rename(columns=COLUMNS)
    statements = table.groupby("claim", sort=False).statement.first()
    count = len(statements)
    marks = _marks(table, verdicts)
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(WIDTH, 1.7 + 0.25 * count))
        axis.axvspan(-1, 1, color="0.88", lw=0)
        axis.axvline(0, color="0.6", lw=0.8)
        if len(marks):
            columns = {"x": "position", "y": "row", "hue": "verdict", "style": "model"}
            sns.scatterplot(marks, **columns, palette=SHADES, s=45, clip_on=False, ax=axis)
            opacities = marks.firmness.map(FIRM).to_numpy()
            axis.collections[-1].set_alpha(opacities)
            handles, labels = axis.get_legend_handles_labels()
            models = labels.index("model")  # they get a column of their own
            for _ in range(len(labels) - 2 * models):
                handles.insert(models, plt.Line2D([], [], ls=""))
                labels.insert(models, "")
            below = {"loc": "upper right", "bbox_to_anchor": (-0.1, 0)}
            axis.legend(handles, labels, ncols=2, frameon=False, **below)
        for row in set(range(count)) - set(marks.row):
            axis.text(0, row, "– not testable here", ha="center", va="center", fontsize=7.5)
        axis.set_xscale("symlog", linthresh=1)
        if len(marks):
            beyond = 1.5 * marks.position.abs().max()
            axis.set_xlim(-beyond, beyond)
        axis.set_ylim(count - 0.5, -0.5)
        texts = [f"{part}  {fill(text, 70)}" for part, text in statements.items()]
        axis.set_yticks(range(count), texts, fontsize=7.5)
        label = "(value − bound) / half-width of\nthe 95 % interval; pale: points this way"
        axis.set_xlabel(f"← differs        agrees →\n{label}", fontsize=8)
        axis.set_ylabel("")
        return finished(figure, table)


def _marks(table: pd.DataFrame, verdicts: list) -> pd.DataFrame:
    """Return the rows that have a mark, with their places; infinitely far is at the edge."""
    parts = list(table.claim.unique())
    again = table.duplicated(["claim", "model"])  # by content, after MMLU
    places = table.assign(
        position=[verdict.position for verdict in verdicts],
        row=table.claim.map(parts.index),
        verdict=table.way.replace("", "can't tell"),
        model=table.model.where(~again, table.model + " (ARC-Easy)"),
    )
    marks = places[places.firmness.isin(FIRM) & places.position.notna()]
    distances = marks.position.abs()
    edge = 1.3 * distances[np.isfinite(distances)].max()
    return marks.assign(position=marks.position.clip(-edge, edge))
