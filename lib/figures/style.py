"""How every figure looks and is stored: one style, one colour a model, a PNG beside its CSV."""

import io
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from PIL import Image

from lib import paths
from lib.models import registry
from lib.profiles import Profile

SHEET = Path(__file__).with_name("style.mplstyle")
STYLE = matplotlib.rc_params_from_file(SHEET, use_default_template=False)
WIDTH = 7.3  # inches: as wide as a web page shows a picture, so that no text is scaled down
FEW = 4_000  # colours of lines and text, with their soft edges; a map has more


def colour(name: str):
    """The colour of a model in every figure."""
    known = list(registry.MODELS)
    place = known.index(name) if name in known else len(known) + sum(map(ord, name))
    palette = sns.color_palette("colorblind")
    return palette[place % len(palette)]


def legend_below(figure: Figure, found: dict | None = None, title: str | None = None) -> None:
    """One legend a figure, below it: of `found` (text: handle) and of all that the axes label."""
    found = dict(found or {})
    for axis in figure.axes:
        handles, texts = axis.get_legend_handles_labels()
        found |= zip(texts, handles, strict=True)
    columns = int(figure.get_figwidth() / (0.7 + 0.055 * max(map(len, found))))
    place = {"loc": "outside lower center", "ncols": max(1, min(columns, len(found)))}
    figure.legend(found.values(), found.keys(), title=title, title_fontsize=8, **place)


def save_figure(figure: Figure, shown: pd.DataFrame, name: str, profile: Profile) -> Figure:
    """Write figures/<profile>/<name>.png and its .csv, each whole or not at all.

    A model that the profile is missing is named below the picture and is a row without a value.
    """
    folder = paths.FIGURES / profile.name
    if profile.missing:
        absent = pd.DataFrame(profile.missing, columns=["model", "status"])
        shown = pd.concat([shown, absent.assign(profile=profile.name)], ignore_index=True)
        told = (f"{registry.label(name)} ({status})" for name, status in profile.missing)
        figure.text(0, -0.04, f"missing: {', '.join(told)}", fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    shown = shown.drop(columns=["examples", "weights", "choices", "answers"], errors="ignore")
    table = shown.to_csv(index=False, float_format="%.10g").encode()
    for suffix, content in ((".csv", table), (".png", _compressed(picture))):
        paths.write_whole(folder / f"{name}{suffix}", content)
    plt.close(figure)
    return figure


def _compressed(picture: io.BytesIO) -> bytes:
    """A PNG in 256 colours, a third of the bytes, unless it has shades that this would change."""
    small, drawn = io.BytesIO(), Image.open(picture).convert("RGB")
    if drawn.getcolors(FEW):
        drawn = drawn.quantize(256, dither=Image.Dither.NONE)
    drawn.save(small, "png", optimize=True)
    return small.getvalue()
