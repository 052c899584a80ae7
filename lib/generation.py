"""What pruned models write: greedy continuations of prompts (GSM8K)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from lib.pruning import Block, dropped
from lib.tasks import GSM8K_STOPS, Row


def continuations(
    model, tokenizer, blocks: Sequence[Block], rows: list[Row], new_tokens: int, batch_tokens: int
) -> dict[Block, list[str]]:
    """For each block, how the model without it goes on from every row, greedily.

    Greedily means the likeliest token each time: no penalty that a model's generation_config asks
    for (as of repetitions) is applied. A text ends before the first of GSM8K_STOPS, at the end of
    text, or after `new_tokens` tokens. Prompts of like length are read together, about
    `batch_tokens` tokens at once.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].tokens))
    longest = max(len(row.tokens) for row in rows) + new_tokens
    size = max(1, batch_tokens // longest)
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    texts = {block: [""] * len(rows) for block in blocks}
    for block in tqdm(blocks, desc="generation"):
        with dropped(model, block), _plain(model):
            for batch in batches:
                prompts = [rows[i].tokens for i in batch]
                for i, text in zip(
                    batch, _greedy(model, tokenizer, prompts, new_tokens), strict=True
                ):
                    texts[block][i] = text
    return texts


@contextmanager
def _plain(model) -> Iterator[None]:
    """The model with a generation_config that says nothing but which tokens end a text."""
    own = model.generation_config
    model.generation_config = GenerationConfig(eos_token_id=own.eos_token_id)
    try:
        yield
    finally:
        model.generation_config = own


@torch.inference_mode()
def _greedy(model, tokenizer, prompts: list[tuple[int, ...]], new_tokens: int) -> list[str]:
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
