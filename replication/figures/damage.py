"""The damage map next to the distance map."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.models import registry
from replication.analysis.curves import SIGNAL
from replication.analysis.islands import rescaled
from replication.figures.heatmaps import block_map
from replication.figures.style import STYLE, WIDTH, colour, finding, finished

MAPS = (  # column, what its colours say, colours
    ("value_rescaled", "damage, each row from 0 to 1", {}),
    ("residual", "rank of damage − rank of distance", {"cmap": "coolwarm", "vmin": -1}),
)
BEST = {
    "distance": ("k.", {"ms": 4, "mew": 0.8, "label": "most similar"}),
    "value": ("x", {"color": colour("damage map"), "ms": 4, "mew": 0.8, "label": "least damage"}),
}
HURTS = 0.25  # mean difference of ranks from which on a column of blocks is worth a word


def figure_damage(tables: pd.DataFrame, correlations: pd.DataFrame) -> Figure:
    """A row a model: the damage map, where it and the distance map disagree, block by block.

    tables: of analysis.beside_distances; correlations: of analysis.rank_correlation.
    """
    rows = tables.groupby(["model", "block_size"])[["distance", "value"]]
    by_row = rows.transform(lambda row: rescaled(row.to_numpy()))
    tables = tables.join(by_row.add_suffix("_rescaled"))
    count = tables.model.nunique()
    models = tables.groupby("model", sort=False)
    sizes = plt.Normalize(1, tables.block_size.max())
    with plt.rc_context(STYLE):
        size = WIDTH, 1.1 + 2.3 * count
        figure, axes = plt.subplots(count, 3, figsize=size, squeeze=False)
        for (*maps, scatter), (name, table) in zip(axes, models, strict=True):
            for axis, (column, _, colours) in zip(maps, MAPS, strict=True):
                block_map(axis, table, column, "", BEST, **colours)
            maps[0].set_title(f"{registry.label(name)}, {table.n.iloc[0]} texts", loc="left")
            _scatter(scatter, table, correlations[correlations.model == name], sizes)
        for column, (_, label, _) in enumerate(MAPS):
            bar = axes[0, column].collections[0]
            figure.colorbar(bar, ax=axes[:, column], label=label, location="bottom", aspect=25)
        points = axes[0, 2].collections[0]
        label = "block size $n$ (layers)"
        figure.colorbar(points, ax=axes[:, 2], label=label, location="bottom", aspect=25)
        _say_which_column(axes[:, 1], models)
        return finished(figure, tables, legend="")


def _say_which_column(axes, models) -> None:
    """Write from which layer on blocks hurt most beyond their distance, in the model where it is
    most; of blocks of up to a third of the layers, if it is much and most are far beyond their
    error."""
    columns = []
    for axis, (_, table) in zip(axes, models, strict=True):
        small = table[table.block_size <= (table.block_start.max() + 1) // 3]
        residuals = small.groupby("block_start").residual.mean()
        layer = residuals.idxmax()
        worst = small[small.block_start == layer]
        far = worst.value >= SIGNAL * worst.standard_error
        if residuals[layer] > HURTS and far.mean() > 0.5:
            columns.append((residuals[layer], layer, small.block_size.max(), axis))
    for _, layer, height, axis in sorted(columns, key=lambda column: column[0])[-1:]:
        finding(axis, f"from layer {layer} on:\nhurt more", (layer, height), (16, 52))


def _scatter(axis, table: pd.DataFrame, correlations: pd.DataFrame, sizes) -> None:
    """Damage against distance, a point a block; the deeper the yellow, the larger the block."""
    lines = ["rank correlation:"]
    for row in correlations.itertuples():
        lines.append(f"{row.blocks}\n{row.rank_correlation:.2f} [{row.low:.2f}, {row.high:.2f}]")
    axis.scatter(table.distance, table.value, c=table.block_size, cmap="viridis", norm=sizes, s=8)
    axis.set(xlabel="angular distance", ylabel="rise of the C4 loss (nats)")
    axis.set_yscale("symlog", linthresh=0.1)
    text = "\n".join(lines)
    axis.text(0.99, 0.03, text, ha="right", fontsize=7.5, transform=axis.transAxes)
