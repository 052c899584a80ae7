"""Figures of notebook 12: what repairs a cut, at which depth and for which effort."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.figures.style import STYLE, save_figure
from lib.models import registry
from lib.profiles import Profile

UNITS = {"c4": "C4 loss (nats a token)", "arc_easy": "ARC-Easy accuracy"}
LOOKS = {  # of each repair: colour, marker, line
    "plain cut": ("black", "x", ":"),
    "LoRA": ("tab:blue", "o", "-"),
    "full map": ("tab:orange", "s", "-"),
    "folded map": ("tab:red", "D", "--"),
    "low rank map": ("tab:orange", "^", ""),
    "diagonal map": ("tab:olive", "v", ""),
    "scalar map": ("tab:brown", "P", ""),
    "LoRA, a quarter of the steps": ("tab:cyan", "o", ""),
    "LoRA after the cut": ("tab:purple", "<", ""),
    "LoRA, distilled": ("tab:green", "*", ""),
}
OTHER = ("slategrey", "p", "")  # LoRA of another rank
WIDTH = 1.96  # standard errors to either side: a 95 % interval


def figure_repair(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Loss and accuracy against the fraction dropped: a row a model, a column a task and strategy.

    scores: of measure.repair.maps.
    """
    shown = scores[scores.value.notna()]
    panels = [(task, strategy) for task in UNITS for strategy in ("similarity", "simple")]
    names = list(dict.fromkeys(shown.model))
    with plt.rc_context(STYLE):
        size = (14.5, 0.6 + 3.3 * len(names))
        figure, axes = plt.subplots(
            len(names), len(panels), figsize=size, squeeze=False, sharex="row"
        )
        for row, name in zip(axes, names, strict=True):
            for axis, (task, strategy) in zip(row, panels, strict=True):
                mine = shown[(shown.model == name) & (shown.task == task)]
                _whole(axis, mine[mine.strategy == "none"].iloc[0])
                pruned = mine[mine.strategy == strategy].sort_values("fraction")
                for repair, line in pruned.groupby("repair", sort=False):
                    shift = (list(LOOKS).index(repair) - 3) * 0.004  # so that no bar hides another
                    _marks(axis, line.fraction + shift, line, repair)
                axis.set(xlabel="fraction of layers dropped", ylabel=UNITS[task])
                axis.set_title(f"{registry.label(name)}, {strategy}")
        _legend(figure, axes)
        return save_figure(figure, shown, "figure_repair", profile)


def figure_repair_cost(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Loss and accuracy against seconds, at the one depth that `scores` have: a row a model."""
    shown = scores[scores.value.notna()]
    names = list(dict.fromkeys(shown.model))
    with plt.rc_context(STYLE):
        size = (11.5, 0.6 + 3.6 * len(names))
        figure, axes = plt.subplots(len(names), len(UNITS), figsize=size, squeeze=False)
        for row, name in zip(axes, names, strict=True):
            for axis, task in zip(row, UNITS, strict=True):
                mine = shown[(shown.model == name) & (shown.task == task)]
                _whole(axis, mine[mine.strategy == "none"].iloc[0])
                pruned = mine[mine.strategy != "none"]
                for repair, line in pruned.groupby("repair", sort=False):
                    if repair == "plain cut":
                        axis.axhline(line.value.iloc[0], color="black", ls=":", label=repair)
                    else:
                        told = f"{repair}: {_number(line.parameters.iloc[0])} numbers"
                        _marks(axis, line.seconds, line, repair, told)
                axis.set(xlabel="seconds of fitting or training", ylabel=UNITS[task])
                axis.set_xscale("log")
                axis.set_title(f"{registry.label(name)}, {pruned.block_size.max()} layers dropped")
            row[-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
        return save_figure(figure, shown, "figure_repair_cost", profile)


def _whole(axis, row) -> None:
    """The unpruned model, and how many examples a panel is of."""
    axis.axhline(row.value, color="black", ls="--", lw=1, label="unpruned")
    if row.task != "c4":
        axis.axhline(row.chance, color="grey", ls=(0, (5, 3)), lw=1, label="chance")
    axis.annotate(
        f"n = {row.n:.0f}, bars: 95 %", (1, 0), xycoords="axes fraction", ha="right", fontsize=7
    )


def _marks(axis, places, line: pd.DataFrame, repair: str, label: str | None = None) -> None:
    shade, marker, style = LOOKS.get(repair, OTHER)
    how = {"color": shade, "marker": marker, "ls": style, "ms": 6, "elinewidth": 0.8}
    axis.errorbar(places, line.value, WIDTH * line.standard_error, label=label or repair, **how)


def _legend(figure, axes) -> None:
    found = {}
    for axis in axes.flat:
        handles, labels = axis.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=len(found))


def _number(count: float) -> str:
    """331,776 as 0.33 M, short enough for a legend."""
    if pd.isna(count):
        return "?"
    return f"{count:,.0f}" if count < 10_000 else f"{count / 1e6:.2g} M"
