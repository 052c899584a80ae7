"""How every figure looks and is stored: one style, one colour a meaning, a PNG next to its CSV.

colours.csv has every colour but the neutral ones: black is the unpruned model, greys are references
(chance, the floor) and what an axis shows behind its data.
"""

import io
import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from scipy.optimize import isotonic_regression

from lib import storage
from lib.models import registry
from replication import paths
from replication.analysis import curves
from replication.profiles import Profile

SHEET = Path(__file__).with_name("style.mplstyle")
STYLE = matplotlib.rc_params_from_file(SHEET, use_default_template=False)
TABLE = Path(__file__).with_name("colours.csv")
COLOURS = {row["name"]: row["colour"] for row in storage.rows(TABLE)}
PALETTE = [  # of models: "colorblind" of seaborn, but indigo and black for two that are pale
    *("#0173B2", "#DE8F05", "#029E73", "#D55E00", "#CC78BC"),
    *("#CA9161", "indigo", "#949494", "black", "#56B4E9"),
]
UNSHOWN = [
    "examples",
    "weights",
    "choices",
    "answers",
    "losses",
    "took",
    "request",
    "environment",
]  # too
# long, or another each time
WIDTH = 7.3  # inches: as wide as a web page shows a picture, so that no text is scaled down
AT_LEAST = (0.2, 0.6)  # what every axis of accuracies shows, so that noise looks like noise
NORMAL = 1.96  # standard errors to either side: a 95 % interval
FEW = 4_000  # colours of lines and text, with their soft edges; a map has more


def colour(name: str) -> str:
    """The colour of a model, cut, question form, … in every figure; of a model without a row by the
    letters of its name."""
    by_letters = PALETTE[(7 + sum(map(ord, name))) % len(PALETTE)]
    return COLOURS.get(name, by_letters)


def legend_below(figure: Figure, handles: dict | None = None, title: str | None = None) -> None:
    """One legend a figure, below it: `handles` by their texts, and all that the axes label."""
    handles = dict(handles or {})
    for axis in figure.axes:
        labelled, texts = axis.get_legend_handles_labels()
        handles |= zip(texts, labelled, strict=True)
    longest = max(map(len, handles), default=0)
    columns = int(figure.get_figwidth() / (0.7 + 0.055 * longest))
    figure.legend(
        handles.values(),
        handles.keys(),
        title=title,
        title_fontsize=8,
        loc="outside lower center",
        ncols=max(1, min(columns, len(handles))),
    )


def label_directly(axis, ends: list[tuple], size: float = 8) -> None:
    """Write a text right of the axis for each end of a line (x, y, text, colour), all apart.

    Limits and scales must be final. A thin line leads from the end to its text.
    """
    axis.figure.canvas.draw()  # for the height of the axis
    least = 1.3 * size * axis.figure.dpi / 72 / axis.get_window_extent().height
    to_axis = axis.transData + axis.transAxes.inverted()
    labels = [(to_axis.transform((x, y))[1], (x, y), text, shade) for x, y, text, shade in ends]
    labels.sort(key=lambda label: label[0])
    heights = spread([label[0] for label in labels], least)
    for (_, point, text, shade), height in zip(labels, heights, strict=True):
        axis.annotate(
            text,
            point,
            (1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=size,
            color=shade,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "0.8", "lw": 0.6, "shrinkB": 3},
            zorder=2,
        )


def spread(heights: list[float], least: float) -> list[float]:
    """Return rising heights, moved as little as it takes to be at least `least` apart."""
    steps = least * np.arange(len(heights))
    return list(isotonic_regression(np.array(heights) - steps).x + steps)


def finding(axis, text: str, point: tuple[float, float], away: tuple[float, float]) -> None:
    """Write what a figure shows, with an arrow to a point (in data), when all data are drawn.

    away: from the point to the text, in printer's points, into the free part of the axis: to the
    left instead of the right where the point is in the right half.
    """
    axis.autoscale_view()
    across = (axis.transData + axis.transAxes.inverted()).transform(point)[0]
    side = 1 if across < 0.5 else -1
    axis.annotate(
        text,
        point,
        (side * away[0], away[1]),
        textcoords="offset points",
        ha="left" if side > 0 else "right",
        va="center",
        fontsize=8.5,
        weight="bold",
        arrowprops={"arrowstyle": "->", "lw": 1, "shrinkB": 4},
        bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1},
        zorder=5,
    )


