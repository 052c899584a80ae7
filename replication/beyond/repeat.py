"""One map, three questions: may a block be dropped, may it run twice, and does its distance say so?

Notebook 12. People run blocks of a model a second time, on their own output, without any training.
As for a drop, the whole model is run once, and each version only from its block on.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib.blocks import UNPRUNED, Block
from replication import measure
from replication.analysis.choice import spearman
from replication.measure import damage, fetching
from replication.measure.request import Request
from replication.profiles import Profile
from replication.tables import BLOCK

VERSION = 1  # bumped by hand when the numbers change
LARGEST = 3  # blocks of at most a third of the layers
FIRST = 3  # layers before this one begin no block that is compared: the first ones are special
BLOCKS = ("model", *BLOCK)
NEAR = 2  # layers between two starts that count as the same place


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


# ---- the statistics --------------------------------------------------------------------------


def beside_drops(repeats: pd.DataFrame, beside: pd.DataFrame) -> pd.DataFrame:
    """Return the rise of each block that was dropped, and of those that ran twice.

    The rows of analysis.beside_distances, and the columns twice and its twice_error, and dropped:
    the rise by dropping the block on the same texts.
    """
    twice = repeats.set_index([*BLOCKS])[["value", "standard_error", "weights"]]
    twice.columns = ["twice", "twice_error", "twice_weights"]
    joined = beside.join(twice, on=[*BLOCKS])
    ran_twice = joined.twice.notna()
    joined.loc[ran_twice, "dropped"] = [
        np.average(rises[: len(weights)], weights=weights)
        for rises, weights in joined.loc[ran_twice, ["examples", "twice_weights"]].to_numpy()
    ]
    return joined.drop(columns="twice_weights")


def summary(compared: pd.DataFrame) -> pd.DataFrame:
    """Return a row a model of `beside_drops`: what PREREGISTERED asks of a block run twice."""
    rows = []
    compared = compared[compared.twice.notna()].assign(value=lambda blocks: blocks.twice)
    for model, blocks in compared.groupby("model", sort=False):
        by_size = blocks.groupby("block_size")
        starts = {
            column: blocks.loc[by_size[column].idxmin(), "block_start"].to_numpy()
            for column in ("twice", "dropped")
        }
        row = {"model": model, "sizes": len(by_size)}
        for column in ("distance", "dropped"):
            correlations = [spearman(of_size, column) for _, of_size in by_size]
            row[f"rank correlation with {column}"] = np.mean(correlations)
        row["starts alike"] = sum(abs(starts["twice"] - starts["dropped"]) <= NEAR)
        later = blocks[blocks.block_start >= FIRST]
        row["cheaper than a drop"] = (later.twice < later.dropped).mean()
        row["lowers the loss"] = (later.twice < -2 * later.twice_error).mean()
        rows.append(row)
    return pd.DataFrame(rows)
