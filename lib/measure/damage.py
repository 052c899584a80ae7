"""The damage map: how much the C4 loss rises when any one block is dropped.

The paper's second hypothesis is that prunable blocks are those whose output is close to their
input. The distance map is one side of it, this is the other.
"""

import numpy as np
import pandas as pd

from lib import results
from lib.blocks import Block
from lib.data import sets
from lib.evaluation import Task, weighted_mean
from lib.measure import fetching
from lib.measure.wanted import Wanted
from lib.models import decoder, loading
from lib.profiles import Profile
from lib.sweep import sweep

VERSION = 1  # bumped by hand when the numbers of `measure` change
CHUNK = 8  # texts of one result: what a killed run has to repeat


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
        texts = sets.c4("validation", profile.source, first + sequences)[first:]
        examples = tuple({"text": t, "max_tokens": profile.damage_tokens} for t in texts)
        model, tokenizer = loading.loaded(name, **profile.weights)
        blocks = all_blocks(len(decoder.decoder_layers(model)))
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
    model = {"model": name, **profile.weights} | sets.identity("c4", profile.source)
    (asked,) = fetching.here([Wanted("damage", model)])
    shared = asked.params | {
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
