"""The claims at a glance: every verdict on one axis."""

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from replication.figures.style import STYLE, save_figure
from replication.profiles import Profile

WAYS = {"agrees": "tab:blue", "differs": "tab:orange", "": "grey"}
FARTHEST = 5  # reaches of an interval: what lies beyond is drawn there, as an arrow
ROW = 0.27  # inches
COLUMNS = {"direction": "way", "confidence": "firmness"}  # of figure_claims.csv
SENTENCES = Path(__file__).parents[1] / "claims" / "sentences.csv"


def figure_claims(verdicts: list, profile: Profile) -> Figure:
    """How far each statistic lies within its bound, in reaches of its interval towards it.

    verdicts: a list of claims.bounds.Verdict. Right of the grey band a claim agrees with the
    paper, left of it it differs; within it the interval lies across the bound.
    """
    shown = [v for v in verdicts if not np.isnan(v.statistic)]
    rows = max(len(shown), 1)
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        height = ROW * rows + 1.35
        figure, axis = plt.subplots(figsize=(11, height))
        figure.subplots_adjust(0.44, 0.85 / height, 0.70, 1 - 0.45 / height)
        axis.axvspan(-1, 1, color="0.88", lw=0)
        axis.axvline(0, color="0.6", lw=0.8)
        for row, verdict in enumerate(shown):
            _row(axis, row, verdict)
        claims = [v.claim.rstrip("abcde") for v in shown]
        for row in (i for i, pair in enumerate(pairwise(claims), 1) if pair[0] != pair[1]):
            axis.axhline(row - 0.5, -1.6, 2.1, color="0.8", lw=0.6, clip_on=False)
        most = FARTHEST + 0.6
        axis.set(xlim=(-most, most), ylim=(rows - 0.5, -0.5), yticks=[])
        axis.set_xlabel("within the bound, in reaches of the 95 % interval")
        axis.set_title("differs          agrees", fontsize=9)
        axis.spines["left"].set_visible(False)
        figure.legend(handles=_marks(), loc="lower left", ncols=4, fontsize=8, frameon=False)
        table = pd.DataFrame(map(_row_of, verdicts))
        return save_figure(figure, table, "figure_claims", profile)


def lights(judged: pd.DataFrame) -> pd.DataFrame:
    """The claims as sentences, a row each, and the lights of their parts, a column a model.

    judged: a row a verdict, with the columns claim, model (empty: not run) and light.
    """
    number = judged.claim.str.rstrip("abcde").astype(int)
    parts = judged.claim.str.lstrip("0123456789") + judged.light
    of = [number, judged.model.replace("", None)]
    said = pd.read_csv(SENTENCES, index_col="claim").rename(columns={"sentence": "the paper says"})
    return said.join(parts.groupby(of, sort=False).agg(" ".join).unstack()).fillna("")


def _row_of(verdict) -> dict:
    """A row of figure_claims.csv."""
    row = asdict(verdict) | {"verdict": verdict.verdict, "light": verdict.light}
    return {COLUMNS.get(name, name): value for name, value in row.items()}


def _row(axis, row: int, v) -> None:
    shade, at = WAYS[v.direction], float(np.clip(np.nan_to_num(v.position), -FARTHEST, FARTHEST))
    arrow = ">" if v.position > FARTHEST else "<" if v.position < -FARTHEST else "o"
    filled = v.confidence == "decided"
    axis.plot(at, row, arrow, color=shade, mfc=shade if filled else "white", ms=6, mew=1.4)
    across = ("axes fraction", "data")
    style = {"va": "center", "fontsize": 8, "annotation_clip": False}
    axis.annotate(f"{v.claim}  {v.statement}", (-0.03, row), xycoords=across, ha="right", **style)
    told = " · ".join(filter(None, [v.numbers, v.model, v.task]))
    axis.annotate(told, (1.03, row), xycoords=across, color="0.25", **style)


def _marks() -> list[Line2D]:
    """The entries of the legend."""
    looks = {way: {"color": WAYS[way]} for way in ("agrees", "differs")}
    hollow = {"color": "0.3", "mfc": "white"}
    looks["hollow: more healing or another definition may turn it"] = hollow
    looks["grey band: can't tell"] = {"color": "0.88", "marker": "s"}
    return [Line2D([], [], ls="", label=n, **{"marker": "o"} | look) for n, look in looks.items()]
