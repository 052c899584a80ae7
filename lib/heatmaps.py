"""Figures 1c and 4 and islands: the angular distances of a model, as curves and as a map."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import islands, registry
from lib.islands import rescaled
from lib.profiles import Profile
from lib.similarity import BlockDistances
from lib.style import STYLE, save_figure


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
            title=f"{registry.label(name)}, {distances.num_sequences} C4 sequences, ±1 s.e.",
        )
        axes.legend(loc="upper left")
        return save_figure(figure, table, "figure_1c", profile)


def figure_4(maps: dict[str, BlockDistances], profile: Profile) -> Figure:
    """Figure 4: a heatmap a model, x = l, y = n, each row rescaled to [0, 1]; yellow is similar."""
    table = distance_table(maps, profile)
    with plt.rc_context(STYLE):
        return save_figure(_heatmaps(maps, table)[0], table, "figure_4", profile)


def figure_islands(
    maps: dict[str, BlockDistances], profile: Profile, threshold: float = islands.THRESHOLD
) -> Figure:
    """Figure 4 with the deep band outlined in black and the islands in red, numbered.

    Its table has the `region` of each block: 0 not similar, 1 the band, 1 + i island i; none for
    blocks of more than half of the layers.
    """
    found = {name: islands.regions(d.matrix, threshold) for name, d in maps.items()}
    table = distance_table(maps, profile).assign(threshold=threshold, region=pd.NA)
    with plt.rc_context(STYLE):
        figure, axes = _heatmaps(maps, table)
        for axis, (name, regions) in zip(axes, found.items(), strict=True):
            searched = (table.model == name) & (table.block_size <= len(regions))
            blocks = table[searched]
            table.loc[searched, "region"] = regions[blocks.block_size - 1, blocks.block_start]
            _outline(axis, regions)
        return save_figure(figure, table, "figure_islands", profile)


def _outline(axis, regions) -> None:
    """Draw the borders of the deep band and of each island, with its number."""
    for label in range(islands.BAND, regions.max() + 1):
        shade = "black" if label == islands.BAND else "tab:red"
        x, y = islands.outline(regions == label)
        axis.plot(x, y, color=shade, lw=1.2)
        if label > islands.BAND:
            text = f"island {label - islands.BAND}"
            axis.text(np.nanmin(x), np.nanmax(y) + 0.1, text, color=shade, size=8)
    axis.axhline(len(regions) + 0.5, color="grey", lw=0.8, ls=":")
    count = int(regions.max()) - islands.BAND
    axis.set_title(axis.get_title() + f", {count or 'no'} island{'s' * (count != 1)}")


def _heatmaps(maps: dict[str, BlockDistances], table: pd.DataFrame) -> tuple[Figure, list]:
    """A map of the row-rescaled distances a model, three in a row; the figure and its axes."""
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
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
            title=f"{registry.label(name)}, {distances.num_sequences} sequences",
        )
        axis.legend(loc="upper right")
    drawn = list(axes.flat[: len(maps)])
    figure.colorbar(mesh, ax=drawn, label="shifted, rescaled distance (0: most similar)")
    return figure, drawn
