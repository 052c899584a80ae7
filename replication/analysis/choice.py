"""Which block: the damage of blocks against their distance (the paper's hypothesis 2).

damages: the table of damage.measure, of one or several models; maps: their distances, by name.
"""

import numpy as np
import pandas as pd

from lib.blocks import BlockDistances

RESAMPLES = 200
LEAST_BLOCKS = 5  # of one size, for a rank correlation among them
Maps = dict[str, BlockDistances]


def beside_distances(damages: pd.DataFrame, maps: Maps) -> pd.DataFrame:
    """The damage table with each block's distance, and where the two disagree.

    residual: a block's rank by damage minus its rank by distance, among the model's blocks of its
    size, both from 0 to 1. Above 0 it hurts more than similarity says, below 0 less.
    """
    blocks = zip(damages.model, damages.block_start, damages.block_size, strict=True)
    table = damages.assign(distance=[maps[m].matrix[l, l + n] for m, l, n in blocks])
    of_size = table.groupby(["model", "block_size"])
    ranks = of_size[["value", "distance"]].rank()
    most = of_size.value.transform("size") - 1
    return table.assign(residual=(ranks.value - ranks.distance) / most.clip(lower=1))


def rank_correlation(damages: pd.DataFrame, maps: Maps, resamples: int = RESAMPLES) -> pd.DataFrame:
    """Spearman's correlation of damage and distance, with 95 % intervals.

    Two rows a model: one over all blocks, and one that is the mean of the correlations within each
    size (of at least LEAST_BLOCKS blocks), which the choice of a start rests on. Texts are
    resampled, and the folds of the distances.
    """
    rows = []
    for model, damage in damages.groupby("model", sort=False):
        rises, tokens = np.stack(damage.examples), np.asarray(damage.weights.iloc[0])
        starts, sizes = damage.block_start.to_numpy(), damage.block_size.to_numpy()
        folds = maps[model].folds[:, starts, starts + sizes]
        draw = np.random.default_rng(0)
        measured = _correlations(sizes, rises @ tokens, folds.mean(0))
        drawn = []
        for _ in range(resamples):
            texts = draw.integers(len(tokens), size=len(tokens))
            parts = draw.integers(len(folds), size=len(folds))
            rise = rises[:, texts] @ tokens[texts]
            drawn.append(_correlations(sizes, rise, folds[parts].mean(0)))
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        for i, blocks in enumerate(("all", "within each size (mean)")):
            row = {"model": model, "blocks": blocks, "rank_correlation": measured[i]}
            rows.append(row | {"low": low[i], "high": high[i], "n": len(damage)})
    return pd.DataFrame(rows)


def _correlations(sizes: np.ndarray, rise: np.ndarray, distance: np.ndarray) -> tuple[float, float]:
    """Spearman's correlation over all blocks, and its mean within sizes."""
    table = pd.DataFrame({"rise": rise, "distance": distance})
    enough = [rows for _, rows in table.groupby(sizes) if len(rows) >= LEAST_BLOCKS]
    every, *within = (rows.corr("spearman").iloc[0, 1] for rows in (table, *enough))
    return every, np.mean(within)
