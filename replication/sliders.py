"""Pictures that sliders change, over what is measured: `slide(picture, *tables, n=range(1, 9))`.

Each picture is a function of its tables and of the sliders' values, and computes no score. Where
there is no kernel (a web page, GitHub), the first picture stands.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from lib.blocks import BlockDistances
from lib.models import registry
from replication.analysis import islands
from replication.claims.bounds import CRITERIA, Criterion, Verdict
from replication.figures import heatmaps
from replication.figures.style import STYLE, WIDTH, colour
from replication.figures.verdicts import SHADES

BOUNDS = {"lower": "least", "upper": "most"}  # of a claim
TENTHS = range(-10, 11)  # of the axis, by which a bound moves
THRESHOLDS = [hundredths / 100 for hundredths in range(1, 20)]


class Sliders:
    """A slider (a menu, for words) for each of `choices`, and `picture` of their values below."""

    def __init__(self, picture: Callable[..., Figure], choices: dict[str, Sequence]):
        self.picture = picture
        self.image = ipywidgets.Image(format="png")
        self.controls = {}
        for name, values in choices.items():
            values = list(values)
            words = isinstance(values[0], str)
            kind = ipywidgets.Dropdown if words else ipywidgets.SelectionSlider
            start = values[0 if words else len(values) // 2]
            control = kind(options=values, value=start, description=name)
            control.observe(self.draw, "value")
            self.controls[name] = control
        self.draw()

    def draw(self, _change=None) -> None:
        """Show the picture of the values that are chosen."""
        values = {name: control.value for name, control in self.controls.items()}
        png = io.BytesIO()
        self.picture(**values).savefig(png, format="png")
        self.image.value = png.getvalue()

    def _repr_mimebundle_(self, **kwargs) -> dict:
        box = ipywidgets.VBox([*self.controls.values(), self.image])
        return box._repr_mimebundle_(**kwargs) | {"image/png": bytes(self.image.value)}


def slide(picture: Callable[..., Figure], *tables, **choices: Sequence) -> "Sliders | Markdown":
    """`picture(*tables, **values)` with a slider for each of `choices`.

    It starts at the middle of numbers and at the first of words. Where there is nothing to choose
    from, as in the job of one depth, it is a sentence that says so.
    """
    for name, values in choices.items():
        if not len(values):
            return Markdown(f"Nothing of this was measured here: no {name} to choose.")
    return Sliders(lambda **values: picture(*tables, **values), choices)


def _axes(height: float, *shape: int, **options):
    """A figure that no notebook shows by itself, and its axes."""
    with plt.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        return figure, figure.subplots(*shape, **options)


# ---- one picture a notebook -----------------------------------------------------------------


def one_curve(distances: BlockDistances, n: int) -> Figure:
    """Notebook 01: figure 1c with the curve of one n, and above it the layers that it drops."""
    figure, (strip, axis) = _axes(4, 2, 1, sharex=True, height_ratios=[1, 12])
    layers, start = distances.num_layers, distances.best_start(n)
    for size in range(1, layers):
        axis.plot(distances.row(size), color="0.9", lw=0.7)
    least = distances.row(n)[start]
    axis.plot(distances.row(n), color=colour("similarity"), marker=".")
    axis.plot(start, least, "ko", label="$l^*(n)$")
    axis.set_xlabel("block start $l$ (layer)")
    axis.set_ylabel("angular distance $d(l, l+n)$")
    axis.legend(loc="upper right")
    shades = [colour("kept")] * layers
    shades[start : start + n] = [colour("dropped")] * n
    strip.bar(range(layers), 1, color=shades)
    strip.axis("off")
    turn = f"d = {least:.3f} of a half turn, {180 * least:.0f}°"
    strip.set_title(f"n = {n}: layers {start} to {start + n - 1} of {layers} (dark); {turn}")
    return figure


def one_question(cuts: pd.DataFrame, question: dict, cut: str, n: int) -> Figure:
    """Notebook 02: the log-likelihood of each choice of a question after dropping n layers.

    cuts: the scores of one model on the task whose first question it is, all with their choices.
    """
    figure, axis = _axes(2.6)
    chosen = cuts[(cuts.block_size == n) & cuts.strategy.isin([cut, "none"])]
    lowest = min(row[0].min() for row in cuts.choices)
    axis.set_xlim(1.05 * lowest, 0)
    axis.set_xlabel("log-likelihood (nats): nearer to 0 is likelier")
    if chosen.empty:
        figure.suptitle(f"{cut}, n = {n}: not measured")
        return figure
    row = chosen.iloc[0]
    likelihoods = row.choices[0]
    texts = list(question["choices"])
    given = int(likelihoods.argmax())
    right = question["answer"]
    texts[right] = f"{texts[right]} (right)"
    shades = ["0.75"] * len(texts)
    shades[given] = colour("given")
    axis.barh(texts, likelihoods, color=shades)
    axis.invert_yaxis()
    block = f"layers {row.block_start} to {row.block_start + n - 1}" if n else "no layer"
    verdict = "right" if given == right else "wrong"
    figure.suptitle(f"{cut}, n = {n}: {block} dropped; the answer (gold) is {verdict}")
    return figure


def one_dose(doses: pd.DataFrame, n: int, steps: int) -> Figure:
    """Notebook 03: what so many steps of healing bring back, after dropping n layers by similarity.

    doses: the scores of beyond/dose.py; of several models the first is shown.
    """
    figure, axes = _axes(3, 1, 2)
    doses = doses[doses.value.notna() & (doses.model == doses.model.iloc[0])]
    for axis, task, label in zip(axes, ("c4", "arc_easy"), ("C4 loss", "ARC-Easy"), strict=True):
        of_task = doses[doses.task == task]
        unpruned = of_task[of_task.treatment == "unpruned"].value
        cut = of_task[(of_task.block_size == n) & (of_task.strategy == "similarity")]
        line = cut[cut.treatment == "healed"].sort_values("steps")
        axis.plot(line.steps, line.value, color=colour("similarity"), marker=".")
        axis.set_xscale("log")
        axis.set_xlabel("steps of healing")
        axis.set_ylabel(label)
        axis.set_xticks(line.steps, map(str, line.steps))
        axis.minorticks_off()
        values = {
            "whole": unpruned,
            "cut": cut[cut.treatment == "unhealed"].value,
            "healed": line[line.steps == steps].value,
        }
        words = [f"{name} {value.iloc[0]:.2f}" for name, value in values.items() if len(value)]
        axis.set_title(", ".join(words), fontsize=9)
        for height in values["whole"][:1]:
            axis.axhline(height, color="black", ls="--", lw=1)
        for height in values["cut"][:1]:
            axis.axhline(height, color="black", ls=":", lw=1)
        axis.axvline(steps, color=colour("chosen"), lw=1)
    return figure


def with_interval(verdicts: Sequence[Verdict]) -> list[str]:
    """The claims of which some model has a finite interval."""
    return list(dict.fromkeys(v.claim for v in verdicts if np.isfinite([v.low, v.high]).all()))


def one_bound(verdicts: Sequence[Verdict], claim: str, bound: str, moved: int) -> Figure:
    """Notebook 13: the intervals that a claim is judged by, and a bound of it that moves.

    bound: one of BOUNDS; of a claim with one bound, that one. moved: TENTHS of what the axis must
    show. Whether a claim can be tested, and how firm its verdict is, does not depend on the bound.
    """
    figure, axis = _axes(2.2)
    judged = [v for v in verdicts if v.claim == claim and np.isfinite([v.low, v.high]).all()]
    criterion = CRITERIA[claim]
    ends = [end for v in judged for end in (v.low, v.high)]
    ends += [end for end in (criterion.least, criterion.most) if np.isfinite(end)]
    width = (max(ends) - min(ends)) or 1.0
    changed = _moved(criterion, BOUNDS[bound], moved * width / 10)
    turned = []
    for row, verdict in enumerate(judged):
        interval = verdict.statistic, verdict.low, verdict.high
        direction = changed.direction(interval)
        axis.plot([verdict.low, verdict.high], [row, row], color=SHADES[direction], lw=3)
        axis.plot(verdict.statistic, row, "o", color=SHADES[direction])
        if direction != criterion.direction(interval):
            turned.append(f"{verdict.model}: {direction or 'cannot tell'}")
    for end in filter(np.isfinite, (criterion.least, criterion.most)):
        axis.axvline(end, color="black", ls=":", lw=1)
    for end in filter(np.isfinite, (changed.least, changed.most)):
        axis.axvline(end, color="black", ls="-", lw=1)
    axis.set_xlim(min(ends) - width, max(ends) + width)
    axis.set_ylim(len(judged) - 0.5, -0.5)
    axis.set_yticks(range(len(judged)), [verdict.model for verdict in judged])
    axis.set_xlabel("green: agrees with the paper, brown: differs, grey: cannot tell")
    what_turns = "; ".join(turned) or "no verdict turns"
    axis.set_title(f"{claim}. {changed.text}\n{what_turns}", fontsize=8, loc="left", wrap=True)
    return figure


def _moved(criterion: Criterion, name: str, by: float) -> Criterion:
    """The criterion with the bound `name` moved, or the other one if it does not have it."""
    if not np.isfinite(getattr(criterion, name)):
        (name,) = {*BOUNDS.values()} - {name}
    return replace(criterion, **{name: round(getattr(criterion, name) + by, 3)})


def one_memory(names: Sequence[str], outside: int, dropped: int) -> Figure:
    """Notebook 09: the memory that is left, of models and of one with `outside` % of its weights
    outside the layers, where `dropped` % of the layers are."""
    from lib.models import sizes

    names = [name for name in names if sizes.skeleton(name)]
    figure, axis = _axes(1.4 + 0.22 * len(names))
    left = {}
    for name in names:
        of = sizes.parameters(sizes.skeleton(name))
        kept = len(of.layers) - round(len(of.layers) * dropped / 100)
        left[registry.label(name)] = of.size(kept) / of.size()
    yours = outside / 100 + (1 - outside / 100) * (1 - dropped / 100)
    shades = [*map(colour, names), "0.4"]
    axis.barh([*left, f"{outside} % outside"], [*left.values(), yours], color=shades)
    axis.axvline(1 - dropped / 100, color="grey", label="layers left")
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel("share of the 16-bit weights that is left")
    axis.set_title(f"{dropped} % of the layers dropped; {outside} % outside: {yours:.2f} left")
    axis.legend()
    return figure


def one_threshold(maps: dict[str, BlockDistances], model: str, threshold: float) -> Figure:
    """Notebook 08: the regions of a map at a threshold, and the number of islands at all others."""
    figure, (axis, counts) = _axes(3.4, 1, 2)
    matrix = maps[model].matrix
    rows = islands.rescaled(islands.by_size(matrix))
    sizes, starts = np.arange(1, len(rows) + 1), np.arange(len(matrix) - 1)
    axis.pcolormesh(starts, sizes, rows, cmap="viridis_r", vmin=0, vmax=1)
    axis.set_title(model, loc="left", fontsize=9)
    heatmaps.draw_regions(axis, islands.regions(matrix, threshold))
    axis.set_xlabel("block start $l$ (layer)")
    axis.set_ylabel("block size $n$ (layers)")
    heights = {}
    for other in THRESHOLDS:
        labels = islands.regions(matrix, other)
        heights[other] = int(labels.max()) - islands.BAND
    counts.step(heights.keys(), heights.values(), where="mid", color="black")
    counts.axvline(threshold, color=colour("chosen"))
    counts.set_xlabel("threshold")
    counts.set_ylabel("islands")
    counts.set_ylim(-0.3, max(heights.values()) + 1)
    return figure
