"""The claims at a glance: every verdict on one axis."""

from dataclasses import asdict
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from replication.figures.style import STYLE, WIDTH, colour, finished

SHADES = {"agrees": colour("agrees"), "differs": colour("differs"), "": colour("can't tell")}
FIRM = {"decided": 1.0, "points this way": 0.35, "can't tell": 1.0}  # opacity; others are words
COLUMNS = {"direction": "way", "confidence": "firmness"}  # of figure_claims.csv


def figure_claims(verdicts: list) -> Figure:
    """How far each statistic lies within its bound: a row a part of a claim, a mark a model.

    verdicts: a list of claims.bounds.Verdict. Right of the grey band a claim agrees with the
    paper, left of it it differs; within it the interval lies across the bound. Pale: more healing
    or another definition may change it. What cannot be tested here has a dash.
    """
    table = pd.DataFrame(map(_columns, verdicts)).rename(columns=COLUMNS)
    statements = table.groupby("claim", sort=False).statement.first()
    parts = list(statements.index)
    marks = table.assign(
        position=[verdict.position for verdict in verdicts],
        row=table.claim.map(parts.index),
        verdict=table.way.where(table.way != "", "can't tell"),
    )
    marks = marks[marks.firmness.isin(FIRM) & marks.position.notna()]
    far = 1.3 * marks.position[np.isfinite(marks.position)].abs().max()
    edge = max(10, 0 if np.isnan(far) else far)
    marks["position"] = marks.position.clip(-edge, edge)  # what is infinitely far is at the edge
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(WIDTH, 1.7 + 0.25 * len(parts)))
        axis.axvspan(-1, 1, color="0.88", lw=0)
        axis.axvline(0, color="0.6", lw=0.8)
        columns = {"x": "position", "y": "row", "hue": "verdict", "style": "model"}
        shades = SHADES | {"can't tell": SHADES[""]}
        for firmness, shown in marks.groupby("firmness"):
            sns.scatterplot(shown, **columns, palette=shades, alpha=FIRM[firmness], ax=axis)
        for row in set(range(len(parts))) - set(marks.row):
            axis.text(0, row, "– not testable here", ha="center", va="center", fontsize=7.5)
        axis.set_xscale("symlog", linthresh=1)
        axis.set(xlim=(-1.2 * edge, 1.2 * edge), ylim=(len(parts) - 0.5, -0.5), ylabel="")
        texts = [f"{part}  {fill(text, 70)}" for part, text in statements.items()]
        axis.set_yticks(range(len(parts)), texts, fontsize=7.5)
        label = "(value − bound) / half-width of the 95 % interval; pale: only points this way"
        axis.set_xlabel(f"← differs        agrees →\n{label}", fontsize=8)
        axis.legend().remove()
        return finished(figure, table, legend="")


def _columns(verdict) -> dict:
    """Return a row of figure_claims.csv."""
    return asdict(verdict) | {"verdict": verdict.verdict, "light": verdict.light}
