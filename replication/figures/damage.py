"""The damage map next to the distance map."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib.models import registry
from replication.analysis.islands import rescaled
from replication.figures.heatmaps import block_map
from replication.figures.style import STYLE, WIDTH, colour, finished

MAPS = (  # column, what its colours say, colours
    ("value_rescaled", "damage, each row from 0 to 1", {}),
    ("residual", "rank of damage − rank of distance", {"cmap": "coolwarm", "vmin": -1}),
)
BEST = {
    "distance": ("k.", {"ms": 4, "label": "most similar"}),
    "value": ("x", {"color": colour("damage map"), "ms": 4, "label": "least damage"}),
}


def figure_damage(tables: pd.DataFrame, correlations: pd.DataFrame) -> Figure:
    """A row a model: the damage map, where it and the distance map disagree, block by block.

    tables: of analysis.beside_distances; correlations: of analysis.rank_correlation.
    """
    rows = tables.groupby(["model", "block_size"])[["distance", "value"]]
    by_row = rows.transform(lambda row: rescaled(row.to_numpy()))
    tables = tables.join(by_row.add_suffix("_rescaled"))
    models = tables.groupby("model", sort=False)
    with plt.rc_context(STYLE):
        size = WIDTH, 1.1 + 2.3 * len(models)
        figure, axes = plt.subplots(len(models), 3, figsize=size, squeeze=False)
        for (*maps, scatter), (name, table) in zip(axes, models, strict=True):
            for axis, (column, _, colours) in zip(maps, MAPS, strict=True):
                block_map(axis, table, column, "", BEST, **colours)
            maps[0].set_title(f"{registry.label(name)}, {table.n.iloc[0]} texts", loc="left")
            _scatter(scatter, table, correlations[correlations.model == name])
        for column, (_, label, _) in enumerate(MAPS):
            mesh = axes[0, column].collections[0]
            figure.colorbar(mesh, ax=axes[:, column], label=label, location="bottom", aspect=25)
        return finished(figure, tables, legend="")


def _scatter(axis, table: pd.DataFrame, correlations: pd.DataFrame) -> None:
    """Draw damage against distance, a point a block, with their rank correlations."""
    columns = {"x": "distance", "y": "value", "hue": "block_size"}
    sns.scatterplot(table, **columns, palette="viridis", s=8, linewidth=0, ax=axis)
    axis.legend(title="block size $n$", fontsize=6, title_fontsize=7)
    axis.set(xlabel="angular distance", ylabel="rise of the C4 loss (nats)")
    axis.set_yscale("symlog", linthresh=0.1)
    texts = [f"{row.blocks}: {row.rank_correlation:.2f}" for row in correlations.itertuples()]
    axis.set_title("\n".join(["rank correlation", *texts]), loc="left", fontsize=7)
