"""The claims at a glance: every verdict on one axis."""

from dataclasses import asdict
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from replication.figures.style import STYLE, WIDTH, colour, finished

SHADES = {"agrees": colour("agrees"), "differs": colour("differs"), "": colour("can't tell")}
DRAWN = ("decided", "points this way", "can't tell")  # the others are words
ROW = 0.25  # inches
MARKERS = "osD^vpP*Xdh8<>"  # of models, in their order
COLUMNS = {"direction": "way", "confidence": "firmness"}  # of figure_claims.csv


def figure_claims(verdicts: list) -> Figure:
    """How far each statistic lies within its bound: a row a part of a claim, a mark a model.

    verdicts: a list of claims.bounds.Verdict. Right of the grey band a claim agrees with the
    paper, left of it it differs; within it the interval lies across the bound. Hollow: more
    healing or another definition may change it. What cannot be tested here has a dash.
    """
    parts = list(dict.fromkeys(verdict.claim for verdict in verdicts))
    drawn = [v for v in verdicts if v.confidence in DRAWN and not np.isnan(v.position)]
    models = list(dict.fromkeys(verdict.model for verdict in drawn))
    most = 1.5 * max([10, *(abs(v.position) for v in drawn if np.isfinite(v.position))])
    height = ROW * len(parts) + 1.7
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": False}):
        figure, axis = plt.subplots(figsize=(WIDTH, height))
        figure.subplots_adjust(0.55, 1.2 / height, 0.99, 1 - 0.3 / height)
        axis.axvspan(-1, 1, color="0.88", lw=0)
        axis.axvline(0, color="0.6", lw=0.8)
        axis.set_xscale("symlog", linthresh=1)
        axis.set(xlim=(-most, most), ylim=(len(parts) - 0.5, -0.5))
        axis.set_xticks([-10, -1, 0, 1, 10], ["−10", "−1", "0", "1", "10"])
        axis.minorticks_off()
        statements = {verdict.claim: verdict.statement for verdict in verdicts}
        texts = [f"{part}  {fill(statements[part], 70)}" for part in parts]
        axis.set_yticks(range(len(parts)), texts, fontsize=7.5)
        axis.tick_params(axis="y", length=0)
        for row, part in enumerate(parts):
            _row(axis, row, [v for v in drawn if v.claim == part], models, most)
            if row and part.rstrip("abcde") != parts[row - 1].rstrip("abcde"):
                axis.axhline(row - 0.5, color="0.8", lw=0.6)
        label = "(value − bound) / half-width of the 95 % interval"
        axis.set_xlabel(f"← differs        agrees →\n{label}", fontsize=8)
        axis.spines["left"].set_visible(False)
        handles = _entries(drawn, models)
        columns = {"ncols": 3, "loc": "lower left", "fontsize": 8, "frameon": False}
        figure.legend(handles=handles, **columns)
        table = pd.DataFrame(map(_columns, verdicts))
        return finished(figure, table)


def _entries(drawn: list, models: list[str]) -> list[Line2D]:
    """The legend: what is drawn of directions, of models, and of hollow marks."""
    ways = {"agrees": "agrees", "differs": "differs", "": "can't tell"}
    there = {verdict.direction for verdict in drawn}
    looks = [(text, SHADES[way], "s", SHADES[way]) for way, text in ways.items() if way in there]
    if any(verdict.confidence == "points this way" for verdict in drawn):
        looks.append(("hollow: only points this way", "0.3", "o", "white"))
    looks += [(model, "0.3", MARKERS[i % len(MARKERS)], "0.3") for i, model in enumerate(models)]
    return [
        Line2D([], [], ls="", label=text, color=shade, marker=marker, mfc=inside, ms=5)
        for text, shade, marker, inside in looks
    ]


def _columns(verdict) -> dict:
    """A row of figure_claims.csv."""
    row = asdict(verdict) | {"verdict": verdict.verdict, "light": verdict.light}
    return {COLUMNS.get(name, name): value for name, value in row.items()}


def _row(axis, row: int, verdicts: list, models: list[str], most: float) -> None:
    """A mark a model; at the edge what is infinitely far; a dash if there is none."""
    if not verdicts:
        text = "– not testable here"
        axis.text(0, row, text, ha="center", va="center", fontsize=7.5, color="0.35")
    for verdict in verdicts:
        shade, number = SHADES[verdict.direction], models.index(verdict.model)
        marker = MARKERS[number % len(MARKERS)]
        inside = shade if verdict.confidence == "decided" else "white"
        place = float(np.clip(verdict.position, -0.85 * most, 0.85 * most))
        height = row + 0.16 * (number - (len(models) - 1) / 2)
        axis.plot(place, height, marker, color=shade, mfc=inside, ms=5, mew=1.2)
