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
from lib.blocks import UNPRUNED, Block, BlockDistances, Sublayers, similarity_block
from lib.data import sets
from lib.evaluation import Task, weighted_mean
from lib.measure import fetching
from lib.measure.wanted import Wanted
from lib.models import decoder, layers, loading
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
    """The damage of every block of model `name`."""
    return _table(name, *losses(name, profile))


def losses(name: str, profile: Profile) -> tuple[list, np.ndarray, np.ndarray]:
    """The unpruned model and every block, the C4 loss of each on each text, the texts' tokens."""
    chunks = _chunks("damage", name, profile)
    return _fetched(chunks, lambda model: all_blocks(len(decoder.decoder_layers(model))))


def halves(maps: dict[str, BlockDistances], profile: Profile) -> pd.DataFrame:
    """The damage of dropping only the attention, or only the FFN.

    Of every single layer, and of the similarity-informed block of each size of the profile. The
    columns of `measure`, and part ("attention" or "ffn").
    """
    found, _ = fetching.tried(lambda name: _halves(name, maps[name], profile), maps)
    return pd.concat(found.values(), ignore_index=True)


def _halves(name: str, distances: BlockDistances, profile: Profile) -> pd.DataFrame:
    count = distances.num_layers
    blocks = [Block(l, 1) for l in range(count)]
    blocks += [similarity_block(distances, size) for size in profile.block_sizes(count) if size > 1]
    cuts = [Sublayers(b.start, b.size, part) for b in blocks for part in layers.PARTS]

    def checked(model) -> list[Block]:
        layers.check_sublayers(model)
        return cuts

    chunks = _chunks("sublayers", name, profile, cuts=[list(astuple(cut)) for cut in cuts])
    return _table(name, *_fetched(chunks, checked))


# ---- chunks of texts ------------------------------------------------------------------------


def asked_of(name: str, profile: Profile) -> dict:
    """What keys the loss of a model's versions on the damage map's texts, but for their number."""
    shared = {"model": name, **profile.weights, **sets.identity("c4", profile.source)}
    return shared | {"max_tokens": profile.damage_tokens, "batch_tokens": profile.batch_tokens}


def task(params: dict, first: int, count: int) -> Task:
    """`count` C4 texts from `first` on, as `params` ask for them."""
    texts = sets.c4("validation", sets.source(params), first + count)[first:]
    return Task("c4", tuple({"text": t, "max_tokens": params["max_tokens"]} for t in texts))


def _chunks(kind: str, name: str, profile: Profile, **more) -> list[Wanted]:
    """Each chunk's result; reads no data."""
    firsts, count = range(0, profile.damage_sequences, CHUNK), profile.damage_sequences
    parts = [{"first": first, "sequences": min(CHUNK, count - first)} for first in firsts]
    shared = asked_of(name, profile) | more | {"version": VERSION}
    return [Wanted(kind, shared | part) for part in parts]


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


def _table(name: str, blocks: list, losses: np.ndarray, tokens: np.ndarray) -> pd.DataFrame:
    if blocks[0] != [0, 0]:
        raise ValueError(f"A damage result of {name} does not begin with the unpruned model.")
    rows = []
    for (start, size, *part), loss in zip(blocks[1:], losses[1:], strict=True):
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
            | ({"part": part[0]} if part else {})
        )
    return pd.DataFrame(rows)
