"""One map, three questions: may a block be dropped, may it run twice, and does its distance say so?

Notebook 12. People run blocks of a model a second time, on their own output, without any training.
As for a drop, the whole model is run once, and each version only from its block on.
"""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.blocks import UNPRUNED, Block
from lib.models import registry
from replication import measure
from replication.analysis.choice import spearman
from replication.analysis.islands import rescaled
from replication.figures.heatmaps import block_map
from replication.figures.style import STYLE, WIDTH, finished, nothing_measured
from replication.measure import damage, fetching
from replication.measure.request import Request
from replication.profiles import Profile

VERSION = 1  # bumped by hand when the numbers change
LARGEST = 3  # blocks of at most a third of the layers
FIRST = 3  # layers before this one begin no block that is compared: the first ones are special
NEAR = 2  # layers between two starts that count as the same place
COLUMNS = {"dropped": "dropped", "value": "run twice", "distance": "distance"}


@dataclass(frozen=True, order=True)
class Twice(Block):
    """A block that runs a second time: layer `stop` reads x^(start), and stop = start - its size.

    The size is negative: nothing is dropped, and a sweep goes back by so many layers.
    """

    def __post_init__(self):
        if self.start < 0 or self.stop < 0:
            raise ValueError(f"A block needs layers from 0 on, not {self}.")


def repeats(name: str, distances, profile: Profile) -> list[Request]:
    """Return the request of the loss with every block of at most a third of the layers run twice,
    on the first texts of the damage map."""
    first = damage.damage(name, distances, profile)[:1]
    own = {"largest": distances.num_layers // LARGEST, "repeats_version": VERSION}
    return [Request("repeats", one.params | own, one.labels) for one in first]


measure.TABLES["repeats"] = damage.table  # value: the rise of the loss by running it twice


def _rows(params: dict) -> list[dict]:
    """Return the losses of the whole model and with each block run twice, on each text."""
    from lib.models.decoder import decoder_layers  # here, since the plan loads no torch

    model, _ = fetching.loaded(params)
    blocks = damage.all_blocks(len(decoder_layers(model)), params["largest"])
    twice = [Twice(block.stop, -block.size) for block in blocks]
    rows = damage.losses(params, [UNPRUNED, *twice])
    places = [{"block_start": block.start, "block_size": block.size} for block in blocks]
    return [rows[0], *(row | place for row, place in zip(rows[1:], places, strict=True))]


fetching.MEASURE["repeats"] = fetching.each(_rows)


# ---- the statistics, and the figure ----------------------------------------------------------


def three_ways(repeats: pd.DataFrame, beside: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `repeats` with the column dropped, the rise by dropping each block on the
    same texts, and its distance. beside: of analysis.beside_distances."""
    key = ["model", "block_start", "block_size"]
    other = beside.set_index(key)[["examples", "distance"]].add_prefix("other_")
    rows = []
    for row in repeats.join(other, on=key).to_dict("records"):
        of_texts = np.average(row["other_examples"][: row["n"]], weights=row["weights"])
        rows.append(row | {"dropped": of_texts, "distance": row["other_distance"]})
    return pd.DataFrame(rows)


def summary(compared: pd.DataFrame) -> pd.DataFrame:
    """Return a row a model: the statistics of PREREGISTERED, `running a block twice`."""
    rows = []
    for model, blocks in compared.groupby("model", sort=False):
        sizes = [of_size for _, of_size in blocks.groupby("block_size")]
        starts = blocks.loc[blocks.groupby("block_size").value.idxmin(), "block_start"]
        to_drop = blocks.loc[blocks.groupby("block_size").dropped.idxmin(), "block_start"]
        later = blocks[blocks.block_start >= FIRST]
        row = {"model": model, "n": blocks.n.max(), "sizes": len(sizes)}
        for column in ("distance", "dropped"):
            row[f"rank correlation with {column}"] = np.mean(
                [spearman(of_size, column) for of_size in sizes]
            )
        row["sizes with starts alike"] = sum(abs(starts.to_numpy() - to_drop.to_numpy()) <= NEAR)
        row["cheaper than a drop"] = (later.value < later.dropped).mean()
        row["lowers the loss"] = (later.value < -2 * later.standard_error).mean()
        rows.append(row)
    return pd.DataFrame(rows)


def figure_repeat(compared: pd.DataFrame) -> Figure:
    """A row a model: the rise in loss after dropping and after repeating each block, and its
    distance, each row of a map from 0 to 1. Dots: the least of each size.

    compared: of `three_ways`.
    """
    if compared.empty:
        return nothing_measured(compared)
    rows = compared.groupby(["model", "block_size"])[list(COLUMNS)]
    by_row = rows.transform(lambda row: rescaled(row.to_numpy()))
    models = compared.join(by_row.add_suffix("_rescaled")).groupby("model", sort=False)
    with plt.rc_context(STYLE):
        size = WIDTH, 0.9 + 2.0 * len(models)
        figure, axes = plt.subplots(len(models), len(COLUMNS), figsize=size, squeeze=False)
        for of_model, (name, table) in zip(axes, models, strict=True):
            for axis, (column, title) in zip(of_model, COLUMNS.items(), strict=True):
                least = {column: ("k.", {"ms": 4, "label": "least of each size"})}
                title = f"{registry.label(name)}\n{title}"
                mesh = block_map(axis, table, f"{column}_rescaled", title, least)
        label = "each row from 0 to 1"
        figure.colorbar(mesh, ax=axes, label=label, location="bottom", aspect=40)
        return finished(figure, compared, legend="")
