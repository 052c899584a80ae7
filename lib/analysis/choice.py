"""Which block: the damage of blocks against their distance (the paper's hypothesis 2)."""

import numpy as np
import pandas as pd

from lib.blocks import Block, BlockDistances
from lib.evaluation import weighted_mean

RESAMPLES = 200
LEAST_BLOCKS = 5  # of one size, for a rank correlation among them


def beside_distances(damage: pd.DataFrame, distances: BlockDistances) -> pd.DataFrame:
    """The damage table with each block's distance, and where the two disagree.

    residual: the block's rank by damage less its rank by distance, both among the blocks of its
    size and from 0 to 1. Above 0 it hurts more than similarity says, below 0 less.
    """
    table = damage.assign(distance=[distances.of(b) for b in _blocks(damage)])
    ranks = table.groupby("block_size")[["value", "distance"]].rank()
    most = table.groupby("block_size").value.transform("size") - 1
    return table.assign(residual=(ranks.value - ranks.distance) / most.clip(lower=1))


def rank_correlation(
    damage: pd.DataFrame, distances: BlockDistances, resamples: int = RESAMPLES
) -> pd.DataFrame:
    """Spearman's correlation of damage and distance, with 95 % intervals.

    One row over all blocks, one that is the mean of the correlations within each size (of at least
    LEAST_BLOCKS blocks): what the choice of a start rests on. Texts are resampled, and the folds
    of the distances.
    """
    sizes, blocks = damage.block_size.to_numpy(), _blocks(damage)
    rises, tokens = np.stack(damage.examples), damage.weights.iloc[0]
    folds = np.stack([distances.folds[:, b.start, b.stop] for b in blocks], axis=1)
    draw = np.random.default_rng(0)
    found = [_correlations(sizes, rises @ tokens, folds.mean(0))]
    for _ in range(resamples):
        texts = draw.integers(len(tokens), size=len(tokens))
        parts = draw.integers(len(folds), size=len(folds))
        rise = rises[:, texts] @ tokens[texts]
        found.append(_correlations(sizes, rise, folds[parts].mean(0)))
    (all_blocks_, within), drawn = found[0], np.array(found[1:])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return pd.DataFrame(
        {
            "blocks": ["all", "within each size (mean)"],
            "rank_correlation": [all_blocks_, within],
            "low": low,
            "high": high,
            "n": [len(blocks), len(blocks)],
        }
    )


def _correlations(sizes: np.ndarray, rise: np.ndarray, distance: np.ndarray) -> tuple[float, float]:
    """Spearman's correlation over all blocks, and its mean within sizes."""
    table = pd.DataFrame({"size": sizes, "rise": rise, "distance": distance})
    within = table.groupby("size")[["rise", "distance"]].rank().assign(size=sizes)
    enough = [rows for _, rows in within.groupby("size") if len(rows) >= LEAST_BLOCKS]
    ranks = table[["rise", "distance"]].rank()
    return (
        float(ranks.rise.corr(ranks.distance)),
        float(np.mean([rows.rise.corr(rows.distance) for rows in enough])),
    )


def regret(damage: pd.DataFrame, distances: BlockDistances) -> pd.DataFrame:
    """What similarity's choice costs beside the least damaging block of each size.

    best_start: the start of least damage. regret: damage of the similarity-informed block less
    that of the best one, in nats. So that luck is not counted as skill, the best block is chosen on
    every second text and compared on the others, and the other way round.
    """
    rows = []
    for size, of_size in damage.groupby("block_size"):
        rises, tokens = np.stack(of_size.examples), of_size.weights.iloc[0]
        chosen, apart = distances.best_start(size), np.zeros(len(tokens))
        for part in (0, 1):
            other = rises[:, 1 - part :: 2] @ tokens[1 - part :: 2]
            best = rises[int(other.argmin())]
            apart[part::2] = (rises[chosen] - best)[part::2]
        mean, error = weighted_mean(apart, tokens)
        rows.append(
            {
                "model": of_size.model.iloc[0],
                "block_size": size,
                "similarity_start": chosen,
                "similarity_damage": of_size.value.iloc[chosen],
                "best_start": int(of_size.value.to_numpy().argmin()),
                "best_damage": of_size.value.min(),
                "regret": mean,
                "standard_error": error,
            }
        )
    return pd.DataFrame(rows)


def _blocks(damage: pd.DataFrame) -> list[Block]:
    return [Block(*pair) for pair in zip(damage.block_start, damage.block_size, strict=True)]
