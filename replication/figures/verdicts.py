"""The claims at a glance: every verdict on one axis."""

from dataclasses import asdict
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from replication.figures.style import STYLE, save_figure
from replication.profiles import Profile

SHADES = {"agrees": "tab:blue", "differs": "tab:orange", "": "grey"}
FARTHEST = 5  # reaches of an interval: what lies beyond is drawn there, as an arrow
ROW = 0.27  # inches
COLUMNS = {"direction": "way", "confidence": "firmness"}  # of figure_claims.csv
ENTRIES = {  # of the legend: colour, marker, and colour inside it
    "agrees": ("tab:blue", "o", "tab:blue"),
    "differs": ("tab:orange", "o", "tab:orange"),
    "hollow: more healing or another definition may turn it": ("0.3", "o", "white"),
    "grey band: can't tell": ("0.88", "s", "0.88"),
}


def figure_claims(verdicts: list, profile: Profile) -> Figure:
    """How far each statistic lies within its bound, in reaches of its interval towards it.

    verdicts: a list of claims.bounds.Verdict. Right of the grey band a claim agrees with the
    paper, left of it it differs; within it the interval lies across the bound.
    """
    drawn = [verdict for verdict in verdicts if not np.isnan(verdict.statistic)]
    rows = max(len(drawn), 1)
    height = ROW * rows + 1.35
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        figure, axis = plt.subplots(figsize=(11, height))
        figure.subplots_adjust(0.44, 0.85 / height, 0.70, 1 - 0.45 / height)
        axis.axvspan(-1, 1, color="0.88", lw=0)
        axis.axvline(0, color="0.6", lw=0.8)
        for row, verdict in enumerate(drawn):
            _draw(axis, row, verdict)
        claims = [verdict.claim.rstrip("abcde") for verdict in drawn]
        for row, (above, below) in enumerate(pairwise(claims), start=1):
            if above != below:
                axis.axhline(row - 0.5, -1.6, 2.1, color="0.8", lw=0.6, clip_on=False)
        most = FARTHEST + 0.6
        axis.set(xlim=(-most, most), ylim=(rows - 0.5, -0.5), yticks=[])
        axis.set_xlabel("within the bound, in reaches of the 95 % interval")
        axis.set_title("differs          agrees", fontsize=9)
        axis.spines["left"].set_visible(False)
        handles = [
            Line2D([], [], ls="", label=text, color=shade, marker=marker, mfc=inside)
            for text, (shade, marker, inside) in ENTRIES.items()
        ]
        figure.legend(handles=handles, loc="lower left", ncols=4, fontsize=8, frameon=False)
        table = pd.DataFrame(map(_columns, verdicts))
        return save_figure(figure, table, "figure_claims", profile)


def _columns(verdict) -> dict:
    """A row of figure_claims.csv."""
    row = asdict(verdict) | {"verdict": verdict.verdict, "light": verdict.light}
    return {COLUMNS.get(name, name): value for name, value in row.items()}


def _draw(axis, row: int, verdict) -> None:
    """A verdict as a point of a row, between its statement and its numbers."""
    shade = SHADES[verdict.direction]
    position = verdict.position
    marker = ">" if position > FARTHEST else "<" if position < -FARTHEST else "o"
    inside = shade if verdict.confidence == "decided" else "white"
    at = float(np.clip(np.nan_to_num(position), -FARTHEST, FARTHEST))
    axis.plot(at, row, marker, color=shade, mfc=inside, ms=6, mew=1.4)
    numbers = filter(None, [verdict.numbers, verdict.model, verdict.task])
    _beside(axis, -0.03, row, f"{verdict.claim}  {verdict.statement}", "right", "black")
    _beside(axis, 1.03, row, " · ".join(numbers), "left", "0.25")


def _beside(axis, x: float, row: int, text: str, side: str, shade: str) -> None:
    """A text beside the axis, at the height of a row."""
    axis.annotate(
        text,
        (x, row),
        xycoords=("axes fraction", "data"),
        ha=side,
        va="center",
        color=shade,
        fontsize=8,
        annotation_clip=False,
    )
