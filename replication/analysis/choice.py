"""Which block: the damage of blocks against their distance (the paper's hypothesis 2).

damages: the table `damage`, of one or several models; maps: their distances, by name.
"""

import numpy as np
import pandas as pd

from lib.blocks import BlockDistances

LEAST_BLOCKS = 5  # of one size, for a rank correlation among them


def beside_distances(damages: pd.DataFrame, maps: dict[str, BlockDistances]) -> pd.DataFrame:
    """The damage table with each block's distance."""
    blocks = damages[["model", "block_start", "block_size"]].itertuples(index=False)
    distances = [maps[model].matrix[start, start + size] for model, start, size in blocks]
    return damages.assign(distance=distances)


def rank_correlation(beside: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of damage and distance, two rows a model.

    One is over all blocks; the other is the mean of the correlations within each size (of at least
    LEAST_BLOCKS blocks), which the choice of a start rests on. beside: of `beside_distances`.
    """
    rows = []
    for model, blocks in beside.groupby("model", sort=False):
        within = [
            _spearman(of_size)
            for _, of_size in blocks.groupby("block_size")
            if len(of_size) >= LEAST_BLOCKS
        ]
        of_model = {"all": _spearman(blocks), "within each size (mean)": np.mean(within)}
        for compared, correlation in of_model.items():
            row = {"model": model, "blocks": compared, "rank_correlation": correlation}
            rows.append(row | {"n": len(blocks)})
    return pd.DataFrame(rows)


def _spearman(blocks: pd.DataFrame) -> float:
    return blocks.value.corr(blocks.distance, "spearman")
