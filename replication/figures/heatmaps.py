"""Figures 1a to 1c and 4: the method drawn, one cut, and the distances of all blocks."""

from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from lib.blocks import Block, BlockDistances
from lib.models import registry
from replication.analysis import islands
from replication.analysis.curves import SIGNAL
from replication.analysis.islands import rescaled
from replication.figures.style import STYLE, WIDTH, colour, finding, finished

STEPS = [  # and the notebook that shows each
    ("measure", "one forward pass\nover C4: angular\ndistance $d(l, l+n)$\nof every block", "01"),
    ("choose", "for $n$ layers to drop:\n$l^*(n) = $ argmin\nover $l$ of $d(l, l+n)$", "01"),
    ("cut", "drop $n$ layers from\n$l^*$ on; its input\ngoes to layer $l^*+n$", "02"),
    ("heal", "short QLoRA\nfine-tune on C4\n(optional)", "03"),
    ("evaluate", "question answering\nand C4 loss against\nthe fraction dropped", "02, 03"),
]
FILLS = {True: (colour("kept"), "black"), False: ("0.93", "grey")}  # of a layer kept or not
NAMED = (1, 3, 10)  # sizes whose curves of figure 1c have a name
APART = 2.4  # from one step of figure 1a to the next; each is 2 wide