def level(axes: list, shaded: bool) -> None:
    """Give all axes the range of those with numbers; shaded: where the paper's models fall."""
    lows, highs = zip(AT_LEAST, *(axis.get_ylim() for axis in axes), strict=True)
    published = json.loads((paths.DATA / "published.json").read_text(encoding="utf-8"))
    ranges = [ends for key, ends in published["transitions"].items() if key != "source"]
    first, last = min(map(min, ranges)), max(map(max, ranges))
    for axis in axes:
        axis.set_ylim(min(lows), max(highs))
        if shaded:
            label = f"the paper's range, {first:.2f}–{last:.2f}"
            axis.axvspan(first, last, color="0.94", zorder=-1, label=label)


def backdrop(axis, scores: pd.DataFrame) -> pd.DataFrame:
    """Chance, where it is better the floor (what no reading scores), n, and which unpruned models
    (or variants) do not stand out from the floor; returns the unpruned scores."""
    unpruned = scores[scores.treatment == "unpruned"]
    for row in unpruned[unpruned.chance.notna()].itertuples():
        axis.axhline(row.chance, color="grey", ls=(0, (5, 3)), lw=1, label="chance")
        if curves.floor(row) > row.chance:
            axis.axhline(curves.floor(row), color="grey", ls="-.", lw=1, label="floor")
    if scores.n.max() > 0:
        axis.set_title(f"n = {scores.n.max():.0f}", loc="right", fontsize=7)
    silent = unpruned[[curves.no_signal(row) for row in unpruned.itertuples()]]
    some = 0 < len(silent) < unpruned.value.notna().sum()
    if some:
        names = silent.variant if "variant" in silent else silent.model.map(registry.label)
        note = f"no signal:\n{', '.join(dict.fromkeys(names))}"
    else:
        note = "no signal" if len(silent) else ""
    if note:
        below = (unpruned.chance == 0.5).any()  # where a panel of BoolQ is empty
        axis.text(
            0.98,
            0.02 if below else 0.97,
            note,
            ha="right",
            va="bottom" if below else "top",
            transform=axis.transAxes,
            color="0.7",
            weight="bold",
            fontsize=9 if some else 16,
            zorder=0,
        )
    return unpruned


def nothing_measured(table: pd.DataFrame) -> Figure:
    """Return the figure of a run that lacks all of it, with the table of what is missing."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(WIDTH, 0.6))
        figure.text(0.5, 0.5, "nothing of this is measured yet", ha="center", va="center")
        return finished(figure, table)


def finished(figure: Figure, table: pd.DataFrame, legend: str | None = None) -> Figure:
    """Return a figure with the table of what it shows, as its attribute `table`.

    legend: the title of one for the whole figure.
    """
    if legend is not None:
        legend_below(figure, title=legend)
    figure.table = table.drop(columns=UNSHOWN, errors="ignore")
    return figure


def save(figure: Figure, name: str, profile: Profile) -> Figure:
    """Write <name>.png and its table as .csv into the run's folder, each whole or not at all.

    A model that the profile is missing is named above the picture and is a row without a value.
    """
    folder, table = paths.FIGURES / profile.folder, figure.table
    if profile.missing:
        absent = pd.DataFrame(profile.missing, columns=["model", "status"])
        absent["profile"] = profile.name
        table = pd.concat([table, absent], ignore_index=True)
        names = (f"{registry.label(model)} ({status})" for model, status in profile.missing)
        figure.text(0, 1.02, f"missing: {', '.join(names)}", fontsize=8)  # no legend is there
    picture = png(figure)
    text = table.to_csv(index=False, float_format="%.10g")
    storage.atomic_write(folder / f"{name}.csv", text.encode())
    storage.atomic_write(folder / f"{name}.png", picture)
    alt = {"alt": f"{name}: {_in_words(figure)}"}
    figure._repr_mimebundle_ = lambda **_: ({"image/png": picture}, {"image/png": alt})
    return figure


def png(figure: Figure) -> bytes:
    """Return the picture, with a palette where that changes no shade: a third of the bytes."""
    drawn, small = io.BytesIO(), io.BytesIO()
    with plt.rc_context(STYLE):
        figure.savefig(drawn, format="png")
    plt.close(figure)
    image = Image.open(drawn).convert("RGB")
    if image.getcolors(FEW):
        image = image.quantize(256, dither=Image.Dither.NONE)
    image.save(small, "png", optimize=True)
    return small.getvalue()


def _in_words(figure: Figure) -> str:
    """The titles and labels of all axes."""
    texts = []
    for axis in figure.axes:
        texts += [axis.get_title("left"), axis.get_ylabel(), axis.get_xlabel()]
    words = ", ".join(dict.fromkeys(filter(None, texts)))
    return words.replace("$", "").replace("\n", " ")
