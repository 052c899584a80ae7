"""The damage map: how much the C4 loss rises when any one block is dropped.

The paper's second hypothesis is that prunable blocks are those whose output is close to their
input. The distance map is one side of it, this is the other. And the damage of half a block: only
the attention, or only the FFN, of its layers.
"""

from collections.abc import Callable, Iterable
from dataclasses import astuple

import numpy as np
import pandas as pd

from lib import results
from lib.blocks import UNPRUNED, Block, BlockDistances, Sublayers
from lib.data import sets
from lib.evaluation import Task, weighted_mean
from lib.measure import fetching, studies
from lib.measure.wanted import Wanted
from lib.models import layers, loading
from lib.models.decoder import decoder_layers
from lib.profiles import Profile
from lib.sweep import sweep


def measure(maps: Iterable[str], profile: Profile) -> pd.DataFrame:
    """The damage of every block of every model that has a map.

    One row per block: model, block_start, block_size, value (rise of the C4 loss over the
    unpruned model's, nats a token, paired on texts), standard_error (of that rise), loss (of the
    pruned model), n (texts), and per text the rise (`examples`) and its tokens (`weights`). A model
    that cannot be had is told in the log; raises its ModelError (or NotMeasured) if none can.
    """
    found, _ = fetching.tried(lambda name: table(name, *losses(name, profile)), maps)
    return pd.concat(found.values(), ignore_index=True)


def losses(name: str, profile: Profile) -> tuple[list, np.ndarray, np.ndarray]:
    """The unpruned model and every block, the C4 loss of each on each text, the texts' tokens."""
    chunks = studies.damage(name, None, profile)
    return _fetched(chunks, lambda model: studies.all_blocks(len(decoder_layers(model))))


def halves(maps: dict[str, BlockDistances], profile: Profile) -> pd.DataFrame:
    """The damage of dropping only the attention, or only the FFN.

    Of the blocks of `studies.halves`. The columns of `measure`, and part ("attention" or "ffn").
    """
    found, _ = fetching.tried(lambda name: _halves(name, maps[name], profile), maps)
    return pd.concat(found.values(), ignore_index=True)


def _halves(name: str, distances: BlockDistances, profile: Profile) -> pd.DataFrame:
    chunks = studies.halves(name, distances, profile)

    def checked(model) -> list[Block]:
        layers.check_sublayers(model)
        return [Sublayers(*cut) for cut in chunks[0].params["cuts"]]

    return table(name, *_fetched(chunks, checked))


# ---- chunks of texts ------------------------------------------------------------------------


def task(params: dict, first: int, count: int) -> Task:
    """`count` C4 texts from `first` on, as `params` ask for them."""
    texts = sets.c4("validation", sets.source(params), first + count)[first:]
    return Task("c4", tuple({"text": t, "max_tokens": params["max_tokens"]} for t in texts))


def _fetched(chunks: list[Wanted], blocks_of: Callable[..., list[Block]]) -> tuple:
    """`losses` of all chunks; one that is not stored is swept over `blocks_of(model)`."""
    found = []
    for asked in fetching.here(chunks):

        def compute(params=asked.params) -> dict:
            weights = (params[key] for key in ("model", "quantization", "dtype"))
            model, tokenizer = loading.loaded(*weights)
            blocks = [UNPRUNED, *blocks_of(model)]
            texts = task(params, params["first"], params["sequences"])
            found = sweep(model, tokenizer, blocks, [texts], params["batch_tokens"])
            return {
                "blocks": [list(astuple(block)) for block in blocks],
                "losses": np.stack(found.examples).tolist(),
                "tokens": found.weights[0].tolist(),
            }

        found.append(results.load_or_compute(asked.kind, asked.params, compute)["values"])
    losses = np.hstack([chunk["losses"] for chunk in found])
    return found[0]["blocks"], losses, np.concatenate([chunk["tokens"] for chunk in found])


def table(name: str, blocks: list, losses: np.ndarray, tokens: np.ndarray) -> pd.DataFrame:
    """The rows of `measure`, of the blocks (the unpruned model first) and their losses."""
    if blocks[0] != [0, 0]:
        raise ValueError(f"A damage result of {name} does not begin with the unpruned model.")
    rows = []
    for (start, size, *part), loss in zip(blocks[1:], losses[1:], strict=True):
        rises = loss - losses[0]
        value, error = weighted_mean(rises, tokens)
        row = {"model": name, "block_start": start, "block_size": size, "value": value}
        row |= {"standard_error": error, "loss": weighted_mean(loss, tokens)[0], "n": len(tokens)}
        row |= {"examples": rises, "weights": tokens}
        rows.append(row | ({"part": part[0]} if part else {}))
    return pd.DataFrame(rows)
