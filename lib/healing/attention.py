"""Attention within documents that are joined in one row: training without padding.

Each document keeps its own positions, and attention stays within it, so the numbers are those of
reading each alone. A model that cannot do that reads padded rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lib.healing import lora, packing
from lib.models.kernels import has_flash

HAS_VARLEN = torch.__version__ >= "2.12"  # before, it takes no groups of heads
if HAS_VARLEN:
    from torch.nn.attention.varlen import varlen_attn

NAME = "documents"  # of the attention, among those of transformers
PROBE = (5, 9)  # tokens of the two documents that a model is probed with
# shares of the logits' spread, of which rounding in one way moves less
LEAK = 0.02  # when another document comes before
ROUNDING = 0.5  # in 16 bits by another attention: about 0.1, and another function moves several


@contextmanager
def isolated_documents(model) -> Iterator[bool]:
    """Let the model read joined documents as if each were alone; yield False if it cannot."""
    if not isolates_documents(model):
        yield False
        return
    with _attending(model, NAME):
        yield True


@contextmanager
def _attending(model, implementation: str) -> Iterator[None]:
    """Give the model another attention of those of transformers."""
    own = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


@torch.inference_mode()
def isolates_documents(model) -> bool:
    """Probe whether the model's own attention reads a document, joined to another, as if alone.

    What comes before it must not matter to it. What comes after it never does, so the row in
    which it is alone is filled up: rows of one length are multiplied in the same way.
    """
    text_config = model.config.get_text_config(decoder=True)
    softcap = getattr(text_config, "attn_logit_softcapping", None)
    if not model._supports_attention_backend or softcap:
        return False
    training = model.training
    first, second = torch.arange(sum(PROBE)).mul(7).remainder(text_config.vocab_size).split(PROBE)
    other = first.add(1).remainder(text_config.vocab_size)
    filled_up = torch.cat([second, first])[None].to(model.device)
    try:
        model.eval()
        with lora.autocast_like(model):
            alone = model(input_ids=filled_up, use_cache=False).logits[0, : len(second)].float()
            with _attending(model, NAME):
                joined = _logits_after(model, first, second)
                after_another = _logits_after(model, other, second)
    finally:
        model.train(training)
    spread = alone.std()
    rounding = ROUNDING if lora.is_16bit(model) else LEAK
    leak = (joined - after_another).abs().max()
    difference = (joined - alone).abs().max()
    return bool(leak <= LEAK * spread and difference <= rounding * spread)


def _logits_after(model, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the logits (T, V) of the second of two documents that are joined in one row."""
    documents = [first.tolist(), second.tolist()]
    batch = packing.collator(joined=True, pad_token=0)([{"documents": documents}])
    batch = {k: v.to(model.device) if torch.is_tensor(v) else v for k, v in batch.items()}
    del batch["labels"]
    return model(**batch, use_cache=False).logits[0, len(first) :].float()


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
    max_length_q: int | None = None,
    **_,
) -> tuple[torch.Tensor, None]:
    """Return causal attention within documents: (1, heads, N, d) -> (1, N, heads, d).

    cu_seq_lens_q: (documents + 1,), where each begins; None: every row is one document.
    """
    if cu_seq_lens_q is None:
        mask = _band(query, sliding_window)
        return sdpa_attention_forward(module, query, key, value, mask, dropout, scaling)
    if HAS_VARLEN and has_flash(query) and not dropout:
        window = (sliding_window - 1 if sliding_window else -1, 0)
        parts = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
        ends, longest = cu_seq_lens_q.int(), int(max_length_q)
        output = varlen_attn(
            *parts,
            *(ends, ends, longest, longest),
            scale=scaling,
            window_size=window,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return output[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    documents = zip(*(x.split(lengths, dim=2) for x in (query, key, value)), strict=True)
    outputs = []
    for parts in documents:
        mask = _band(parts[0], sliding_window)
        output, _ = sdpa_attention_forward(module, *parts, mask, dropout, scaling)
        outputs.append(output)
    return torch.cat(outputs, dim=1), None


def _band(query: torch.Tensor, window: int | None) -> torch.Tensor | None:
    """Return the keys that each of T queries sees, of its window; None where all before it are."""
    length = query.shape[2]
    if not window or window >= length:
        return None
    seen = torch.ones(length, length, dtype=torch.bool, device=query.device)
    return seen.tril().triu(1 - window)


AttentionInterface.register(NAME, attention)
