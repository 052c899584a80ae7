"""The damage map next to the distance map."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.models import registry
from replication.analysis.islands import rescaled
from replication.figures.heatmaps import block_map
from replication.figures.style import STYLE, WIDTH, colour, finished

LABELS = (  # of the colours of each column
    "damage, each row from 0 to 1",
    "block size $n$ (layers)",
)
BEST = {
    "distance": ("k.", {"ms": 4, "label": "most similar"}),
    "value": ("x", {"color": colour("damage map"), "ms": 4, "label": "least damage"}),
}


def figure_damage(tables: pd.DataFrame) -> Figure:
    """A row a model: the damage map, and the damage of every block against its distance.

    tables: of analysis.beside_distances.
    """
    rows = tables.groupby(["model", "block_size"])[["distance", "value"]]
    by_row = rows.transform(lambda row: rescaled(row.to_numpy()))
    tables = tables.join(by_row.add_suffix("_rescaled"))
    models = tables.groupby("model", sort=False)
    sizes = plt.Normalize(1, tables.block_size.max())
    with plt.rc_context(STYLE):
        size = WIDTH, 1.1 + 2.3 * len(models)
        figure, axes = plt.subplots(len(models), 2, figsize=size, squeeze=False)
        for (damage, scatter), (name, table) in zip(axes, models, strict=True):
            title = f"{registry.label(name)}, {table.n.iloc[0]} texts"
            block_map(damage, table, "value_rescaled", title, BEST)
            scatter.scatter(table.distance, table.value, c=table.block_size, norm=sizes, s=8)
            scatter.set(xlabel="angular distance", ylabel="rise of the C4 loss (nats)")
            scatter.set_yscale("symlog", linthresh=0.1)
        for column, label in enumerate(LABELS):
            colours = axes[0, column].collections[0]
            figure.colorbar(colours, ax=axes[:, column], label=label, location="bottom", aspect=25)
        return finished(figure, tables, legend="")
