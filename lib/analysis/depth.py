"""Shallow blocks against deep ones: their distances (claim 4) and their damage (claim 6)."""

import numpy as np
import pandas as pd

from lib.analysis.islands import rescaled
from lib.blocks import BlockDistances
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
    start, stop = damage.block_start, damage.block_start + damage.block_size
    small = damage.block_size <= quarter
    lower = damage[small & (start >= 1) & (stop <= half)]
    upper = damage[small & (start >= half) & (stop <= num_layers - 1)]
    return _mean_of_sizes(lower) - _mean_of_sizes(upper)


def _mean_of_sizes(rows: pd.DataFrame) -> np.ndarray:
    means = [np.mean(list(of_size.examples), axis=0) for _, of_size in rows.groupby("block_size")]
    return np.mean(means, axis=0)


def best_starts(maps: dict[str, BlockDistances]) -> pd.DataFrame:
    """l*(n) of each model: the chosen block of every size, its distance and standard error."""
    rows = [
        {
            "model": name,
            "block_size": size,
            "block_start": distances.best_start(size),
            "value": distances.row(size).min(),
            "standard_error": distances.standard_error[
                distances.best_start(size), distances.best_start(size) + size
            ],
        }
        for name, distances in maps.items()
        for size in range(1, distances.num_layers)
    ]
    return pd.DataFrame(rows)


def leaves_deep_band(distances: BlockDistances) -> int | None:
    """The first block size whose best start jumps down into the lower third of the model.

    There the choice jumps from the deep band of similar layers to the shallow end.
    """
    third = distances.num_layers / 3
    starts = [distances.best_start(n) for n in range(1, distances.num_layers)]
    for size, (before, after) in enumerate(zip(starts, starts[1:], strict=False), start=2):
        if before - after > 1 and after < third:
            return size
    return None
