"""Attention within documents that are joined in one row: training without padding.

Each document keeps its own positions, and attention stays within it, so the numbers are those of
reading each alone. A model that cannot do that reads padded rows: one with a running state or a
convolution, one that caps what attention adds up, one whose window is shorter than a document, and
one that was seen to read another document (Nemotron does not tell its attention where one ends).

transformers isolates documents by their positions, too, with a mask over the whole row. Here a loop
attends within one document after the other, and computes nothing outside of them. SmolLM2-135M,
4 documents of 256 tokens, one thread: forward and back in 8.1 CPU seconds instead of 11.2, with the
same gradients (within 1.3e-6).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ..models.decoder import sample_tokens
from . import packing

NAME = "documents"  # of the attention, among those of transformers
LAYER_TYPES = {"full_attention", "sliding_attention"}  # that read no other document
PROBE = (5, 9)  # tokens of the two documents that a model is tried with, at most
# how far logits may move, in units of their standard deviation; more is not rounding
LEAK = 0.02  # those of SmolLM2 and Qwen2.5 in bf16 move by 0 when another document comes before
ROUNDING = 0.5  # in 16 bits, beside the model's own attention: there they move by 0.08


@contextmanager
def isolated_documents(model, max_tokens: int) -> Iterator[bool]:
    """Let the model read joined documents as if each were alone; yield False if it cannot.

    max_tokens: of a document, at most.
    """
    if not can_join_documents(model, max_tokens):
        yield False
        return
    with attending_with(model):
        yield True


@contextmanager
def attending_with(model, name: str = NAME) -> Iterator[None]:
    """Give the model another attention in place of its own: ours, or by transformers' name."""
    own = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def can_join_documents(model, max_tokens: int) -> bool:
    """Return whether a model reads joined documents as if each were alone: by its kind, and tried.

    max_tokens: of a document, at most. A try reads 42 tokens at most.
    """
    return _is_plain(model, max_tokens) and _keeps_documents_apart(model, max_tokens)


def _is_plain(model, max_tokens: int) -> bool:
    """Return whether plain attention is all that carries anything from one token to another."""
    config = model.config.get_text_config(decoder=True)
    layer_types = getattr(config, "layer_types", None) or ()
    is_plain = model._supports_sdpa and model._supports_attention_backend
    is_capped = getattr(config, "attn_logit_softcapping", None)
    mixes = not LAYER_TYPES.issuperset(layer_types)
    sees_all = (getattr(config, "sliding_window", None) or max_tokens) >= max_tokens
    return bool(is_plain and sees_all and not is_capped and not mixes)


@torch.no_grad()
def _keeps_documents_apart(model, max_tokens: int) -> bool:
    """Read a document alone, and after each of two others; return whether its logits stay.

    A kind of layer that nobody declares may let it read what comes before.
    """
    lengths = [min(length, max_tokens) for length in PROBE]
    first, second = sample_tokens(model, sum(lengths)).split(lengths)
    other = first.add(1).remainder(model.config.get_text_config(decoder=True).vocab_size)
    # after it, `first` fills the row up: rows of one length are multiplied in the same way
    filled_up = torch.cat([second, first])[None]
    training = model.training
    model.eval()
    try:
        alone = model(input_ids=filled_up, use_cache=False).logits[0, : len(second)].float()
        with attending_with(model):
            joined = _logits_after(model, first, second)
            after_another = _logits_after(model, other, second)
    except ValueError:  # of `attention`: Doge, say, gives it a mask
        return False
    finally:
        model.train(training)
    spread, rounding = alone.std(), ROUNDING if model.dtype.itemsize == 2 else LEAK
    leak = (joined - after_another).abs().max()
    difference = (joined - alone).abs().max()
    return bool(leak <= LEAK * spread and difference <= rounding * spread)


def _logits_after(model, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the logits (T, V) of the second of two documents that are joined in one row."""
    collate = packing.collator(joined=True)
    batch = collate([{"documents": [first.tolist(), second.tolist()]}])
    del batch["labels"]
    for name, value in batch.items():
        if torch.is_tensor(value):
            batch[name] = value.to(model.device)
    logits = model(**batch, use_cache=False).logits
    return logits[0, len(first) :].float()


def attention(
    module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask=None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    document_lengths: Sequence[int] | None = None,
    **_,
) -> tuple[torch.Tensor, None]:
    """Return causal attention within documents: (1, heads, N, d) -> (1, N, heads, d).

    document_lengths: in tokens; None: every row is one document.
    Raises ValueError for a mask, which is of more than what comes before: the model's own.
    """
    if attention_mask is not None:
        raise ValueError("Attention within documents has no other mask.")
    lengths = document_lengths or [query.shape[2]]
    documents = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    outputs = []
    for parts in documents:
        output, _ = sdpa_attention_forward(module, *parts, None, dropout, scaling)
        outputs.append(output)
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(NAME, attention)
