"""Figures beyond the paper: what running a pruned model costs, damage, where healing acts."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.analysis.islands import rescaled
from lib.figures import curves
from lib.figures.curves import TASKS
from lib.figures.style import STYLE, colour, save_figure
from lib.models import registry
from lib.profiles import Profile

COSTS = {
    "weights": "weights (GB)",
    "prefill": "prefill of the prompt (s)",
    "decode": "decode, a token (s)",
}
FORMATS = {None: "-", "nf4": ":"}
ADAPTERS = {"all layers": "o", "after the cut": "s"}


def figure_cost(costs: pd.DataFrame, profile: Profile) -> Figure:
    """Memory and latency against the fraction of layers dropped, and as ratios to the unpruned
    model; solid as it is, dotted in NF4. Bars: quartiles above, 95 % intervals below."""
    shown = costs[costs.status == "ok"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, len(COSTS), figsize=(12, 6.4), sharex=True, squeeze=False)
        for column, (task, label) in enumerate(COSTS.items()):
            above, below = axes[:, column]
            mine = shown[shown.task == task]
            for (name, quantization), line in mine.groupby(["model", "quantization"], dropna=False):
                quantization = None if pd.isna(quantization) else quantization
                style = {"color": colour(name), "ls": FORMATS[quantization], "marker": "."}
                told = "NF4" if quantization else line.dtype.iloc[0]
                _with_bars(above, line, "value", "low", "high", style, registry.label(name), told)
                _with_bars(below, line, "ratio", "ratio_low", "ratio_high", style)
            deepest = shown.fraction.max()
            below.plot([0, deepest], [1, 1 - deepest], color="grey", lw=1, label="layers left")
            above.set(ylabel=label, ylim=(0, 1.1 * mine.value.max()), title=label.split(" (")[0])
            if mine.n.max() > 1:
                above.set_title(f"n = {mine.n.max():.0f}", loc="right", fontsize=7)
            below.set(xlabel="fraction of layers dropped", ylabel="ratio to unpruned")
            below.set(ylim=(0, None))
            above.legend()
            below.legend()
        return save_figure(figure, costs, "figure_cost", profile)


def _with_bars(axis, line: pd.DataFrame, value: str, low: str, high: str, style: dict, *label):
    """A line with bars from `low` to `high`, where these are known."""
    middle = line[value]
    around = np.array([middle - line[low].fillna(middle), line[high].fillna(middle) - middle])
    axis.errorbar(line.fraction, middle, around, elinewidth=0.8, label=", ".join(label), **style)


def figure_damage(tables: pd.DataFrame, correlations: pd.DataFrame, profile: Profile) -> Figure:
    """A row a model: the distance map, the damage map, where they disagree, block by block.

    tables: `damage.beside_distances` of each model; correlations: `damage.rank_correlation`, with
    the column model.
    """
    rescale = tables.groupby(["model", "block_size"])[["distance", "value"]]
    shown = tables.join(
        rescale.transform(lambda row: rescaled(row.to_numpy())).add_suffix("_rescaled")
    )
    names = list(dict.fromkeys(shown.model))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(len(names), 4, figsize=(17, 4.2 * len(names)), squeeze=False)
        for row, name in zip(axes, names, strict=True):
            mine = shown[shown.model == name]
            label = f"{registry.label(name)}, {mine.n.iloc[0]} texts"
            _map(
                row[0], mine, "distance_rescaled", "distance (rescaled by row)", "viridis_r", (0, 1)
            )
            _map(row[1], mine, "value_rescaled", "damage (rescaled by row)", "viridis_r", (0, 1))
            _map(row[2], mine, "residual", "rank by damage − by distance", "coolwarm", (-1, 1))
            _scatter(row[3], mine, correlations[correlations.model == name], label)
        return save_figure(figure, shown, "figure_damage", profile)


def _map(axis, table: pd.DataFrame, column: str, title: str, colours: str, limits) -> None:
    grid = table.pivot(index="block_size", columns="block_start", values=column)
    mesh = axis.pcolormesh(
        grid.columns, grid.index, grid, cmap=colours, vmin=limits[0], vmax=limits[1]
    )
    for of, mark in (("distance", "k."), ("value", "rx")):
        best = table.loc[table.groupby("block_size")[of].idxmin()]
        label = {"distance": "most similar", "value": "least damage"}[of]
        axis.plot(best.block_start, best.block_size, mark, ms=4, mew=0.8, label=label)
    axis.set(xlabel="block start l (layer)", ylabel="block size n (layers)", title=title)
    axis.legend(loc="upper right")
    axis.figure.colorbar(mesh, ax=axis)


def _scatter(axis, table: pd.DataFrame, correlations: pd.DataFrame, title: str) -> None:
    """Damage against distance, a point a block; the deeper the yellow, the larger the block."""
    told = [
        f"{row.blocks}: ρ = {row.rank_correlation:.2f} [{row.low:.2f}, {row.high:.2f}]"
        for row in correlations.itertuples()
    ]
    points = axis.scatter(table.distance, table.value, c=table.block_size, cmap="viridis", s=8)
    axis.figure.colorbar(points, ax=axis, label="block size n (layers)")
    axis.set(xlabel="angular distance", ylabel="rise of the C4 loss (nats)", title=title)
    axis.set_yscale("symlog", linthresh=0.1)
    axis.text(0.02, 0.98, "\n".join(told), transform=axis.transAxes, va="top", fontsize=8)


def figure_heal_where(scores: pd.DataFrame, tasks: list[str], profile: Profile) -> Figure:
    """Quality against seconds of training, a row a model: adapters on all layers, and only after
    the cut."""
    shown = curves.in_units_of_chance(scores)
    names = list(dict.fromkeys(shown.model))
    size = (2.6 + 4.6 * len(tasks), 3.6 * len(names))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(len(names), len(tasks), figsize=size, squeeze=False)
        for i, name in enumerate(names):
            for axis, task in zip(axes[i], tasks, strict=True):
                mine = shown[(shown.model == name) & (shown.task == task)]
                unpruned = mine[mine.treatment == "unpruned"]
                curves.reference_lines(axis, unpruned, "black")
                curves.stamp(axis, unpruned)
                for row in mine[mine.value.notna() & (mine.treatment != "unpruned")].itertuples():
                    _healing(axis, row)
                axis.set(xlabel="seconds of training", ylabel=TASKS[task])
                axis.set_title(f"{registry.label(name)}, {mine.block_size.max()} layers dropped")
                axis.set_title(f"n = {mine.n.iloc[0]:.0f}, ±1 s.e.", loc="right", fontsize=7)
            axes[i][-1].legend(loc="upper left", bbox_to_anchor=(1, 1))
        return save_figure(figure, shown, "figure_heal_where", profile)


def _healing(axis, row) -> None:
    """One pruned score: a point in time."""
    marker, label = {
        "unhealed": ("x", "unhealed"),
        "healed": (ADAPTERS.get(row.adapters), f"healed, {row.adapters}"),
    }[row.treatment]
    shade = "tab:orange" if row.adapters == "after the cut" else colour(row.model)
    axis.errorbar(
        row.seconds, row.value, row.standard_error, color=shade, marker=marker, ls="", label=label
    )
