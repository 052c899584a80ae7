"""Figures 1a to 1c and 4: the method drawn, one cut, and the distances of all blocks."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from lib.analysis import islands
from lib.analysis.islands import rescaled
from lib.blocks import Block, BlockDistances
from lib.figures.style import STYLE, save_figure
from lib.models import registry
from lib.profiles import Profile

STEPS = [
    ("measure", "one forward pass over C4:\nangular distance d(l, l+n)\nof every block"),
    ("choose", "for n layers to drop:\nl*(n) = argmin over l\nof d(l, l+n)"),
    ("cut", "drop layers l* … l*+n-1,\nfeed the input of layer l*\nto layer l*+n"),
    ("heal", "short QLoRA fine-tune\non C4 (optional)"),
    ("evaluate", "question answering\nand C4 loss against\nthe fraction dropped"),
]


def figure_1a(profile: Profile) -> Figure:
    """Figure 1a: the flow of the method, from an unpruned model to its pruning curve."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(11, 2))
        for i, (title, text) in enumerate(STEPS):
            axes.add_patch(FancyBboxPatch((i * 2.4, 0), 1.9, 1, boxstyle="round,pad=0.08", fc="w"))
            axes.text(i * 2.4 + 0.95, 0.85, title, ha="center", weight="bold")
            axes.text(i * 2.4 + 0.95, 0.4, text, ha="center", va="center", size=8)
            if i:
                arrow = {"arrowstyle": "->"}
                axes.annotate("", (i * 2.4 - 0.1, 0.5), (i * 2.4 - 0.4, 0.5), arrowprops=arrow)
        axes.set(xlim=(-0.2, 2.4 * len(STEPS) - 0.3), ylim=(-0.2, 1.2))
        axes.axis("off")
        steps = pd.DataFrame(STEPS, columns=["step", "what"])
        return save_figure(figure, steps, "figure_1a", profile)


def figure_1b(block: Block, num_layers: int, profile: Profile) -> Figure:
    """Figure 1b: the layers of a model, those of `block` crossed out, and the new connection."""
    kept = set(block.kept(num_layers))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(max(6, 0.36 * num_layers), 1.9))
        for l in range(num_layers):
            stays = l in kept
            shade = "#cfe3f5" if stays else "#eeeeee"
            axes.add_patch(Rectangle((l, 0), 0.8, 1, fc=shade, ec="black" if stays else "grey"))
            axes.text(l + 0.4, 0.5, str(l), ha="center", va="center", size=7)
            if not stays:
                axes.plot([l, l + 0.8], [0, 1], color="tab:red", lw=1)
        ends = (block.start - 0.1, 1.05), (block.stop + 0.3, 1.05)
        arrow = {"connectionstyle": "arc3,rad=-0.25", "arrowstyle": "->", "mutation_scale": 12}
        axes.add_patch(FancyArrowPatch(*ends, **arrow))
        middle = (block.start + block.stop) / 2
        after = f"layer {block.stop}" if block.stop < num_layers else "the final norm"
        text = f"x^({block.start}), the input of layer {block.start}, goes to {after}"
        axes.text(middle, 1.15 + 0.07 * block.size, text, ha="center", va="bottom", size=8)
        axes.set(xlim=(-0.6, num_layers + 0.6), ylim=(-0.2, 1.5 + 0.08 * block.size))
        axes.set_title(f"Block(start={block.start}, size={block.size}) of {num_layers} layers")
        axes.axis("off")
        drawn = pd.DataFrame({"layer": range(num_layers)})
        drawn["kept"] = drawn.layer.isin(kept)
        drawn["new_index"] = (drawn.kept.cumsum() - 1).where(drawn.kept).astype("Int64")
        return save_figure(figure, drawn, "figure_1b", profile)


def distance_table(maps: dict[str, BlockDistances], profile: Profile) -> pd.DataFrame:
    """d(l, l+n) of every block of every model, one row each, with the row-normalised value."""
    parts = []
    for name, distances in maps.items():
        for size in range(1, distances.num_layers):
            row = distances.row(size)
            told = {"profile": profile.name, "model": name}
            told |= {"block_start": np.arange(len(row)), "block_size": size, "value": row}
            told |= {"standard_error": np.diagonal(distances.standard_error, size)}
            told |= {"normalised": rescaled(row), "n": distances.num_sequences}
            parts.append(pd.DataFrame(told))
    return pd.concat(parts, ignore_index=True)


def figure_1c(name: str, distances: BlockDistances, profile: Profile) -> Figure:
    """Figure 1c: d(x^(l), x^(l+n)) against l, a curve per n, the black line through l*(n)."""
    table = distance_table({name: distances}, profile)
    table = table[table.block_size <= max(profile.block_sizes(distances.num_layers))]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 4.2))
        colours, deepest = plt.get_cmap("viridis"), table.block_size.max()
        for size, row in table.groupby("block_size"):
            shade = colours((size - 1) / max(deepest - 1, 1))
            axes.plot(row.block_start, row.value, color=shade, lw=1)
            low, high = row.value - row.standard_error, row.value + row.standard_error
            axes.fill_between(row.block_start, low, high, color=shade, alpha=0.3, lw=0)
        best = table.loc[table.groupby("block_size").value.idxmin()]
        axes.plot(best.block_start, best.value, "k.-", ms=4, lw=1, label="best start l*(n)")
        scale = plt.cm.ScalarMappable(plt.Normalize(1, deepest), colours)
        figure.colorbar(scale, ax=axes, label="block size n (layers)")
        axes.set(xlabel="block start l (layer)", ylabel="angular distance d(l, l+n)")
        axes.set_title(f"{registry.label(name)}, {distances.num_sequences} C4 sequences, ±1 s.e.")
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
    size = (1.5 + 4.2 * columns, 3.9 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat[len(maps) :]:
        axis.remove()
    drawn = list(axes.flat[: len(maps)])
    for axis, (name, distances) in zip(drawn, maps.items(), strict=True):
        title = f"{registry.label(name)}, {distances.num_sequences} sequences"
        marks = {"value": ("k.", {"ms": 3, "label": "best start l*(n)"})}
        mesh = block_map(axis, table[table.model == name], "normalised", title, marks)
    figure.colorbar(mesh, ax=drawn, label="shifted, rescaled distance (0: most similar)")
    return figure, drawn


def block_map(axis, table: pd.DataFrame, column: str, title: str, marks: dict, **colours):
    """A column of a table of blocks as a map, x = l, y = n; returns what a colour bar needs.

    marks: the column of which the least of each size is marked, and how. colours: cmap, vmin and
    vmax; by default those of rescaled values.
    """
    grid = table.pivot(index="block_size", columns="block_start", values=column)
    colours = {"cmap": "viridis_r", "vmin": 0, "vmax": 1} | colours
    mesh = axis.pcolormesh(grid.columns, grid.index, grid, **colours)
    for of, (mark, style) in marks.items():
        best = table.loc[table.groupby("block_size")[of].idxmin()]
        axis.plot(best.block_start, best.block_size, mark, **style)
    axis.set(xlabel="block start l (layer)", ylabel="block size n (layers)", title=title)
    axis.legend(loc="upper right")
    return mesh
