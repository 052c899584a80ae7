"""Figures 1c and 4: the angular distances of a model, as curves and as a map."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import catalog
from lib.claims import rescaled
from lib.plotting import STYLE, save_figure
from lib.profiles import Profile
from lib.similarity import BlockDistances


def distance_table(maps: dict[str, BlockDistances], profile: Profile) -> pd.DataFrame:
    """d(l, l+n) of every block of every model, one row each, with the row-normalised value."""
    records = []
    for name, distances in maps.items():
        for size in range(1, distances.num_layers):
            row = distances.row(size)
            records.append(
                pd.DataFrame(
                    {
                        "profile": profile.name,
                        "model": name,
                        "block_start": np.arange(len(row)),
                        "block_size": size,
                        "value": row,
                        "standard_error": np.diagonal(distances.standard_error, size),
                        "normalised": rescaled(row),
                        "n": distances.num_sequences,
                    }
                )
            )
    return pd.concat(records, ignore_index=True)


def figure_1c(name: str, distances: BlockDistances, profile: Profile) -> Figure:
    """Figure 1c: d(x^(l), x^(l+n)) against l, a curve per n, the black line through l*(n)."""
    table = distance_table({name: distances}, profile)
    table = table[table.block_size <= max(profile.block_sizes(distances.num_layers))]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 4.2))
        colours = plt.get_cmap("viridis")
        deepest = table.block_size.max()
        for size, row in table.groupby("block_size"):
            shade = colours((size - 1) / max(deepest - 1, 1))
            axes.plot(row.block_start, row.value, color=shade, lw=1)
            low, high = row.value - row.standard_error, row.value + row.standard_error
            axes.fill_between(row.block_start, low, high, color=shade, alpha=0.3, lw=0)
        best = table.loc[table.groupby("block_size").value.idxmin()]
        axes.plot(best.block_start, best.value, "k.-", ms=4, lw=1, label="best start l*(n)")
        scale = plt.cm.ScalarMappable(plt.Normalize(1, deepest), colours)
        figure.colorbar(scale, ax=axes, label="block size n (layers)")
        axes.set(
            xlabel="block start l (layer)",
            ylabel="angular distance d(l, l+n)",
            title=f"{catalog.label(name)}, {distances.num_sequences} C4 sequences, ±1 s.e.",
        )
        axes.legend(loc="upper left")
        return save_figure(figure, table, "figure_1c", profile)


def figure_4(maps: dict[str, BlockDistances], profile: Profile) -> Figure:
    """Figure 4: a heatmap a model, x = l, y = n, each row rescaled to [0, 1]; yellow is similar."""
    table = distance_table(maps, profile)
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(1.5 + 4.2 * columns, 3.9 * rows), squeeze=False
        )
        for axis in axes.flat[len(maps) :]:
            axis.remove()
        for axis, (name, distances) in zip(axes.flat, maps.items(), strict=False):
            mine = table[table.model == name]
            grid = mine.pivot(index="block_size", columns="block_start", values="normalised")
            mesh = axis.pcolormesh(grid.columns, grid.index, grid, cmap="viridis_r", vmin=0, vmax=1)
            best = mine.loc[mine.groupby("block_size").value.idxmin()]
            axis.plot(best.block_start, best.block_size, "k.", ms=3, label="best start l*(n)")
            axis.set(
                xlabel="block start l (layer)",
                ylabel="block size n (layers)",
                title=f"{catalog.label(name)}, {distances.num_sequences} sequences",
            )
            axis.legend(loc="upper right")
        drawn = list(axes.flat[: len(maps)])
        figure.colorbar(mesh, ax=drawn, label="shifted, rescaled distance (0: most similar)")
        return save_figure(figure, table, "figure_4", profile)
