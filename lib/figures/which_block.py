"""Which block: the criteria head to head, and what each layer and each half of it does."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.figures.style import STYLE, colour, save_figure
from lib.models import registry
from lib.profiles import Profile

CRITERIA = {  # colour and marker
    "paper": ("black", "o"),
    "last token": ("dimgrey", "v"),
    "all tokens": ("tab:blue", "s"),
    "block influence": ("tab:cyan", "D"),
    "greedy": ("tab:green", "P"),
    "damage map": ("tab:red", "x"),
    "simple": ("tab:orange", "^"),
}
PARTS = {"whole": ("black", "o"), "attention": ("tab:blue", "s"), "ffn": ("tab:orange", "^")}
LABELS = {"whole": "all of it", "attention": "its attention only", "ffn": "its FFN only"}
BLOCK = ["block_start", "block_size"]
NATS = "rise of the C4 loss (nats a token)"


def figure_criteria(judged: pd.DataFrame, summary: pd.DataFrame, profile: Profile) -> Figure:
    """A row a model: the damage of each criterion's choice at every size, and the mean excess over
    the damage map's own choice. Bars: 95 % intervals over texts; grey: quartiles of all starts.

    judged: of analysis.head_to_head; summary: of analysis.summary.
    """
    count = judged.model.nunique()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(count, 2, figsize=(11.5, 4.8 * count), squeeze=False)
        for (left, right), (name, mine) in zip(
            axes, judged.groupby("model", sort=False), strict=True
        ):
            title = f"{registry.label(name)}, {mine.n.iloc[0]} texts, bars: 95 %"
            first = mine[mine.source.str.startswith("c4") | (mine.source == "none")]
            _by_size(left, first, title)
            _excess(right, summary[summary.model == name])
        return save_figure(figure, judged, "figure_criteria", profile)


def _by_size(axis, judged: pd.DataFrame, title: str) -> None:
    every = judged.drop_duplicates("block_size").sort_values("block_size")
    quartiles = every.first_quartile, every.third_quartile
    axis.fill_between(every.block_size, *quartiles, color="lightgrey", label="half of all starts")
    axis.plot(every.block_size, every["median"], color="grey", lw=1, label="median start")
    names = [name for name in CRITERIA if name in set(judged.criterion)]
    for place, name in enumerate(names):
        line = judged[judged.criterion == name]
        shift = 0.08 * (place - (len(names) - 1) / 2)
        _bars(axis, line.block_size + shift, line, "", CRITERIA[name], name)
    axis.set(xlabel="block size n (layers)", title=title)
    _in_nats(axis)
    axis.legend(loc="lower right")


def _bars(axis, x, line: pd.DataFrame, prefix: str, style: tuple, label: str) -> None:
    low, high = line.value - line.low, line.high - line.value
    shade, marker = style
    how = {"color": shade, "marker": marker, "ms": 4, "lw": 1, "elinewidth": 0.8}
    axis.errorbar(x, line.value, [low.clip(0), high.clip(0)], label=label, **how)


def _excess(axis, summary: pd.DataFrame) -> None:
    """A line a criterion and source: mean excess over sizes, and how often it is good or poor."""
    summary = summary.sort_values("excess", ascending=False).reset_index(drop=True)
    for place, row in summary.iterrows():
        shade, marker = CRITERIA[row.criterion]
        around = [[row.excess - row.excess_low], [row.excess_high - row.excess]]
        axis.errorbar(row.excess, place, xerr=np.clip(around, 0, None), color=shade, marker=marker)
        told = f" {row.best_three}/{row.sizes} · {row.as_a_random_start}/{row.sizes}"
        axis.text(1.01, place, told, transform=axis.get_yaxis_transform(), va="center", fontsize=8)
    axis.axvline(0, color="grey", lw=0.8)
    axis.set_xscale("symlog", linthresh=1)
    axis.xaxis.set_major_formatter("{x:g}")
    labels = [f"{row.criterion} ({row.source})" for row in summary.itertuples()]
    axis.set_yticks(range(len(summary)), [t.removesuffix(" (none)") for t in labels], fontsize=8)
    axis.set(xlabel="damage above that of the damage map's choice, mean over sizes (nats)")
    axis.set_title("sizes: among best three · no better than median", loc="right", fontsize=8)


def figure_layers(
    layers: pd.DataFrame, damages: pd.DataFrame, parts: pd.DataFrame, profile: Profile
) -> Figure:
    """A row a model: what each layer adds to the stream, the damage without it or half of it, and
    the same of the similarity-informed blocks. Bars: 95 %.

    layers: of analysis.layer_by_layer; damages: of damage.measure; parts: of damage.halves.
    """
    count = layers.model.nunique()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(count, 3, figsize=(13, 3.9 * count), squeeze=False)
        for row, (name, mine) in zip(axes, layers.groupby("model", sort=False), strict=True):
            row[0].plot(
                mine.block_start, mine["update"], ".-", color=colour(name), label="other tokens"
            )
            first = mine["update, first token"]
            row[0].plot(mine.block_start, first, ".:", color="grey", lw=1, label="first token")
            row[0].set(xlabel="layer l", ylabel="|x^(l+1) − x^(l)| / |x^(l)|", yscale="log")
            row[0].legend(title="mean over texts", title_fontsize=8)
            label = f"{registry.label(name)}, {damages[damages.model == name].n.iloc[0]} texts"
            row[0].set_title(label)
            for part in PARTS:
                value, error = mine[f"value_{part}"], mine[f"standard_error_{part}"]
                _part(row[1], mine.block_start, value, error, part)
            row[1].set(xlabel="layer l", title="without one layer; bars: 95 %")
            halves = parts[(parts.model == name) & (parts.block_size > 1)]
            whole = damages[damages.model == name].merge(halves[BLOCK].drop_duplicates())
            for part, of in {"whole": whole, **dict(list(halves.groupby("part")))}.items():
                _part(row[2], of.block_size, of.value, of.standard_error, part)
            row[2].set(xlabel="size n (layers)", title="without the most similar block of size n")
            row[2].legend()
        return save_figure(figure, layers, "figure_layers", profile)


def _part(axis, x, value, error, part: str) -> None:
    shade, marker = PARTS[part]
    how = {"color": shade, "marker": marker, "ms": 4, "lw": 1, "elinewidth": 0.8}
    axis.errorbar(x, value, 1.96 * error, label=LABELS[part], **how)
    _in_nats(axis)


def _in_nats(axis) -> None:
    axis.set_yscale("symlog", linthresh=0.1)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_ylabel(NATS)
