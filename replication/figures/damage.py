"""The damage map next to the distance map."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.models import registry
from replication.analysis.islands import rescaled
from replication.figures.heatmaps import block_map
from replication.figures.style import STYLE, WIDTH, save_figure
from replication.profiles import Profile

MAPS = (  # column, title, colours
    ("distance_rescaled", "distance (rescaled by row)", {}),
    ("value_rescaled", "damage (rescaled by row)", {}),
    ("residual", "ranks: damage − distance\n(red: hurts more)", {"cmap": "coolwarm", "vmin": -1}),
)
BEST = {
    "distance": ("k.", {"ms": 4, "mew": 0.8, "label": "most similar"}),
    "value": ("x", {"color": "#c51b7d", "ms": 4, "mew": 0.8, "label": "least damage"}),
}


def figure_damage(tables: pd.DataFrame, correlations: pd.DataFrame, profile: Profile) -> Figure:
    """A row a model: the distance map, the damage map, where they disagree, block by block.

    tables: of analysis.beside_distances; correlations: of analysis.rank_correlation.
    """
    rows = tables.groupby(["model", "block_size"])[["distance", "value"]]
    by_row = rows.transform(lambda row: rescaled(row.to_numpy()))
    tables = tables.join(by_row.add_suffix("_rescaled"))
    count = tables.model.nunique()
    models = tables.groupby("model", sort=False)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2 * count, 2, figsize=(WIDTH, 6.3 * count))
        panels = axes.reshape(count, 4)
        for (*maps, scatter), (name, table) in zip(panels, models, strict=True):
            for axis, (column, title, colours) in zip(maps, MAPS, strict=True):
                image = block_map(axis, table, column, title, BEST, **colours)
                figure.colorbar(image, ax=axis)
            of_model = correlations[correlations.model == name]
            title = f"{registry.label(name)}, {table.n.iloc[0]} texts"
            _scatter(scatter, table, of_model, title)
        return save_figure(figure, tables, "figure_damage", profile, legend="")


def _scatter(axis, table: pd.DataFrame, correlations: pd.DataFrame, title: str) -> None:
    """Damage against distance, a point a block; the deeper the yellow, the larger the block."""
    lines = ["angular distance"]
    for row in correlations.itertuples():
        interval = f"[{row.low:.2f}, {row.high:.2f}]"
        lines.append(f"{row.blocks}: ρ = {row.rank_correlation:.2f} {interval}")
    sizes = table.block_size
    points = axis.scatter(table.distance, table.value, c=sizes, cmap="viridis", s=8)
    axis.figure.colorbar(points, ax=axis, label="block size $n$ (layers)")
    axis.set(xlabel="\n".join(lines), ylabel="rise of the C4 loss (nats)", title=title)
    axis.set_yscale("symlog", linthresh=0.1)
