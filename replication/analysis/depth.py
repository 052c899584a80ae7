"""Shallow blocks against deep ones: their distances (claim 4) and their damage (claim 6)."""

import numpy as np
import pandas as pd

from lib.blocks import BlockDistances, blocks_of
from lib.models import registry


def depth_statistics(maps: dict[str, BlockDistances]) -> pd.DataFrame:
    """Claim 4, per model: are deep blocks more similar, and those with the last layer least?

    shallow, deep: mean distance of blocks of up to L/4 layers that lie wholly in the lower or the
    upper half of the model, without the first and the last layer. last_is_least, and the same
    without_first: the share of sizes up to L/2 at which the block with the last layer is the least
    similar of all blocks, or of those without the first layer.
    """
    rows = []
    for name, distances in maps.items():
        shallow, deep = halves(distances.matrix)
        least = {"last_is_least": last_is_least(distances.matrix)}
        least |= {"without_first": last_is_least(distances.matrix, 1)}
        rows.append({"model": registry.label(name), "shallow": shallow, "deep": deep} | least)
    return pd.DataFrame(rows)


def halves(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean distances (shallow, deep) of one or many distance matrices (…, L+1, L+1)."""
    num_layers = maps.shape[-1] - 1
    half, quarter = num_layers // 2, max(1, num_layers // 4)
    rows = [np.diagonal(maps, n, axis1=-2, axis2=-1) for n in range(1, quarter + 1)]
    lower = [row[..., 1 : half - n + 1].mean(-1) for n, row in enumerate(rows, start=1)]
    return np.mean(lower, axis=0), np.mean([row[..., half:-1].mean(-1) for row in rows], axis=0)


def last_is_least(maps: np.ndarray, first: int = 0) -> np.ndarray:
    """The share of sizes up to L/2 at which the last of the blocks from `first` on is farthest."""
    sizes = range(1, (maps.shape[-1] - 1) // 2 + 1)
    rows = [np.diagonal(maps, n, axis1=-2, axis2=-1)[..., first:] for n in sizes]
    return np.mean([row.argmax(-1) == row.shape[-1] - 1 for row in rows], axis=0)


def lower_minus_upper(damage: pd.DataFrame, num_layers: int, skip=(1, 1)) -> np.ndarray:
    """How much more the loss of each text rises without a shallow block than without a deep one.

    damage: the table of damage.measure, of one model. The blocks are those of `depth_statistics`,
    without so many layers at either end (`skip`); mean over their sizes of the mean over blocks, in
    nats a token: (texts,).
    """
    half, quarter = num_layers // 2, max(1, num_layers // 4)
    small = damage[damage.block_size <= quarter]
    stop = small.block_start + small.block_size

    def mean(first: int, last: int) -> np.ndarray:
        within = small[(small.block_start >= first) & (stop <= last)]
        rises = within.groupby("block_size").examples
        found = [np.mean(list(of_size), axis=0) for _, of_size in rises]
        return np.mean(found, axis=0) if found else np.nan * small.examples.iloc[0]

    return mean(skip[0], half) - mean(half, num_layers - skip[1])


def best_starts(maps: dict[str, BlockDistances]) -> pd.DataFrame:
    """l*(n) of each model: the chosen block of every size, its distance and standard error."""
    rows = []
    for name, d in maps.items():
        for b in blocks_of("similarity", d, range(1, d.num_layers)):
            told = {"model": name, "block_size": b.size, "block_start": b.start, "value": d.of(b)}
            rows.append(told | {"standard_error": d.standard_error[b.start, b.stop]})
    return pd.DataFrame(rows)


def leaves_deep_band(distances: BlockDistances) -> int | None:
    """The first block size whose best start jumps from the deep band of similar layers down into
    the lower third of the model."""
    starts = np.array([distances.best_start(n) for n in range(1, distances.num_layers)])
    jumps = (starts[:-1] - starts[1:] > 1) & (starts[1:] < distances.num_layers / 3)
    return int(jumps.argmax()) + 2 if jumps.any() else None
