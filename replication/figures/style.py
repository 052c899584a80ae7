"""How every figure looks and is stored: one style, one colour a model, a PNG next to its CSV."""

import io
import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from lib import storage
from lib.models import registry
from replication import paths
from replication.analysis import curves
from replication.profiles import Profile

SHEET = Path(__file__).with_name("style.mplstyle")
STYLE = matplotlib.rc_params_from_file(SHEET, use_default_template=False)
TABLE = Path(__file__).with_name("colours.csv")
COLOURS = {row["model"]: row["colour"] for row in storage.rows(TABLE)}
PALETTE = [  # seaborn's "colorblind", with indigo and black for two that are pale on white
    *("#0173B2", "#DE8F05", "#029E73", "#D55E00", "#CC78BC"),
    *("#CA9161", "indigo", "#949494", "black", "#56B4E9"),
]
UNSHOWN = ["examples", "weights", "choices", "answers", "took"]  # too long, or another each time
WIDTH = 7.3  # inches: as wide as a web page shows a picture, so that no text is scaled down
AT_LEAST = (0.2, 0.6)  # what every axis of accuracies shows, so that noise looks like noise
NORMAL = 1.96  # standard errors to either side: a 95 % interval
FEW = 4_000  # colours of lines and text, with their soft edges; a map has more


def colour(name: str) -> str:
    """The colour of a model in every figure; of one without a row by the letters of its name."""
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


def level(axes: list, shaded: bool) -> None:
    """Give all axes the range of those with numbers; shaded: where the paper's models fall."""
    limits = [axis.get_ylim() for axis in axes if axis.dataLim.height >= 0]
    lows, highs = zip(AT_LEAST, *limits, strict=True)
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
    elif len(silent):
        note = "no signal"
    else:
        note = "not measured" if scores.value.isna().all() else ""
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


def save_figure(
    figure: Figure, table: pd.DataFrame, name: str, profile: Profile, legend: str | None = None
) -> Figure:
    """Write figures/<profile>/<name>.png and its .csv, each whole or not at all.

    A model that the profile is missing is named above the picture and is a row without a value.
    legend: the title of one for the whole figure.
    """
    folder = paths.FIGURES / profile.name
    if legend is not None:
        legend_below(figure, title=legend)
    if profile.missing:
        absent = pd.DataFrame(profile.missing, columns=["model", "status"])
        absent["profile"] = profile.name
        table = pd.concat([table, absent], ignore_index=True)
        names = (f"{registry.label(model)} ({status})" for model, status in profile.missing)
        figure.text(0, 1.02, f"missing: {', '.join(names)}", fontsize=8)  # no legend is there
    picture = _png(figure)
    rows = table.drop(columns=UNSHOWN, errors="ignore")
    text = rows.to_csv(index=False, float_format="%.10g")
    storage.atomic_write(folder / f"{name}.csv", text.encode())
    storage.atomic_write(folder / f"{name}.png", picture)
    alt = {"alt": f"{name}: {_in_words(figure)}"}
    figure._repr_mimebundle_ = lambda **_: ({"image/png": picture}, {"image/png": alt})
    return figure


def _png(figure: Figure) -> bytes:
    """The picture, with a palette where that changes no shade: a third of the bytes."""
    drawn, small = io.BytesIO(), io.BytesIO()
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
