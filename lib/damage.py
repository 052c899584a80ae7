"""The damage map: how much the C4 loss rises when any one block is dropped.

The paper's second hypothesis is that prunable blocks are those whose output is close to their
input. The distance map is one side of it, this is the other.
"""

from collections.abc import Callable
from itertools import islice

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lib import data, models, results
from lib.evaluation import Task, weighted_mean
from lib.profiles import Profile
from lib.pruning import Block
from lib.similarity import BlockDistances
from lib.sweep import sweep

VERSION = 1  # bumped by hand when the numbers of `measure` change
CHUNK = 8  # texts of one result: what a killed run has to repeat
RESAMPLES = 300


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
    texts = data.c4("validation", profile.source, profile.damage_sequences)

    def compute(part: list[str]) -> dict:
        model, tokenizer = models.base(name, profile)
        examples = tuple({"text": t, "max_tokens": profile.damage_tokens} for t in part)
        blocks = all_blocks(len(models.decoder_layers(model)))
        found = sweep(model, tokenizer, blocks, [Task("c4", examples)], profile.batch_tokens)
        return {
            "blocks": found[["block_start", "block_size"]].values.tolist(),
            "examples": np.stack(found.examples).tolist(),
            "weights": found.weights[0].tolist(),
        }

    parts = [
        results.load_or_compute("damage", params, lambda p=part: compute(p))["values"]
        for params, part in zip(_params(name, profile), _chunks(texts), strict=False)
    ]
    return _table(name, parts)


def stored(name: str, profile: Profile) -> pd.DataFrame | None:
    """What `measure` gives, if all of it is in the results; None, and nothing computed, if not."""
    records = [results.load("damage", params) for params in _params(name, profile)]
    if not all(records):
        return None
    return _table(name, [record["values"] for record in records])


def _params(name: str, profile: Profile) -> list[dict]:
    """The parameters of each chunk's result; reads no data."""
    shared = models.identity(name, profile) | data.identity("c4", profile.source)
    shared |= {
        "max_tokens": profile.damage_tokens,
        "batch_tokens": profile.batch_tokens,
        "version": VERSION,
    }
    return [
        shared | {"first": first, "sequences": min(CHUNK, profile.damage_sequences - first)}
        for first in range(0, profile.damage_sequences, CHUNK)
    ]
