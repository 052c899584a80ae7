"""The damage map: how much the C4 loss rises when any one block is dropped.

The paper's second hypothesis is that prunable blocks are those whose output is close to their
input. The distance map is one side of it, this is the other.
"""

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lib.blocks import UNPRUNED, Block
from lib.data import sets
from lib.evaluation import Task, weighted_mean
from replication.measure import cache, fetching
from replication.measure.fetching import Rows
from replication.measure.request import Request, data_identity, data_source
from replication.profiles import Profile
from replication.tables import BLOCK, grouped

VERSION = 1  # bumped by hand when the numbers change
CHUNK = 8  # texts of one result: what a killed run has to repeat
NO_ROWS = ["model", *BLOCK, "value", "standard_error", "loss", "n"]


def damage(name: str, distances, profile: Profile) -> list[Request]:
    """Return requests for the loss without every block, by chunks of texts."""
    params = {"model": name, **profile.load_kwargs, **data_identity("c4", profile.source)}
    params |= {
        "max_tokens": profile.damage_tokens,
        "batch_tokens": profile.batch_tokens,
        "version": VERSION,
    }
    count = profile.damage_sequences
    return [
        Request("damage", params | {"first": first, "sequences": min(CHUNK, count - first)})
        for first in range(0, count, CHUNK)
    ]


def all_blocks(num_layers: int, largest: int | None = None) -> list[Block]:
    """Every block of a model that leaves at least one layer, small ones first; up to a size."""
    sizes = range(1, 1 + (largest or num_layers - 1))
    return [Block(start, size) for size in sizes for start in range(num_layers - size + 1)]


def table(requests: Sequence[Request]) -> pd.DataFrame:
    """Return the damage of every block of every model, of which all chunks could be had.

    One row per block: model, block_start, block_size, value (rise of the C4 loss over the
    unpruned model's, nats a token, paired on texts), standard_error (of that rise), loss (of the
    pruned model), n (texts), and per text the rise (`examples`), the pruned
    model's loss (`losses`) and its tokens (`weights`).
    """
    rows = []
    by_model = grouped(fetching.fetch(requests), lambda chunk: chunk[0]["model"])
    for chunks in by_model.values():
        first_rows = [chunk[0] for chunk in chunks]
        if any(row["status"] != "ok" for row in first_rows):
            continue
        losses = [[row["losses"] for row in chunk] for chunk in chunks]
        tokens = [row["weights"] for row in first_rows]
        rows += rises(chunks[0], np.hstack(losses), np.concatenate(tokens))
    return pd.DataFrame(rows, columns=None if rows else NO_ROWS)


def rises(blocks: Rows, losses: np.ndarray, tokens: np.ndarray) -> Rows:
    """Return the rows of `table`, of blocks (the unpruned model first) and their losses by text."""
    rows = []
    for block, loss in zip(blocks[1:], losses[1:], strict=True):
        rise = loss - losses[0]
        value, error = weighted_mean(rise, tokens)
        row = {"value": value, "standard_error": error}
        row |= {"loss": weighted_mean(loss, tokens)[0], "n": len(tokens)}
        rows.append(block | row | {"examples": rise, "losses": loss, "weights": tokens})
    return rows


def chunks_of(rows: pd.DataFrame) -> list[Rows]:
    """Return the results that a model's rows of `table` were made of: a chunk of texts each.

    The unpruned model, which has no row, lost what a block lost without the rise. A row has the
    request of the first chunk.
    """
    pruned = rows.to_dict("records")
    whole = pruned[0] | dict.fromkeys(BLOCK, 0)
    whole["losses"] = pruned[0]["losses"] - pruned[0]["examples"]
    params, count = json.loads(whole["request"]), len(whole["weights"])
    chunks = []
    for start in range(0, count, params["sequences"]):
        stop = min(start + params["sequences"], count)
        of_chunk = params | {"first": start, "sequences": stop - start}
        request = cache.canonical(of_chunk)
        chunk = []
        for row in (whole, *pruned):
            of_texts = {key: row[key][start:stop] for key in ("losses", "weights")}
            chunk.append(row | of_texts | {"request": request})
        chunks.append(chunk)
    return chunks


cache.RESULTS_OF["damage"] = chunks_of


def _rows(params: dict) -> Rows:
    """Return the loss of the unpruned model and without every block, on each text of a chunk."""
    from lib.models.decoder import decoder_layers  # here, since the plan loads no torch

    model, _ = fetching.loaded(params)
    return losses(params, [UNPRUNED, *all_blocks(len(decoder_layers(model)))])


def losses(params: dict, blocks: Sequence[Block]) -> Rows:
    """Return the loss of each version of a model, on each text of a chunk."""
    from lib.sweep import sweep

    model, tokenizer = fetching.loaded(params)
    first = params["first"]
    texts = sets.c4("validation", data_source(params), first + params["sequences"])[first:]
    task = Task("c4", tuple({"text": t, "max_tokens": params["max_tokens"]} for t in texts))
    scores = sweep(model, tokenizer, blocks, [task], params["batch_tokens"])
    return [
        {"block_start": block.start, "block_size": block.size, "losses": losses, "weights": tokens}
        for block, losses, tokens in zip(blocks, scores.examples, scores.weights, strict=True)
    ]


fetching.MEASURE["damage"] = fetching.each(_rows)
