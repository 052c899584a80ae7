"""Shallow blocks against deep ones: their distances (claim 4) and their damage (claim 6)."""

import numpy as np
import pandas as pd

from lib.analysis.islands import rescaled
from lib.blocks import BlockDistances, similarity_block
from lib.models import registry


def depth_statistics(maps: dict[str, BlockDistances]) -> pd.DataFrame:
    """Claim 4, per model: are deep blocks more similar, and those with the last layer least?

    shallow, deep: mean distance of blocks of up to L/4 layers that lie wholly in the lower or the
    upper half of the model, without the first and the last layer. first, last: mean distance of
    blocks of up to L/2 layers that include that layer, each row rescaled to [0, 1] as in figure 4.
    """
    rows = [
        {"model": registry.label(name)} | depth_means(distances.matrix)
        for name, distances in maps.items()
    ]
    return pd.DataFrame(rows)


def depth_means(maps: np.ndarray) -> dict[str, np.ndarray]:
    """The means of `depth_statistics`, of one or many distance matrices (…, L+1, L+1)."""
    num_layers = maps.shape[-1] - 1
    half, quarter = num_layers // 2, max(1, num_layers // 4)

    def row(size):
        return np.diagonal(maps, size, axis1=-2, axis2=-1)

    lower = [row(n)[..., 1 : half - n + 1].mean(-1) for n in range(1, quarter + 1)]
    upper = [row(n)[..., half:-1].mean(-1) for n in range(1, quarter + 1)]
    ends = [rescaled(row(n))[..., [0, -1]] for n in range(1, half + 1)]
    first, last = np.moveaxis(np.mean(ends, axis=0), -1, 0)
    shallow, deep = np.mean(lower, axis=0), np.mean(upper, axis=0)
    return {"shallow": shallow, "deep": deep, "first": first, "last": last}


def lower_less_upper(damage: pd.DataFrame, num_layers: int) -> np.ndarray:
    """How much more the loss of each text rises without a shallow block than without a deep one.

    damage: the table of damage.measure, of one model. The blocks are those of `depth_statistics`;
    mean over their sizes of the mean over blocks, in nats a token: (texts,).
    """
    half, quarter = num_layers // 2, max(1, num_layers // 4)
    small = damage[damage.block_size <= quarter]
    stop = small.block_start + small.block_size

    def mean(first: int, last: int) -> np.ndarray:
        within = small[(small.block_start >= first) & (stop <= last)]
        rises = within.groupby("block_size").examples
        return np.mean([np.mean(list(of_size), axis=0) for _, of_size in rises], axis=0)

    return mean(1, half) - mean(half, num_layers - 1)


def best_starts(maps: dict[str, BlockDistances]) -> pd.DataFrame:
    """l*(n) of each model: the chosen block of every size, its distance and standard error."""
    rows = []
    for name, distances in maps.items():
        for size in range(1, distances.num_layers):
            block = similarity_block(distances, size)
            error = distances.standard_error[block.start, block.stop]
            told = {"value": distances.of(block), "standard_error": error}
            rows.append({"model": name, "block_size": size, "block_start": block.start} | told)
    return pd.DataFrame(rows)


def leaves_deep_band(distances: BlockDistances) -> int | None:
    """The first block size whose best start jumps from the deep band of similar layers down into
    the lower third of the model."""
    starts = np.array([distances.best_start(n) for n in range(1, distances.num_layers)])
    jumps = (starts[:-1] - starts[1:] > 1) & (starts[1:] < distances.num_layers / 3)
    return int(jumps.argmax()) + 2 if jumps.any() else None
