"""Figures 1a to 1c and 4: the method drawn, one cut, and the distances of all blocks.

Where a model is one of the paper's, the starts that others publish for it are marked.
"""

import json
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.blocks import Block, BlockDistances
from lib.models import registry
from replication import paths
from replication.analysis import islands
from replication.analysis.islands import rescaled
from replication.figures.style import (
    STYLE,
    WIDTH,
    colour,
    finished,
    label,
    look,
    note_above,
)

STEPS = [  # and the notebook that shows each
    ("measure", "one forward pass\nover C4: angular\ndistance $d(l, l+n)$\nof every block", "01"),
    ("choose", "for $n$ layers to drop:\n$l^*(n) = $ argmin\nover $l$ of $d(l, l+n)$", "01"),
    ("cut", "drop $n$ layers from\n$l^*$ on; its input\ngoes to layer $l^*+n$", "02"),
    ("heal", "short QLoRA\nfine-tune on C4\n(optional)", "03"),
    ("evaluate", "question answering\nand C4 loss against\nthe fraction dropped", "02, 03"),
]
FINE = 16  # points of an outline along a block
PUBLISHED = "$l^*(n)$ of third-party scripts"
MARK = {"ls": "", "ms": 4, "mfc": "none", "label": PUBLISHED} | look("published")
UNCONFIRMED = "Published: by third-party scripts of unconfirmed origin; the paper prints no l*(n)."


def figure_1a() -> Figure:
    """Figure 1a: the flow of the method, from an unpruned model to its pruning curve."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 1.5))
        box = {"boxstyle": "round", "fc": colour("kept")}
        for place, (title, text, notebook) in enumerate(STEPS):
            words = f"$\\bf{{{title}}}$\n\n{text}\n\nnotebook {notebook}"
            axes.text(place, 0, words, ha="center", va="center", size=7.5, bbox=box)
            if place:
                ends = (place - 0.42, 0), (place - 0.58, 0)
                axes.annotate("", *ends, arrowprops={"arrowstyle": "->"})
        axes.set(xlim=(-0.5, len(STEPS) - 0.5), ylim=(-1, 1))
        axes.axis("off")
        steps = pd.DataFrame(STEPS, columns=["step", "what", "notebook"])
        return finished(figure, steps)


def figure_1b(block: Block, num_layers: int) -> Figure:
    """Figure 1b: the layers of a model, those of `block` hatched, the others numbered anew."""
    table = pd.DataFrame({"layer": range(num_layers)})
    table["kept"] = table.layer.isin(set(block.kept(num_layers)))
    table["new_index"] = (table.kept.cumsum() - 1).where(table.kept).astype("Int64")
    dropped = table[~table.kept]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 1.8))
        axes.bar(table.layer, 1, 0.85, color=colour("kept"), edgecolor="black")
        axes.bar(dropped.layer, 1, 0.85, color="white", edgecolor=colour("dropped"), hatch="//")
        style = {"ha": "center", "va": "center", "size": 7.5}
        for row in table.itertuples():
            axes.text(row.layer, 0.5, row.layer, bbox={"fc": "white", "pad": 1, "lw": 0}, **style)
            axes.text(row.layer, -0.3, row.new_index if row.kept else "", **style)
        ends = (block.stop, 1.05), (block.start, 1.05)
        arrow = {"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.2"}
        axes.annotate("", *ends, arrowprops=arrow)
        target = f"layer {block.stop}" if block.stop < num_layers else "the final norm"
        text = f"$x^{{({block.start})}}$, the input of layer {block.start}, goes to {target}"
        height = 1.3 + 0.06 * block.size
        axes.text((block.start + block.stop) / 2, height, text, ha="center", va="bottom", size=9)
        axes.text(0, -0.6, "new numbers", va="top", size=8)
        axes.set_ylim(-1, height + 0.5)
        axes.set_title(f"Block(start={block.start}, size={block.size}) of {num_layers} layers")
        axes.axis("off")
        return finished(figure, table)


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


def figure_1c(name: str, distances: BlockDistances, deepest: int) -> Figure:
    """Figure 1c: d(x^(l), x^(l+n)) against l, a curve per n, the black line through l*(n).

    deepest: the largest n that is drawn.
    """
    table = distance_table({name: distances})
    table = table[table.block_size <= deepest]
    best = _least(table, "value")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 4.2))
        columns = {"x": "block_start", "y": "value", "hue": "block_size"}
        style = {"palette": "viridis", "estimator": None, "lw": 1, "legend": False}
        sns.lineplot(table, **columns, **style, ax=axes)
        shades = plt.cm.ScalarMappable(plt.Normalize(1, deepest), "viridis")
        bar = {"aspect": 30, "pad": 0.02, "ticks": MaxNLocator(integer=True)}
        figure.colorbar(shades, ax=axes, label="block size $n$ (layers)", **bar)
        axes.plot(best.block_start, best.value, "k.:", ms=5, lw=1, label="best start $l^*(n)$")
        published = published_starts(name, distances.num_layers)
        starts = {n: l for n, l in published.items() if n <= deepest}
        if starts:
            heights = [distances.of(Block(start, n)) for n, start in starts.items()]
            axes.plot(starts.values(), heights, **MARK)
        degrees = axes.secondary_yaxis("right", functions=(lambda d: 180 * d, lambda d: d / 180))
        degrees.set_ylabel("degrees")
        axes.set(xlabel="block start $l$ (layer)", ylabel="angular distance $d(l, l+n)$")
        axes.set_title(f"{registry.label(name)}, {distances.num_sequences} texts")
        return finished(figure, table, legend="")


def published_starts(name: str, num_layers: int) -> dict[int, int]:
    """Return l*(n) of a model by n, as third-party scripts have it for four of the paper's seven;
    empty for all others, and for a copy with fewer layers."""
    file = paths.DATA / "published.json"
    best_starts = json.loads(file.read_text(encoding="utf-8"))["best_starts"]
    starts = dict(enumerate(best_starts.get(name, []), start=1))
    fits = all(start + n <= num_layers for n, start in starts.items())
    return starts if fits else {}


def figure_starts(maps: dict[str, BlockDistances]) -> Figure:
    """Where the rule cuts: l*(n) against n, both as fractions of the layers. Lines: of maps;
    hollow marks: of the paper's models, from third-party scripts."""
    rows = []
    for name, distances in maps.items():
        layers = distances.num_layers
        starts = {n: distances.best_start(n) for n in range(1, layers)}
        rows += [(name, layers, n, start, "measured") for n, start in starts.items()]
    published = json.loads((paths.DATA / "published.json").read_text(encoding="utf-8"))
    _, *models = published["best_starts"]  # the first one is their source
    for name in models:
        layers = registry.num_layers(name)
        rows += [
            (name, layers, n, l, "published") for n, l in published_starts(name, layers).items()
        ]
    table = pd.DataFrame(rows, columns=["model", "layers", "block_size", "block_start", "source"])
    table["fraction"] = table.block_size / table.layers
    table["start_fraction"] = table.block_start / table.layers
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 3.8))
        for (name, source), line in table.groupby(["model", "source"], sort=False):
            own = {"ls": "-", "marker": ".", "ms": 5, "lw": 1.2, "label": label(name)}
            others = {"ls": "", "marker": "D", "ms": 3.5, "mfc": "none"}
            others["label"] = f"{label(name)}, published"
            style = own if source == "measured" else others
            axes.plot(line.fraction, line.start_fraction, color=colour(name), **style)
        axes.plot([0, 1], [1, 0], color="grey", ls=":", lw=1, label="as deep as a block fits")
        axes.set(xlabel="fraction of layers dropped, $n/L$", xlim=(0, 1), ylim=(0, 1))
        axes.set_ylabel("where the block begins, $l^*(n)/L$")
        note_above(figure, UNCONFIRMED)
        return finished(figure, table, legend="")


