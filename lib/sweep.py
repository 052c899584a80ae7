"""Scores of many pruned versions of one model, with everything they share computed once.

All versions of a model agree up to their cut. So the unpruned model reads each batch once, the
states x^(l) at the cuts are kept, and each block runs only the layers after its cut, on the state
before it. A prefix that many rows share (the few-shot examples of a subject, the question before
its answers) is read once per block, its keys and values are reused. lm_head runs only where
something is scored. Layer applications: L + the sum of the layers after each cut.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import DynamicCache

from lib import evaluation
from lib.evaluation import Row, Task
from lib.models import decoder_config, decoder_layers, logits, residual_stream
from lib.pruning import UNPRUNED, Block, only_layers

HEAD_POSITIONS = 256  # logits of this many positions are held at once
PREFIX_STEP = 4  # shared prefixes are cut to a multiple of this, so that more of them batch


def sweep(
    model, tokenizer, blocks: Sequence[Block], tasks: Iterable[Task], batch_tokens: int = 2048
) -> pd.DataFrame:
    """Score the unpruned model and every block of `blocks` on `tasks`, with shared work.

    One row per block and task: block_start, block_size (0, 0 is the unpruned model), task,
    value, standard_error, n, and the per-example `values` and `weights` of the mean.
    Equal to dropping each block and scoring the model whole. Raises ValueError for a block that
    does not fit the model.
    """
    blocks = list(dict.fromkeys([UNPRUNED, *blocks]))
    for block in blocks:
        block.kept(len(decoder_layers(model)))
    records = []
    for task in tasks:
        rows = task.rows(tokenizer)
        outputs = log_probabilities(model, blocks, sum(rows, []), batch_tokens, task.name)
        for block in blocks:
            found = iter(outputs[block])
            values, weights = task.scores([[next(found) for _ in example] for example in rows])
            mean, error = evaluation.weighted_mean(values, weights)
            records.append(
                {
                    "block_start": block.start,
                    "block_size": block.size,
                    "task": task.name,
                    "value": mean,
                    "standard_error": error,
                    "n": int((weights > 0).sum()),
                    "values": values,
                    "weights": weights,
                }
            )
    return pd.DataFrame(records)


@torch.inference_mode()
def log_probabilities(
    model, blocks: Sequence[Block], rows: list[Row], batch_tokens: int, label: str
) -> dict[Block, list[np.ndarray]]:
    """For each block, the log-probabilities (fp32) of every row's wanted tokens, flattened."""
    outputs = {block: [None] * len(rows) for block in blocks}
    for shared in tqdm(list(bundles(rows, batch_tokens)), desc=label):
        caches = {}
        if shared.prefix is not None:

            def new_cache(block):
                caches[block] = DynamicCache(config=decoder_config(model))
                return caches[block]

            for _ in final_states(model, blocks, shared.prefix.to(model.device), new_cache):
                pass
        for own in shared.batches:

            def prefix_cache(block):
                return _repeated(caches[block], shared.repeats(own)) if caches else None

            ids = own.ids.to(model.device)
            for block, states in final_states(model, blocks, ids, prefix_cache):
                for place, values in zip(own.places, own.scored(model, states), strict=True):
                    outputs[block][place] = values
    return outputs


# ---- one batch through every block ---------------------------------------------------------


def final_states(
    model, blocks: Sequence[Block], ids: torch.Tensor, cache_of: Callable[[Block], DynamicCache]
) -> Iterator[tuple[Block, torch.Tensor]]:
    """The state after the final norm, (B, T, D), of each block; the unpruned model comes first.

    `cache_of` gives a block's key-value cache, or None; it is asked while the model has the
    layers (and the configuration) that the cache is for.
    """
    states, as_tuple = {}, []
    starts = sorted({block.start for block in blocks if block.size})
    last = decoder_layers(model)[-1]
    noted = last.register_forward_hook(lambda *call: as_tuple.append(isinstance(call[2], tuple)))
    with residual_stream(model, states.__setitem__, at=starts):
        full = _forward(model, ids, cache_of(UNPRUNED))
    noted.remove()
    yield UNPRUNED, full
    for block in blocks:
        if block.size:
            with resumed(model, block, states[block.start], as_tuple[0]):
                final = _forward(model, ids, cache_of(block))
            yield block, final


