"""The damage map: how much the C4 loss rises when any one block is dropped.

The paper's second hypothesis is that prunable blocks are those whose output is close to their
input. The distance map is one side of it, this is the other.
"""

from collections.abc import Iterable

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


def measure(maps: Iterable[str], profile: Profile) -> pd.DataFrame:
    """The damage of every block of every model that has a map.

    One row per block: model, block_start, block_size, value (rise of the C4 loss over the
    unpruned model's, nats a token, paired on texts), standard_error (of that rise), loss (of the
    pruned model), n (texts), and per text the rise (`examples`) and its tokens (`weights`). A model
    that cannot be had is told in the log; raises its ModelError (or NotMeasured) if none can.
    """
    found, _ = fetching.tried(lambda name: of_model(name, profile), maps)
    return pd.concat(found.values(), ignore_index=True)


def of_model(name: str, profile: Profile) -> pd.DataFrame:
    """The damage of every block of model `name`; a chunk of texts is swept and stored at a time."""
    chunks = []
    for asked in fetching.here(_chunks(name, profile)):

        def compute(params=asked.params) -> dict:
            first, last = params["first"], params["first"] + params["sequences"]
            texts = sets.c4("validation", profile.source, last)[first:]
            examples = tuple({"text": t, "max_tokens": profile.damage_tokens} for t in texts)
            model, tokenizer = loading.loaded(name, **profile.weights)
            blocks = all_blocks(len(decoder.decoder_layers(model)))
            found = sweep(model, tokenizer, blocks, [Task("c4", examples)], profile.batch_tokens)
            return {
                "blocks": found[["block_start", "block_size"]].values.tolist(),
                "losses": np.stack(found.examples).tolist(),
                "tokens": found.weights[0].tolist(),
            }

        chunks.append(results.load_or_compute(asked.kind, asked.params, compute)["values"])
    return _table(name, chunks)


def _chunks(name: str, profile: Profile) -> list[Wanted]:
    """Each chunk's result; reads no data."""
    shared = {"model": name, **profile.weights, **sets.identity("c4", profile.source)}
    shared |= {"max_tokens": profile.damage_tokens, "batch_tokens": profile.batch_tokens}
    firsts, count = range(0, profile.damage_sequences, CHUNK), profile.damage_sequences
    parts = [{"first": first, "sequences": min(CHUNK, count - first)} for first in firsts]
    return [Wanted("damage", shared | part | {"version": VERSION}) for part in parts]


def _table(name: str, chunks: list[dict]) -> pd.DataFrame:
    losses = np.hstack([chunk["losses"] for chunk in chunks])
    tokens = np.concatenate([chunk["tokens"] for chunk in chunks])
    unpruned, *blocks = chunks[0]["blocks"]
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
