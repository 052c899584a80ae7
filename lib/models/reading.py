"""What decoders read and write: batches of rows with shared prefixes, greedy continuations."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import nn
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from lib.data.encoding import GSM8K_STOPS, Row

PREFIX_STEP = 4  # shared prefixes are cut to a multiple of this, so that more of them batch


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
    same = (len(set(column)) == 1 for column in zip(*tokens, strict=False))
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


@contextmanager
def plain(model) -> Iterator[None]:
    """The model with a generation_config that says nothing but which tokens end a text."""
    own = model.generation_config
    model.generation_config = GenerationConfig(eos_token_id=own.eos_token_id)
    try:
        yield
    finally:
        model.generation_config = own


@torch.inference_mode()
def greedy(model, tokenizer, prompts: list[tuple[int, ...]], new_tokens: int) -> list[str]:
    """Continuations of one batch, padded on the left, as generation needs it."""
    pad = tokenizer.pad_token_id
    ids, mask = (
        nn.utils.rnn.pad_sequence(list(map(torch.tensor, rows)), True, value, "left")
        for rows, value in ((prompts, pad), ([[1] * len(p) for p in prompts], 0))
    )
    stopped = _Stopped(tokenizer, ids.shape[1])
    written = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        do_sample=False,
        max_new_tokens=new_tokens,
        pad_token_id=pad,
        stopping_criteria=StoppingCriteriaList([stopped]),
    )
    texts = tokenizer.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)
    return [_before_stop(text) for text in texts]


def _before_stop(text: str) -> str:
    for stop in GSM8K_STOPS:
        text = text.split(stop)[0]
    return text


class _Stopped(StoppingCriteria):
    """Ends each text that has one of GSM8K_STOPS after its prompt of `start` tokens."""

    def __init__(self, tokenizer, start: int):
        self.tokenizer, self.start = tokenizer, start

    def __call__(self, input_ids, scores, **kwargs):
        texts = self.tokenizer.batch_decode(input_ids[:, self.start :])
        found = [any(stop in text for stop in GSM8K_STOPS) for text in texts]
        return torch.tensor(found, device=input_ids.device)