@contextmanager
def resumed(model, block: Block, state: torch.Tensor, as_tuple: bool = False) -> Iterator[None]:
    """The model from the cut on: its first layer is `block.stop`, and reads `state`, not input.

    HF's own forward builds masks, rotary embeddings and the final norm, from a configuration
    that matches the layers that are left. as_tuple: what the layers return is wrapped in a tuple.
    """
    num_layers = len(decoder_layers(model))
    after = range(block.stop, num_layers)
    with only_layers(model, after or [num_layers - 1]) as layers:
        if not after:
            layers[0] = _PassThrough(as_tuple)

        def replace(module, args, kwargs):
            if args:
                return (state, *args[1:]), kwargs
            return args, kwargs | {"hidden_states": state}

        hook = layers[0].register_forward_pre_hook(replace, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()


class _PassThrough(nn.Module):
    """Stands where no layer is left after the cut (the block includes the last layer)."""

    def __init__(self, as_tuple: bool):
        super().__init__()
        self.as_tuple = as_tuple

    def forward(self, hidden_states, *args, **kwargs):
        return (hidden_states,) if self.as_tuple else hidden_states


def _forward(model, ids: torch.Tensor, cache: DynamicCache | None) -> torch.Tensor:
    decoder = model.get_decoder()
    return decoder(input_ids=ids, cache=cache, use_cache=cache is not None).last_hidden_state


def _repeated(cache: DynamicCache, repeats: int) -> DynamicCache:
    """A cache with each sequence `repeats` times; growing it leaves `cache` as it is."""
    grown = copy.copy(cache)
    grown.layers = [copy.copy(layer) for layer in cache.layers]
    grown.batch_repeat_interleave(repeats)
    return grown


# ---- which rows are read together ----------------------------------------------------------


@dataclass(frozen=True)
class Own:
    """What rows have beyond their prefixes: ids (B, T), right-padded, and where to score them.

    Right-padded sequences need no mask: causal attention never looks ahead.
    """

    ids: torch.Tensor
    places: list[int]  # of each row in the task
    row: torch.Tensor  # (N,) of each scored position,
    position: torch.Tensor  # (N,) and
    wanted: torch.Tensor  # (N, C) the tokens asked for there
    counts: list[int]  # scored positions of each row

    def scored(self, model, states: torch.Tensor) -> list[np.ndarray]:
        """The wanted log-probabilities of each row; lm_head runs on the scored positions only."""
        picked = states[self.row.to(states.device), self.position.to(states.device)]
        chunks = zip(picked.split(HEAD_POSITIONS), self.wanted.split(HEAD_POSITIONS), strict=True)
        found = [_log_softmax_at(logits(model, part), wanted) for part, wanted in chunks]
        return [part.flatten().numpy() for part in torch.cat(found).split(self.counts)]


@dataclass(frozen=True)
class Bundle:
    """G prefixes of equal length (G, P), or None, and the batches of rows that go on from them."""

    prefix: torch.Tensor | None
    batches: list[Own]

    def repeats(self, own: Own) -> int:
        """How many rows of `own` go on from each prefix."""
        return len(own.ids) // len(self.prefix)


def bundles(rows: list[Row], batch_tokens: int) -> Iterator[Bundle]:
    """Rows of a group share their prefix; groups of equal shape are read together.

    A forward pass reads about `batch_tokens` tokens, or one row if that is longer.
    """
    groups = {}
    for place, row in enumerate(rows):
        key = ("alone", place) if row.group is None else row.group
        groups.setdefault(key, []).append((place, row))
    shaped = [(*_shape(group), group) for group in groups.values()]
    shaped.sort(key=lambda s: s[:3])
    for (length, size), alike in groupby(shaped, key=lambda s: s[:2]):
        alike = list(alike)
        while alike:
            cost = [length + size * own for _, _, own, _ in alike]
            fits = sum((i + 1) * c <= batch_tokens for i, c in enumerate(cost)) or 1
            taken, alike = [group for *_, group in alike[:fits]], alike[fits:]
            yield _bundle(taken, length, batch_tokens)


def _shape(group: list[tuple[int, Row]]) -> tuple[int, int, int]:
    """Length of the shared prefix, number of rows, longest remainder. Scored positions are own."""
    tokens = [row.tokens for _, row in group]
    unscored = min(len(row.tokens) - len(row.wanted) for _, row in group)
    same = (len(set(column)) == 1 for column in zip(*tokens))
    shared = next((i for i, equal in enumerate(same) if not equal), min(map(len, tokens)))
    length = min(shared, unscored) // PREFIX_STEP * PREFIX_STEP if len(group) > 1 else 0
    return length, len(group), max(map(len, tokens)) - length


def _bundle(groups: list[list[tuple[int, Row]]], length: int, batch_tokens: int) -> Bundle:
    prefix = [group[0][1].tokens[:length] for group in groups]
    rows = [pair for group in groups for pair in group]
    if len(groups) == 1:  # may be many rows: shortest first, split into several batches
        rows.sort(key=lambda pair: len(pair[1].tokens))
    longest = max(len(row.tokens) for _, row in rows) - length
    size = len(rows) if len(groups) > 1 else max(1, batch_tokens // max(longest, 1))
    batches = [_own(rows[i : i + size], length) for i in range(0, len(rows), size)]
    return Bundle(torch.tensor(prefix) if length else None, batches)


def _own(pairs: list[tuple[int, Row]], length: int) -> Own:
    own = [torch.tensor(row.tokens[length:]) for _, row in pairs]
    scored = [
        (i, len(own[i]) - len(row.wanted) + k, wanted)
        for i, (_, row) in enumerate(pairs)
        for k, wanted in enumerate(row.wanted)
    ]
    row, position, wanted = (torch.tensor(column) for column in zip(*scored, strict=True))
    ids = nn.utils.rnn.pad_sequence(own, batch_first=True)
    places, counts = [place for place, _ in pairs], [len(row.wanted) for _, row in pairs]
    return Own(ids, places, row, position, wanted, counts)


def _log_softmax_at(scores: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """log p of `wanted` (N, C) under logits (N, V), in fp32, on the CPU."""
    scores = scores.float()
    return (scores.gather(1, wanted.to(scores.device)) - scores.logsumexp(-1, True)).cpu()
