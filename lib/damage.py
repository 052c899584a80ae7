"""The damage map: how much the C4 loss rises when any one block is dropped.

The paper's second hypothesis is that prunable blocks are those whose output is close to their
input. The distance map is one side of it, this is the other.
"""

import numpy as np
import pandas as pd

from lib import data, models, results
from lib.evaluation import Task, weighted_mean
from lib.profiles import Profile
from lib.pruning import Block
from lib.similarity import BlockDistances
from lib.sweep import sweep

VERSION = 1  # bumped by hand when the numbers of `measure` change
CHUNK = 8  # texts of one result: what a killed run has to repeat
RESAMPLES = 200
LEAST_BLOCKS = 5  # of one size, for a rank correlation among them


def all_blocks(num_layers: int) -> list[Block]:
    """Every block of a model that leaves at least one layer, small ones first."""
    sizes = range(1, num_layers)
    return [Block(start, size) for size in sizes for start in range(num_layers - size + 1)]


def measure(name: str, profile: Profile) -> pd.DataFrame:
    """The damage of every block of model `name`; a chunk of texts at a time is swept and stored.

    One row per block: model, block_start, block_size, value (rise of the C4 loss over the
    unpruned model's, nats a token, paired on texts), standard_error (of that rise), loss (of the
    pruned model), n (texts), and per text the rise (`examples`) and its tokens (`weights`).
    """

    def compute(first: int, sequences: int) -> dict:
        texts = data.c4("validation", profile.source, first + sequences)[first:]
        examples = tuple({"text": t, "max_tokens": profile.damage_tokens} for t in texts)
        model, tokenizer = models.base(name, profile)
        blocks = all_blocks(len(models.decoder_layers(model)))
        found = sweep(model, tokenizer, blocks, [Task("c4", examples)], profile.batch_tokens)
        return {
            "blocks": found[["block_start", "block_size"]].values.tolist(),
            "losses": np.stack(found.examples).tolist(),
            "tokens": found.weights[0].tolist(),
        }

    chunks = [
        results.load_or_compute(
            "damage", params, lambda p=params: compute(p["first"], p["sequences"])
        )
        for params in _params(name, profile)
    ]
    return _table(name, chunks)


def stored(name: str, profile: Profile) -> pd.DataFrame | None:
    """What `measure` gives if the results hold all of it, else None; computes nothing."""
    chunks = [results.load("damage", params) for params in _params(name, profile)]
    return _table(name, chunks) if all(chunks) else None


def _params(name: str, profile: Profile) -> list[dict]:
    """The parameters of each chunk's result; reads no data."""
    shared = models.identity(name, profile) | data.identity("c4", profile.source)
    shared |= {
        "max_tokens": profile.damage_tokens,
        "batch_tokens": profile.batch_tokens,
        "version": VERSION,
    }
    count = profile.damage_sequences
    return [
        shared | {"first": first, "sequences": min(CHUNK, count - first)}
        for first in range(0, count, CHUNK)
    ]


def _table(name: str, chunks: list[dict]) -> pd.DataFrame:
    values = [chunk["values"] for chunk in chunks]
    losses = np.hstack([v["losses"] for v in values])
    tokens = np.concatenate([v["tokens"] for v in values])
    unpruned, *blocks = values[0]["blocks"]
    if unpruned != [0, 0]:
        raise ValueError(f"A damage result of {name} does not begin with the unpruned model.")
    rows = []
    for (start, size), loss in zip(blocks, losses[1:], strict=True):
        rise, error = weighted_mean(loss - losses[0], tokens)
        rows.append(
            {
                "model": name,
                "block_start": start,
                "block_size": size,
                "value": rise,
                "standard_error": error,
                "loss": weighted_mean(loss, tokens)[0],
                "n": len(tokens),
                "examples": loss - losses[0],
                "weights": tokens,
            }
        )
    return pd.DataFrame(rows)


# ---- damage against distance: hypothesis 2 -------------------------------------------------


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
