"""How every figure looks and is stored: one style, one colour a model, a PNG next to its CSV."""

import io
import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from PIL import Image

from lib import storage
from lib.models import registry
from replication import paths
from replication.analysis import curves
from replication.profiles import Profile

SHEET = Path(__file__).with_name("style.mplstyle")
STYLE = matplotlib.rc_params_from_file(SHEET, use_default_template=False)
UNSHOWN = ["examples", "weights", "choices", "answers", "took"]  # too long, or another each time
WIDTH = 7.3  # inches: as wide as a web page shows a picture, so that no text is scaled down
AT_LEAST = (0.2, 0.6)  # what every axis of accuracies shows, so that noise looks like noise
NORMAL = 1.96  # standard errors to either side: a 95 % interval
FEW = 4_000  # colours of lines and text, with their soft edges; a map has more


def colour(name: str):
    """The colour of a model in every figure."""
    known = list(registry.MODELS)
    place = known.index(name) if name in known else len(known) + sum(map(ord, name))
    shades = [*sns.color_palette("colorblind", 10)]
    shades[6], shades[8] = "indigo", "black"  # for a pink and a yellow that are pale on white
    return shades[place % 10]


def legend_below(figure: Figure, found: dict | None = None, title: str | None = None) -> None:
    """One legend a figure, below it: of `found` (text: handle) and of all that the axes label."""
    found = dict(found or {})
    for axis in figure.axes:
        handles, texts = axis.get_legend_handles_labels()
        found |= zip(texts, handles, strict=True)
    columns = int(figure.get_figwidth() / (0.7 + 0.055 * max(map(len, found), default=0)))
    place = {"loc": "outside lower center", "ncols": max(1, min(columns, len(found)))}
    figure.legend(found.values(), found.keys(), title=title, title_fontsize=8, **place)


def level(axes: list, shaded: bool) -> None:
    """Give all axes the range of those with numbers; shaded: where the paper's models fall."""
    told = json.loads((paths.DATA / "published.json").read_text(encoding="utf-8"))["transitions"]
    ends = [end for pair in told.values() if isinstance(pair, list) for end in pair]
    lows, highs = zip(AT_LEAST, *(a.get_ylim() for a in axes if a.dataLim.height >= 0), strict=True)
    for axis in axes:
        axis.set_ylim(min(lows), max(highs))
        if shaded:
            text = f"the paper's range, {min(ends):.2f}–{max(ends):.2f}"
            axis.axvspan(min(ends), max(ends), color="0.94", zorder=-1, label=text)


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
    told, some = "not measured" if scores.value.isna().all() else "", False
    silent = unpruned[[curves.no_signal(row) for row in unpruned.itertuples()]]
    if len(silent):
        names = silent.variant if "variant" in silent else silent.model.map(registry.label)
        some = len(silent) < unpruned.value.notna().sum()
        told = "no signal" + (f":\n{', '.join(dict.fromkeys(names))}" if some else "")
    if told:
        y, side = (0.02, "bottom") if (unpruned.chance == 0.5).any() else (0.97, "top")  # empty
        style = {"color": "0.7", "weight": "bold", "fontsize": 9 if some else 16, "zorder": 0}
        axis.text(0.98, y, told, ha="right", va=side, transform=axis.transAxes, **style)
    return unpruned


def save_figure(
    figure: Figure, shown: pd.DataFrame, name: str, profile: Profile, legend: str | None = None
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
        shown = pd.concat([shown, absent.assign(profile=profile.name)], ignore_index=True)
        told = (f"{registry.label(name)} ({status})" for name, status in profile.missing)
        figure.text(0, 1.02, f"missing: {', '.join(told)}", fontsize=8)  # no legend is there
    picture, small = io.BytesIO(), io.BytesIO()
    figure.savefig(picture, format="png")
    plt.close(figure)
    image = Image.open(picture).convert("RGB")
    if image.getcolors(FEW):  # a third of the bytes, and no shade changes
        image = image.quantize(256, dither=Image.Dither.NONE)
    image.save(small, "png", optimize=True)
    shown = shown.drop(columns=UNSHOWN, errors="ignore")
    table = shown.to_csv(index=False, float_format="%.10g").encode()
    for suffix, content in ((".csv", table), (".png", small.getvalue())):
        storage.atomic_write(folder / f"{name}{suffix}", content)
    told = [t for a in figure.axes for t in (a.get_title("left"), a.get_ylabel(), a.get_xlabel())]
    told = ", ".join(dict.fromkeys(filter(None, told)))
    alt = f"{name}: {told}".replace("$", "").replace("\n", " ")
    figure._repr_mimebundle_ = lambda **_: ({"image/png": content}, {"image/png": {"alt": alt}})
    return figure
