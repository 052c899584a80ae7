"""Figures of notebook 12: what repairs a cut, at which depth and for which effort."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from lib.models import registry
from replication.figures.curves import TASKS
from replication.figures.style import NORMAL, STYLE, WIDTH, save_figure
from replication.profiles import Profile

UNITS = TASKS | {"c4": "C4 loss (nats a token)"}
NOT_REPAIRED = {"unpruned", "plain cut"}
LOOKS = {  # of each repair: colour, marker, line
    "plain cut": ("black", "x", ":"),
    "LoRA": ("tab:blue", "o", "-"),
    "full map": ("tab:orange", "s", "-"),
    "folded map": ("tab:red", "D", "--"),
    "LoRA, a quarter of the steps": ("tab:cyan", "o", ""),
    "LoRA after the cut": ("tab:purple", "<", ""),
}


def figure_repair(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Loss and accuracy against the fraction dropped: a row a model and task, a column a strategy.

    scores: of measure.repair.maps.
    """

    def draw(axis, mine: pd.DataFrame, strategy: str) -> str:
        pruned = mine[mine.strategy == strategy].sort_values("fraction")
        for place, (repair, line) in enumerate(pruned.groupby("repair", sort=False)):
            shifted = line.fraction + 0.004 * (place - 2)  # so that no bar hides another
            _marks(axis, shifted, line, repair, repair)
        axis.set_xlabel("fraction of layers dropped")
        return strategy

    return _panels(scores, ("similarity", "simple"), draw, "figure_repair", profile)


def figure_repair_cost(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Loss and accuracy against seconds, at one depth: a row a model and task.

    scores: of measure.repair.healings. In brackets: numbers that were fitted or trained.
    """

    def draw(axis, mine: pd.DataFrame, column: str) -> str:
        pruned = mine[mine.strategy != "none"]
        for repair, line in pruned.groupby("repair", sort=False):
            if repair == "plain cut":
                axis.axhline(line.value.iloc[0], color="black", ls=":", label=repair)
            else:
                label = f"{repair} ({_number(line.parameters.iloc[0])})"
                _marks(axis, line.seconds, line, repair, label)
        axis.set(xlabel="seconds of fitting or training", xscale="log")
        return f"{pruned.block_size.max()} layers dropped"

    return _panels(scores, ("",), draw, "figure_repair_cost", profile)


def _panels(scores: pd.DataFrame, columns, draw, name: str, profile: Profile) -> Figure:
    """A row of panels a model and task that a repair has; `draw` fills one and gives its title."""
    shown = scores[scores.value.notna()]
    asked = shown.groupby(["model", "task"], sort=False).repair.agg(set)
    rows = [row for row, found in asked.items() if "unpruned" in found and found - NOT_REPAIRED]
    count = max(1, len(rows))
    how = {"figsize": (WIDTH, 1 + 2.6 * count), "squeeze": False, "sharey": "row"}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(count, len(columns), **how)
        for line, (model, task) in zip(axes, rows, strict=False):
            for axis, column in zip(line, columns, strict=True):
                mine = shown[(shown.model == model) & (shown.task == task)]
                whole = mine[mine.strategy == "none"].iloc[0]
                axis.axhline(whole.value, color="black", ls="--", lw=1, label="unpruned")
                axis.axhline(whole.chance, color="grey", ls=(0, (5, 3)), lw=1, label="chance")
                title = draw(axis, mine, column)
                axis.set_title(f"{registry.label(model)}, {title}", loc="left")
                axis.set_title(f"n = {whole.n:.0f}, bars: 95 %", loc="right", fontsize=7)
                if task == "c4":
                    axis.set_yscale("log")
                    axis.yaxis.set_major_formatter(ScalarFormatter())
                    axis.yaxis.set_minor_formatter(ScalarFormatter())
            line[0].set_ylabel(UNITS[task])
        return save_figure(figure, scores, name, profile, legend="")


def _marks(axis, places, line: pd.DataFrame, repair: str, label: str) -> None:
    shade, marker, style = LOOKS.get(repair, ("slategrey", "p", ""))  # of another rank
    how = {"color": shade, "marker": marker, "ls": style, "ms": 6, "elinewidth": 0.8}
    axis.errorbar(places, line.value, NORMAL * line.standard_error, label=label, **how)


def _number(count: float) -> str:
    """331,776 as 0.33 M, short enough for a legend."""
    if pd.isna(count):
        return "?"
    return f"{count:,.0f}" if count < 10_000 else f"{count / 1e6:.2g} M"
