"""Shallow blocks against deep ones: their distances (claim 4) and their damage (claim 6)."""

import numpy as np
import pandas as pd

from lib.blocks import BlockDistances

FALL, SHALLOW = 0.1, 0.2  # of the layers: how far the best start jumps at least, and to where


def depth_statistics(maps: dict[str, BlockDistances]) -> pd.DataFrame:
    """Claim 4, per model: are deep blocks more similar, and those with the last layer least?

    shallow, deep: mean distance of blocks of up to L/4 layers that lie wholly in the lower or the
    upper half of the model, without the first and the last layer. last_is_least, and the same
    without_first: the share of sizes up to L/2 at which the block with the last layer is the least
    similar of all blocks, or of those without the first layer.
    """
    rows = []
    for name, distances in maps.items():
        shallow, deep = shallow_and_deep(distances.matrix)
        rows.append(
            {
                "model": name,
                "shallow": shallow,
                "deep": deep,
                "last_is_least": last_is_least(distances.matrix),
                "without_first": last_is_least(distances.matrix, first=1),
            }
        )
    return pd.DataFrame(rows)


def shallow_and_deep(maps: np.ndarray, first: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Mean distances (shallow, deep) of one or many distance matrices (…, L+1, L+1).

    first: the shallowest layer that a block may have.
    """
    num_layers = maps.shape[-1] - 1
    half, quarter = num_layers // 2, max(1, num_layers // 4)
    shallow, deep = [], []
    for size in range(1, quarter + 1):
        row = _of_size(maps, size)
        shallow.append(row[..., first : half - size + 1].mean(-1))
        deep.append(row[..., half:-1].mean(-1))
    return np.mean(shallow, axis=0), np.mean(deep, axis=0)


def last_is_least(maps: np.ndarray, first: int = 0) -> np.ndarray:
    """The share of sizes up to L/2 at which the last of the blocks from `first` on is farthest."""
    largest = (maps.shape[-1] - 1) // 2
    is_last = []
    for size in range(1, largest + 1):
        row = _of_size(maps, size)[..., first:]
        is_last.append(row.argmax(-1) == row.shape[-1] - 1)
    return np.mean(is_last, axis=0)


def jump(maps: np.ndarray) -> np.ndarray:
    """The fraction dropped where the best start of one or many maps jumps to the shallow layers.

    The first size whose best start is at least FALL before that of one layer less, and within
    SHALLOW; infinite where there is none.
    """
    num_layers = maps.shape[-1] - 1
    sizes = np.arange(1, num_layers)
    starts = np.stack([_of_size(maps, size).argmin(-1) for size in sizes], axis=-1)
    jumps = -np.diff(starts) >= FALL * num_layers
    jumps &= starts[..., 1:] <= SHALLOW * num_layers
    first = sizes[1:][jumps.argmax(-1)] / num_layers
    return np.where(jumps.any(-1), first, np.inf)


def _of_size(maps: np.ndarray, size: int) -> np.ndarray:
    """The distances of all blocks of one size, by their start: (…, L+1 - size)."""
    return np.diagonal(maps, size, axis1=-2, axis2=-1)


def lower_minus_upper(damage: pd.DataFrame, num_layers: int, skip=(1, 1)) -> np.ndarray:
    """How much more the loss of each text rises without a shallow block than without a deep one.

    damage: the table `damage`, of one model. The blocks are those of `depth_statistics`,
    without so many layers at either end (`skip`); mean over their sizes of the mean over blocks, in
    nats a token: (texts,).
    """
    half, quarter = num_layers // 2, max(1, num_layers // 4)
    small = damage[damage.block_size <= quarter]
    stop = small.block_start + small.block_size
    lower = (small.block_start >= skip[0]) & (stop <= half)
    upper = (small.block_start >= half) & (stop <= num_layers - skip[1])
    return _mean_rise(small[lower], small) - _mean_rise(small[upper], small)


def _mean_rise(blocks: pd.DataFrame, damage: pd.DataFrame) -> np.ndarray:
    """The rise of each text, mean over sizes of the mean over blocks; NaN if there are none."""
    if blocks.empty:
        return np.nan * damage.examples.iloc[0]
    rises = []
    for _, of_size in blocks.groupby("block_size"):
        rises.append(np.mean(list(of_size.examples), axis=0))
    return np.mean(rises, axis=0)
