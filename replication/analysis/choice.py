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
    blocks = damages[["model", "block_start", "block_size"]].itertuples(index=False)
    distances = [maps[model].matrix[start, start + size] for model, start, size in blocks]
    table = damages.assign(distance=distances)
    by_size = table.groupby(["model", "block_size"])
    ranks = by_size[["value", "distance"]].rank()
    most = by_size.value.transform("size") - 1
    return table.assign(residual=(ranks.value - ranks.distance) / most.clip(lower=1))


def rank_correlation(damages: pd.DataFrame, maps: Maps, resamples: int = RESAMPLES) -> pd.DataFrame:
    """Spearman's correlation of damage and distance, with 95 % intervals.

    Two rows a model: one over all blocks, and one that is the mean of the correlations within each
    size (of at least LEAST_BLOCKS blocks), which the choice of a start rests on. Texts are
    resampled, and the folds of the distances.
    """
    rows = []
    for model, damage in damages.groupby("model", sort=False):
        rises = np.stack(damage.examples)
        tokens = np.asarray(damage.weights.iloc[0])
        starts = damage.block_start.to_numpy()
        sizes = damage.block_size.to_numpy()
        folds = maps[model].folds[:, starts, starts + sizes]
        draw = np.random.default_rng(0)
        measured = _correlations(sizes, rises @ tokens, folds.mean(0))
        resampled = []
        for _ in range(resamples):
            texts = draw.integers(len(tokens), size=len(tokens))
            parts = draw.integers(len(folds), size=len(folds))
            rise = rises[:, texts] @ tokens[texts]
            resampled.append(_correlations(sizes, rise, folds[parts].mean(0)))
        table = pd.DataFrame({"rank_correlation": measured})
        table[["low", "high"]] = np.quantile(resampled, [0.025, 0.975], axis=0).T
        table.insert(0, "model", model)
        table.insert(1, "blocks", ["all", "within each size (mean)"])
        rows.append(table.assign(n=len(damage)))
    return pd.concat(rows, ignore_index=True)


def _correlations(sizes: np.ndarray, rise: np.ndarray, distance: np.ndarray) -> tuple[float, float]:
    """Return Spearman's correlation over all blocks, and its mean within sizes."""
    table = pd.DataFrame({"rise": rise, "distance": distance})
    within = [
        rows.rise.corr(rows.distance, "spearman")
        for _, rows in table.groupby(sizes)
        if len(rows) >= LEAST_BLOCKS
    ]
    return table.rise.corr(table.distance, "spearman"), np.mean(within)
