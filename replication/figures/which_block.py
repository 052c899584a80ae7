"""Which block: the criteria head to head, and what each layer does."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.models import registry
from replication.figures.style import NORMAL, STYLE, WIDTH, save_figure
from replication.profiles import Profile

CRITERIA = {  # colour and marker
    "paper": ("black", "o"),
    "paper, sink kept": ("tab:purple", "p"),
    "last token": ("dimgrey", "v"),
    "all tokens": ("tab:blue", "s"),
    "block influence": ("tab:cyan", "D"),
    "damage map": ("tab:red", "x"),
    "simple": ("tab:orange", "^"),
}
WITHOUT = ("tab:red", "o")  # colour and marker of the damage of a layer
CHANGE = r"$|x^{(l+1)} - x^{(l)}|\;/\;|x^{(l)}|$"
UPDATES = {
    "update": {"label": "all tokens but the first", "color": "black"},
    "update, first token": {"label": "first token", "color": "grey", "ls": ":"},
}


def figure_criteria(judged: pd.DataFrame, summary: pd.DataFrame, profile: Profile) -> Figure:
    """A row a model: the damage of each criterion's choice at every size, and the mean excess over
    the damage map's own choice. Bars: 95 % intervals over texts; grey: quartiles of all starts.

    judged: of analysis.head_to_head; summary: of analysis.summary.
    """
    count = judged.model.nunique()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2 * count, 1, figsize=(WIDTH, 8.5 * count))
        models = judged.groupby("model", sort=False)
        for (upper, lower), (name, mine) in zip(axes.reshape(count, 2), models, strict=True):
            _by_size(upper, mine, f"{registry.label(name)}, {mine.n.iloc[0]} texts, bars: 95 %")
            _excess(lower, summary[summary.model == name])
        return save_figure(figure, judged, "figure_criteria", profile)


def _by_size(axis, judged: pd.DataFrame, title: str) -> None:
    every = judged.drop_duplicates("block_size").sort_values("block_size")
    quartiles = every.first_quartile, every.third_quartile
    axis.fill_between(every.block_size, *quartiles, color="lightgrey", label="half of all starts")
    axis.plot(every.block_size, every["median"], color="grey", lw=1, label="median start")
    for place, (name, style) in enumerate(CRITERIA.items()):
        line = judged[judged.criterion == name]
        around = [(line.value - line.low).clip(0), (line.high - line.value).clip(0)]
        _bars(axis, line.block_size + 0.08 * (place - 3), line.value, around, style, name)
    axis.set(xlabel="block size $n$ (layers)", title=title)
    axis.legend(loc="lower right", ncols=2)


def _bars(axis, x, value, around, style: tuple[str, str], label: str) -> None:
    """A line with bars, of damages."""
    how = {"ms": 4, "lw": 1, "elinewidth": 0.8, "label": label}
    axis.errorbar(x, value, around, color=style[0], marker=style[1], **how)
    axis.set_yscale("symlog", linthresh=0.1)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_ylabel("rise of the C4 loss (nats)")


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


def figure_layers(damages: pd.DataFrame, changes: pd.DataFrame, profile: Profile) -> Figure:
    """A row a model: how much each layer changes the stream of the C4 texts, and the damage without
    it. Bars: 95 %.

    Of damage.measure and states.measure.
    """
    updates = changes[changes.criterion.isin(UPDATES)]
    shown = pd.concat([updates, damages[damages.block_size == 1]])
    count = shown.model.nunique()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(count, 2, figsize=(WIDTH, 1 + 2.6 * count), squeeze=False)
        for (left, right), (name, mine) in zip(
            axes, shown.groupby("model", sort=False), strict=True
        ):
            for criterion, style in UPDATES.items():
                line = mine[mine.criterion == criterion]
                left.plot(line.block_start, line.value, marker=".", **style)
            single = mine[mine.criterion.isna()]
            around = NORMAL * single.standard_error
            _bars(right, single.block_start, single.value, around, WITHOUT, "without the layer")
            left.set(xlabel="layer $l$", ylabel=CHANGE, yscale="log")
            left.set_title(f"{registry.label(name)}, {mine.n.iloc[0]} texts")
            right.set(xlabel="layer $l$", title="without one layer")
        return save_figure(figure, shown, "figure_layers", profile, legend="bars: 95 %")
