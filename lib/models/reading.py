"""Input and output of decoders: batches of rows with shared prefixes, greedy continuations."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from unittest import mock

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from ..data.encoding import GSM8K_STOPS, Row

PREFIX_STEP = 4  # shared prefixes are cut to a multiple of this, so that more of them batch


@dataclass(frozen=True)
class Batch:
    """The tokens of rows beyond their prefixes, (B, T), right-padded, and where to score them.

    Right-padded sequences need no mask: causal attention never looks ahead.
    """

    ids: torch.Tensor
    places: list[int]  # of each row in the task
    row: torch.Tensor  # (N,) of each scored position,
    position: torch.Tensor  # (N,) and
    target_ids: torch.Tensor  # (N, C) tokens to score there; where they are fewer, the first again
    counts: list[int]  # scored positions of each row
    widths: list[int]  # tokens to score at a position of each row


@dataclass(frozen=True)
class SharedPrefix:
    """G prefixes of equal length (G, P), or None, and the batches of rows that continue them."""

    prefix: torch.Tensor | None
    batches: list[Batch]


def prefix_batches(rows: list[Row], batch_tokens: int) -> Iterator[SharedPrefix]:
    """Rows of a group share their prefix; groups of equal shape are read together.

    A forward pass reads about `batch_tokens` tokens, or one row if that is longer.
    """
    groups = {}
    for place, row in enumerate(rows):
        key = ("alone", place) if row.group is None else row.group
        groups.setdefault(key, []).append((place, row))
    shaped = [(_shape(group), group) for group in groups.values()]
    shaped.sort(key=lambda pair: pair[0])
    for (length, size), alike in groupby(shaped, key=lambda pair: pair[0][:2]):
        together = []
        for (_, _, longest), group in alike:
            # all groups are padded to this one, which has the longest rows so far
            tokens = (len(together) + 1) * (length + size * longest)
            if together and tokens > batch_tokens:
                yield _shared(together, length, batch_tokens)
                together = []
            together.append(group)
        yield _shared(together, length, batch_tokens)


def _shape(group: list[tuple[int, Row]]) -> tuple[int, int, int]:
    """Length of the shared prefix, number of rows, longest remainder. Scored positions are own."""
    tokens = [row.tokens for _, row in group]
    unscored = min(len(row.tokens) - len(row.target_ids) for _, row in group)
    length = 0
    if len(group) > 1:
        shared = os.path.commonprefix(tokens)  # of sequences, too
        length = min(len(shared), unscored) // PREFIX_STEP * PREFIX_STEP
    return length, len(group), max(map(len, tokens)) - length


def _shared(groups: list[list[tuple[int, Row]]], length: int, batch_tokens: int) -> SharedPrefix:
    """The prefixes of groups of one shape, `length` tokens each, and the batches of their rows.

    Several groups are one batch: a cache has one copy of each prefix, and is repeated for the rows
    in their order, so every group must have as many. One group may be split at will, since all of
    its rows continue the same prefix.
    """
    placed_rows = [pair for group in groups for pair in group]
    batch_rows = len(placed_rows)
    if len(groups) == 1:
        # all questions of a subject, say: more than memory holds at once. The shortest first, so
        # that rows beside each other are padded by little
        placed_rows.sort(key=lambda pair: len(pair[1].tokens))
        _, longest_row = placed_rows[-1]
        own_tokens = max(1, len(longest_row.tokens) - length)
        batch_rows = max(1, batch_tokens // own_tokens)
    batches = []
    for first in range(0, len(placed_rows), batch_rows):
        batches.append(_batch(placed_rows[first : first + batch_rows], length))
    if not length:
        return SharedPrefix(None, batches)
    first_rows = [group[0][1] for group in groups]  # any of a group: its rows begin alike
    prefixes = [row.tokens[:length] for row in first_rows]
    return SharedPrefix(torch.tensor(prefixes), batches)


def _batch(pairs: list[tuple[int, Row]], length: int) -> Batch:
    """The batch of rows (with their places) whose first `length` tokens are read elsewhere."""
    rows = [row for _, row in pairs]
    own = [torch.tensor(row.tokens[length:]) for row in rows]
    scored = [np.asarray(row.target_ids) for row in rows]
    counts = [len(targets) for targets in scored]
    widths = [targets.shape[1] for targets in scored]
    position, target_ids = [], []
    for tokens, targets, width in zip(own, scored, widths, strict=True):
        # the last tokens are scored: what the model says after each is compared with its targets
        position.append(np.arange(len(tokens) - len(targets), len(tokens)))
        # gather needs as many targets at each position; `widths` says which to throw away again
        filled_up = np.repeat(targets[:, :1], max(widths) - width, axis=1)
        target_ids.append(np.hstack([targets, filled_up]))
    return Batch(
        ids=pad_sequence(own, batch_first=True),
        places=[place for place, _ in pairs],
        row=torch.from_numpy(np.repeat(np.arange(len(rows)), counts)),
        position=torch.from_numpy(np.concatenate(position)),
        target_ids=torch.from_numpy(np.concatenate(target_ids)),
        counts=counts,
        widths=widths,
    )


@torch.inference_mode()
def greedy_texts(
    model, tokenizer, prompts: list[tuple[int, ...]], new_tokens: int, shares_prefix: bool = False
) -> list[str]:
    """Continuations of one batch up to the first of GSM8K_STOPS, the likeliest token each time.

    Of the model's generation_config, only what ends a text counts. Padded on the left, as
    generation needs it. shares_prefix: what all prompts begin with is read once; for that a cache
    must be one that can be continued in several ways.
    """
    start = 0
    if shares_prefix and len(prompts) > 1:
        shortest = min(map(len, prompts))  # of it, too, a token is left to read
        start = min(len(os.path.commonprefix(prompts)), shortest - 1)
    padded = tokenizer.pad(
        {"input_ids": [list(prompt[start:]) for prompt in prompts]},
        padding_side="left",
        return_tensors="pt",
    ).to(model.device)
    cache = None
    if start:
        prefix = torch.tensor([prompts[0][:start]], device=model.device)
        cache = model(input_ids=prefix, use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(len(prompts))
        repeated = prefix.expand(len(prompts), -1)
        # the padding stands between the prefix and the rest; the mask and the positions skip it
        padded["input_ids"] = torch.cat([repeated, padded.input_ids], dim=1)
        padded["attention_mask"] = torch.cat(
            [torch.ones_like(repeated), padded.attention_mask], dim=1
        )
    plain = GenerationConfig(
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=new_tokens,
        stop_strings=list(GSM8K_STOPS),
    )
    length = padded.input_ids.shape[1]
    with mock.patch.object(model, "generation_config", plain):
        sequences = model.generate(**padded, cache=cache, tokenizer=tokenizer)
    texts = tokenizer.batch_decode(sequences[:, length:], skip_special_tokens=True)
    stop = "|".join(map(re.escape, GSM8K_STOPS))
    return [re.split(stop, text, maxsplit=1)[0] for text in texts]