def figure_1a() -> Figure:
    """Figure 1a: the flow of the method, from an unpruned model to its pruning curve."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 1.7))
        for place, (title, text, notebook) in enumerate(STEPS):
            left, middle = APART * place, APART * place + 1
            box = FancyBboxPatch((left, 0), 2.0, 1, "round,pad=0.08", fc=FILLS[True][0])
            axes.add_patch(box)
            axes.text(middle, 0.87, title, ha="center", weight="bold", size=9)
            axes.text(middle, 0.38, text, ha="center", va="center", size=7.5)
            axes.text(middle, -0.22, f"notebook {notebook}", ha="center", va="top", size=7.5)
            if place:
                ends = (left - 0.06, 0.5), (left - 0.34, 0.5)
                axes.annotate("", *ends, arrowprops={"arrowstyle": "->"})
        axes.set(xlim=(-0.15, APART * len(STEPS) - 0.25), ylim=(-0.4, 1.1))
        axes.axis("off")
        steps = pd.DataFrame(STEPS, columns=["step", "what", "notebook"])
        return finished(figure, steps)


def figure_1b(block: Block, num_layers: int) -> Figure:
    """Figure 1b: the layers of a model, those of `block` crossed out, the others numbered anew."""
    drawn = pd.DataFrame({"layer": range(num_layers)})
    drawn["kept"] = drawn.layer.isin(set(block.kept(num_layers)))
    drawn["new_index"] = (drawn.kept.cumsum() - 1).where(drawn.kept).astype("Int64")
    around = num_layers if num_layers <= 40 else 8  # layers that are drawn on either side
    near = drawn[drawn.layer.between(block.start - around, block.stop + around - 1)]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 1.8))
        for row in near.itertuples():
            _layer(axes, row)
        ends = (block.start - 0.1, 1.05), (block.stop + 0.4, 1.05)
        arrow = FancyArrowPatch(
            *ends, connectionstyle="arc3,rad=-0.2", arrowstyle="->", mutation_scale=12
        )
        axes.add_patch(arrow)
        target = f"layer {block.stop}" if block.stop < num_layers else "the final norm"
        text = f"$x^{{({block.start})}}$, the input of layer {block.start}, goes to {target}"
        middle = (block.start + block.stop) / 2
        height = 1.3 + 0.06 * block.size
        axes.text(middle, height, text, ha="center", va="bottom", size=9)
        first, last = near.layer.min(), near.layer.max()
        axes.text(first, -0.6, "new numbers", va="top", size=8)
        axes.set(xlim=(first - 0.6, last + 1.6), ylim=(-1, height + 0.5))
        axes.set_title(f"Block(start={block.start}, size={block.size}) of {num_layers} layers")
        axes.axis("off")
        return finished(figure, drawn)


def _layer(axes, row) -> None:
    """A layer with its number; below it its new number, or across it a slash."""
    left, middle = row.layer, row.layer + 0.42
    fill, edge = FILLS[row.kept]
    axes.add_patch(Rectangle((left, 0), 0.85, 1, fc=fill, ec=edge))
    back = {"fc": fill, "ec": "none", "pad": 0.5}  # of the number, over the slash
    axes.text(middle, 0.5, row.layer, bbox=back, ha="center", va="center", size=7.5)
    if row.kept:
        axes.text(middle, -0.3, row.new_index, ha="center", va="center", size=7.5)
    else:
        axes.plot([left, left + 0.85], [0, 1], color=colour("dropped"), lw=1)


def distance_table(maps: dict[str, BlockDistances]) -> pd.DataFrame:
    """d(l, l+n) of every block of every model, one row each, with the row-normalised value."""
    tables = []
    for name, distances in maps.items():
        for size in range(1, distances.num_layers):
            row = distances.row(size)
            columns = {
                "model": name,
                "block_start": np.arange(len(row)),
                "block_size": size,
                "value": row,
                "standard_error": np.diagonal(distances.standard_error, size),
                "normalised": rescaled(row),
                "n": distances.num_sequences,
            }
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _degrees(half_turns):
    return 180 * half_turns


def _half_turns(degrees):
    return degrees / 180


def figure_1c(name: str, distances: BlockDistances, deepest: int) -> Figure:
    """Figure 1c: d(x^(l), x^(l+n)) against l, a curve per n, the black line through l*(n).

    deepest: the largest n that is drawn.
    """
    table = distance_table({name: distances})
    table = table[table.block_size <= deepest]
    colours = plt.get_cmap("viridis")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 4.2))
        for size, row in table.groupby("block_size"):
            shade = colours((size - 1) / max(deepest - 1, 1))
            axes.plot(row.block_start, row.value, color=shade, lw=1)
            if size in (*NAMED, deepest):
                end = row.iloc[-1]
                axes.text(end.block_start + 0.3, end.value, f"$n$ = {size}", va="center", size=8)
        best = table.loc[table.groupby("block_size").value.idxmin()]
        axes.plot(best.block_start, best.value, "k.:", ms=5, lw=1, label="best start $l^*(n)$")
        scale = plt.cm.ScalarMappable(plt.Normalize(1, deepest), colours)
        whole = MaxNLocator(integer=True)
        figure.colorbar(scale, ax=axes, label="block size $n$ (layers)", ticks=whole)
        degrees = axes.secondary_yaxis("right", functions=(_degrees, _half_turns))
        degrees.set_ylabel("degrees")
        axes.set(xlabel="block start $l$ (layer)", ylabel="angular distance $d(l, l+n)$")
        axes.set_title(f"{registry.label(name)}, {distances.num_sequences} C4 sequences")
        axes.legend(loc="upper right")
        _least_similar(axes, table)
        return finished(figure, table)


def _least_similar(axes, table: pd.DataFrame) -> None:
    """Write which end of the model holds the least similar block at most sizes, if one does; it
    counts where it is far beyond its error less similar than the block in the middle."""
    sizes = table.groupby("block_size")
    worst = table.loc[sizes.value.idxmax()]
    beyond = worst.value.to_numpy() - sizes.value.median().to_numpy()
    far = beyond >= SIGNAL * worst.standard_error.to_numpy()
    for end, starts in (("first", sizes.block_start.min()), ("last", sizes.block_start.max())):
        there = worst[far & (worst.block_start.to_numpy() == starts.to_numpy())]
        if 2 * len(there) > len(worst):
            at = there.iloc[len(there) // 2]
            text = f"with the {end} layer: least similar\nat {len(there)} of {len(worst)} sizes"
            finding(axes, text, (at.block_start, at.value), (40, -14))
            return


def figure_4(maps: dict[str, BlockDistances]) -> Figure:
    """Figure 4: a heatmap a model, x = l, y = n, each row rescaled to [0, 1]; yellow is similar."""
    table = distance_table(maps)
    with plt.rc_context(STYLE):
        figure, _ = _heatmaps(maps, table)
        return finished(figure, table, legend="")


def figure_islands(maps: dict[str, BlockDistances], threshold: float = islands.THRESHOLD) -> Figure:
    """Figure 4 with the main region outlined in black and the islands in magenta, numbered.

    Its table has the `region` of each block: 0 not similar, 1 the band, 1 + i island i; none for
    blocks of more than half of the layers.
    """
    table = distance_table(maps).assign(threshold=threshold, region=pd.NA)
    with plt.rc_context(STYLE):
        figure, axes = _heatmaps(maps, table)
        for axis, (name, distances) in zip(axes, maps.items(), strict=True):
            regions = islands.regions(distances.matrix, threshold)
            searched = (table.model == name) & (table.block_size <= len(regions))
            blocks = table[searched]
            table.loc[searched, "region"] = regions[blocks.block_size - 1, blocks.block_start]
            draw_regions(axis, regions)
        return finished(figure, table, legend="")


def draw_regions(axis, regions: np.ndarray) -> None:
    """Draw the borders of the main region and of each island, with its number next to it."""
    edge = [withStroke(linewidth=3, foreground="white")]
    count = int(regions.max()) - islands.BAND
    x, y = islands.outline(regions == islands.BAND)
    axis.plot(x, y, lw=1.3, label="main region", color="black", path_effects=edge)
    for number in range(1, count + 1):
        x, y = islands.outline(regions == islands.BAND + number)
        axis.plot(x, y, lw=1.3, label="island", color=colour("island"), path_effects=edge)
        axis.annotate(
            number,
            (np.nanmax(x), np.nanmax(y)),
            xytext=(7, 26),
            textcoords="offset points",
            arrowprops={"arrowstyle": "-"},
            color=colour("island"),
            path_effects=edge,
        )
    axis.axhline(len(regions) + 0.5, color="grey", ls=":", label="searched up to here")
    in_words = f"{count or 'no'} island{'s' * (count != 1)}"
    axis.set_title(f"{axis.get_title('left')}\n{in_words}", loc="left")


def _heatmaps(maps: dict[str, BlockDistances], table: pd.DataFrame) -> tuple[Figure, list]:
    """A map of the row-rescaled distances a model, three in a row; the figure and its axes."""
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    width = WIDTH if columns > 1 else 4.5
    height = 0.9 + 6.6 / max(columns, 2) * rows
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    drawn = list(axes.flat[: len(maps)])
    for axis in axes.flat[len(maps) :]:
        axis.remove()
    marks = {"value": ("k.", {"ms": 3, "label": "best start $l^*(n)$"})}
    for axis, (name, distances) in zip(drawn, maps.items(), strict=True):
        mesh = block_map(axis, table[table.model == name], "normalised", "", marks)
        axis.set_title(fill(registry.label(name), 27), loc="left")  # as wide as a map
        texts = f"{distances.num_sequences} texts"  # in the corner that no block fills
        axis.text(1, 1, texts, ha="right", va="top", fontsize=7, transform=axis.transAxes)
    bar = figure.colorbar(mesh, ax=drawn, label="distance, each row from 0 to 1", aspect=30)
    bar.ax.set_yticks([0, 1], ["0: most\nsimilar", "1"], fontsize=8)
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
    axis.set(xlabel="block start $l$ (layer)", ylabel="block size $n$ (layers)", title=title)
    return mesh
