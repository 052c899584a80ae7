"""Figures beyond the paper: costs of inference, and damage."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.models import registry
from replication.analysis.islands import rescaled
from replication.figures.heatmaps import block_map
from replication.figures.style import STYLE, WIDTH, colour, save_figure
from replication.profiles import Profile

COSTS = {
    "weights": "weights (GB)",
    "prefill": "prefill of the prompt (s)",
    "decode": "decode, a token (s)",
}
MAPS = (
    ("distance_rescaled", "distance (rescaled by row)", {}),
    ("value_rescaled", "damage (rescaled by row)", {}),
    ("residual", "ranks: damage − distance\n(red: hurts more)", {"cmap": "coolwarm", "vmin": -1}),
)
BEST = {
    "distance": ("k.", {"ms": 4, "mew": 0.8, "label": "most similar"}),
    "value": ("x", {"color": "#c51b7d", "ms": 4, "mew": 0.8, "label": "least damage"}),
}


def figure_cost(costs: pd.DataFrame, profile: Profile) -> Figure:
    """Memory and latency against the fraction of layers dropped, and as ratios to the unpruned
    model; solid as it is, dotted in NF4. Bars: quartiles above, 95 % intervals below."""
    shown = costs[costs.status == "ok"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, len(COSTS), figsize=(WIDTH, 4.6), sharex=True)
        for column, (task, label) in enumerate(COSTS.items()):
            above, below = axes[:, column]
            mine = shown[shown.task == task]
            for (name, quantization), line in mine.groupby(["model", "quantization"], dropna=False):
                packed = pd.notna(quantization)
                style = {"color": colour(name), "ls": ":" if packed else "-", "marker": "."}
                told = "NF4" if packed else line.dtype.iloc[0]
                _with_bars(above, line, "value", "low", "high", style, registry.label(name), told)
                _with_bars(below, line, "ratio", "ratio_low", "ratio_high", style)
            deepest = shown.fraction.max()
            below.plot([0, deepest], [1, 1 - deepest], color="grey", lw=1, label="layers left")
            above.set(ylabel=label, ylim=(0, 1.1 * mine.value.max()))
            if mine.n.max() > 1:
                above.set_title(f"{mine.n.max():.0f} rounds", loc="right", fontsize=7)
            below.set(xlabel="fraction dropped", ylabel="ratio to unpruned", ylim=(0, None))
        told = "bars: quartiles above, 95 % intervals below"
        return save_figure(figure, costs, "figure_cost", profile, legend=told)


def _with_bars(axis, line: pd.DataFrame, value: str, low: str, high: str, style: dict, *label):
    """A line with bars from `low` to `high`, where these are known."""
    middle = line[value]
    around = np.array([middle - line[low].fillna(middle), line[high].fillna(middle) - middle])
    axis.errorbar(line.fraction, middle, around, elinewidth=0.8, label=", ".join(label), **style)


def figure_damage(tables: pd.DataFrame, correlations: pd.DataFrame, profile: Profile) -> Figure:
    """A row a model: the distance map, the damage map, where they disagree, block by block.

    tables: of analysis.beside_distances; correlations: of analysis.rank_correlation.
    """
    rows = tables.groupby(["model", "block_size"])[["distance", "value"]]
    shown = rows.transform(lambda row: rescaled(row.to_numpy())).add_suffix("_rescaled")
    shown = tables.join(shown)
    count = shown.model.nunique()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2 * count, 2, figsize=(WIDTH, 6.3 * count))
        models = shown.groupby("model", sort=False)
        for row, (name, mine) in zip(axes.reshape(count, 4), models, strict=True):
            label = f"{registry.label(name)}, {mine.n.iloc[0]} texts"
            for axis, (column, title, how) in zip(row, MAPS, strict=False):
                figure.colorbar(block_map(axis, mine, column, title, BEST, **how), ax=axis)
            _scatter(row[3], mine, correlations[correlations.model == name], label)
        return save_figure(figure, shown, "figure_damage", profile, legend="")


def _scatter(axis, table: pd.DataFrame, correlations: pd.DataFrame, title: str) -> None:
    """Damage against distance, a point a block; the deeper the yellow, the larger the block."""
    told = ["angular distance"]
    for row in correlations.itertuples():
        told.append(f"{row.blocks}: ρ = {row.rank_correlation:.2f} [{row.low:.2f}, {row.high:.2f}]")
    points = axis.scatter(table.distance, table.value, c=table.block_size, cmap="viridis", s=8)
    axis.figure.colorbar(points, ax=axis, label="block size $n$ (layers)")
    axis.set(xlabel="\n".join(told), ylabel="rise of the C4 loss (nats)", title=title)
    axis.set_yscale("symlog", linthresh=0.1)