def _least(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the row of each block size where a column is least."""
    return table.loc[table.groupby("block_size")[column].idxmin()]


def figure_4(maps: dict[str, BlockDistances]) -> Figure:
    """Figure 4: a heatmap a model, x = l, y = n, each row rescaled to [0, 1]; yellow is similar."""
    table = distance_table(maps)
    with plt.rc_context(STYLE):
        figure, axes = _heatmaps(maps, table)
        for axis, name in zip(axes, maps, strict=True):
            if starts := published_starts(name, maps[name].num_layers):
                axis.plot(starts.values(), starts.keys(), **MARK)
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
    count = int(regions.max()) - islands.BAND
    for region in range(islands.BAND, islands.BAND + count + 1):
        number = region - islands.BAND
        name, shade = ("island", colour("island")) if number else ("main region", "black")
        mask = np.pad(regions == region, 1)
        ends = (-1.5, mask.shape[1] - 1.5, -0.5, len(mask) - 0.5)  # of l and n, one around them
        fine = mask.repeat(FINE, 0).repeat(FINE, 1)  # so that the line follows the blocks
        axis.contour(fine, [0.5], colors=[shade], origin="lower", extent=ends)
        axis.plot([], [], color=shade, label=name)
        if number:
            last_row, last_start = np.argwhere(regions == region).max(axis=0)
            box = {"fc": "white", "lw": 0, "pad": 0.5}
            axis.text(last_start, last_row + 2.5, number, color=shade, fontsize=8, bbox=box)
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
        axis.set_title(fill(label(name), 22), loc="left")  # narrower than a map
        texts = f"{distances.num_sequences} texts"  # in the corner that no block fills
        axis.text(1, 1, texts, ha="right", va="top", fontsize=8, transform=axis.transAxes)
    bar = figure.colorbar(mesh, ax=drawn, label="distance, each row from 0 to 1", aspect=30)
    bar.ax.set_yticks([0, 1], ["0: most\nsimilar", "1"], fontsize=8)
    return figure, drawn


def block_map(axis, table: pd.DataFrame, column: str, title: str, marks: dict):
    """A column of rescaled values as a map of blocks, x = l, y = n; returns what a bar needs.

    marks: the column of which the least of each size is marked, and how.
    """
    grid = table.pivot(index="block_size", columns="block_start", values=column)
    colours = {"cmap": "viridis_r", "vmin": 0, "vmax": 1}
    mesh = axis.pcolormesh(grid.columns, grid.index, grid, **colours)
    for least, (mark, style) in marks.items():
        best = _least(table, least)
        axis.plot(best.block_start, best.block_size, mark, **style)
    axis.set(xlabel="block start $l$ (layer)", ylabel="block size $n$ (layers)", title=title)
    return mesh
