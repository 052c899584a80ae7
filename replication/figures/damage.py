"""What dropping a block costs, and what running it twice costs, next to its distance."""

from textwrap import fill

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from replication.analysis.islands import rescaled
from replication.figures.heatmaps import block_map
from replication.figures.style import STYLE, WIDTH, colour, finished, label

MAPS = {"value": "dropped", "twice": "run twice"}  # columns and their titles
BEST = ("x", {"color": colour("damage map"), "ms": 4, "label": "least rise in loss"})
SIMILAR = ("k.", {"ms": 4, "label": "most similar"})


def figure_damage(tables: pd.DataFrame) -> Figure:
    """A row a model: the rise of the loss after dropping each block and, of those that were run
    twice, after that; and the rise by dropping against the distance.

    tables: of analysis.beside_distances, and the column twice where it was measured.
    """
    columns = [column for column in MAPS if column in tables]
    for column in columns:
        measured = tables[tables[column].notna()]  # of larger blocks none was run twice
        rows = measured.groupby(["model", "block_size"])[column]
        by_row = rows.transform(lambda row: rescaled(row.to_numpy()))
        tables = tables.join(by_row.rename(f"{column}_rescaled"))
    models = tables.groupby("model", sort=False)
    sizes = plt.Normalize(1, tables.block_size.max())
    with plt.rc_context(STYLE):
        shape = len(models), len(columns) + 1
        size = WIDTH, 1.1 + 2.3 * len(models)
        figure, axes = plt.subplots(*shape, figsize=size, squeeze=False)
        for (*maps, scatter), (name, table) in zip(axes, models, strict=True):
            for axis, column in zip(maps, columns, strict=True):
                title = f"{fill(label(name), 22)}\n{MAPS[column]}"
                measured = table[table[column].notna()]
                marks = {"distance": SIMILAR, column: BEST}
                mesh = block_map(axis, measured, f"{column}_rescaled", title, marks)
                axis.yaxis.get_major_locator().set_params(integer=True)
            for axis in maps[1:]:
                axis.set_ylabel("")  # that of the first map, which it would touch
            points = scatter.scatter(table.distance, table.value, c=table.block_size, norm=sizes)
            points.set_sizes([8])
            scatter.set(xlabel="angular distance", ylabel="rise after dropping (nats)")
            scatter.set_title(f"{table.n.iloc[0]} texts")
            scatter.set_yscale("symlog", linthresh=0.1)
        bars = {"location": "bottom", "aspect": 25}
        figure.colorbar(mesh, ax=axes[:, :-1], label="rise in loss, each row from 0 to 1", **bars)
        figure.colorbar(points, ax=axes[:, -1], label="block size $n$ (layers)", **bars)
        return finished(figure, tables, legend="")
