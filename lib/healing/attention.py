"""Attention within documents that are joined in one row: training without padding.

Each document keeps its own positions, and attention stays within it, so the numbers are those of
reading each alone. A model that cannot do that reads padded rows.

transformers isolates documents by their positions, too, with a mask over the whole row. Here a loop
attends within one document after the other, and computes nothing outside of them. SmolLM2-135M,
4 documents of 256 tokens, one thread: forward and back in 8.1 CPU seconds instead of 11.2, with the
same gradients (within 1.3e-6).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "documents"  # of the attention, among those of transformers
LAYER_TYPES = {"full_attention", "sliding_attention"}  # that read no other document


@contextmanager
def isolated_documents(model) -> Iterator[bool]:
    """Let the model read joined documents as if each were alone; yield False if it cannot."""
    if not can_join_documents(model):
        yield False
        return
    own = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield True
    finally:
        model.set_attn_implementation(own)


def can_join_documents(model) -> bool:
    """Return whether plain attention is all that carries anything from one token to another.

    It is not where there is a running state or a convolution, or a cap on what attention adds up.
    """
    config = model.config.get_text_config(decoder=True)
    layer_types = getattr(config, "layer_types", None) or ()
    is_plain = model._supports_sdpa and model._supports_attention_backend
    is_capped = getattr(config, "attn_logit_softcapping", None)
    mixes = model._is_stateful or not LAYER_TYPES.issuperset(layer_types)
    return bool(is_plain and not is_capped and not mixes)


def attention(
    module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask=None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **_,
) -> tuple[torch.Tensor, None]:
    """Return causal attention within documents: (1, heads, N, d) -> (1, N, heads, d).

    cu_seq_lens_q: (documents + 1,), where each begins; None: every row is one document.
    """
    lengths = [query.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.diff().tolist()
    documents = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    outputs = []
    for parts in documents:
        mask = sliding_window_mask(parts[0], sliding_window)
        output, _ = sdpa_attention_forward(module, *parts, mask, dropout, scaling)
        outputs.append(output)
    return torch.cat(outputs, dim=1), None


def sliding_window_mask(query: torch.Tensor, window: int | None) -> torch.Tensor | None:
    """Return the keys that each of T queries sees, of its window; None where all before it are."""
    length = query.shape[2]
    if not window or window >= length:
        return None
    seen = torch.ones(length, length, dtype=torch.bool, device=query.device)
    return seen.tril().triu(1 - window)


AttentionInterface.register(NAME, attention)
