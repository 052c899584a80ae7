"""Documents joined in one row, each of which sees only itself: training without padding.

Each document keeps its own positions, and attention stays within it, so the numbers are those of
reading each alone. A model that cannot do that reads padded rows.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from inspect import signature
from weakref import WeakKeyDictionary

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, DataCollatorWithFlattening
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lib.data import sets
from lib.healing import lora
from lib.models.decoder import decoder_layers

try:  # in newer releases of PyTorch
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None

NAME = "documents"  # of the attention, among those of transformers
PROBE = (5, 9)  # tokens of the documents that a model is tried with
PASS = 64  # tokens in whose time a pass begins and ends, assumed
# shares of the logits' spread, of which rounding in one way moves less
LEAK = 0.02  # when another document comes before
ROUNDING = 0.5  # in 16 bits by another attention: about 0.1, and another function moves several
KEYWORDS = {"scale", "window_size", "enable_gqa"}  # of varlen_attn; not all before PyTorch 2.12

_tried = WeakKeyDictionary()  # models, and whether they keep documents apart with these layers
_flattened = DataCollatorWithFlattening(return_flash_attn_kwargs=True)


def training_sequences(tokenizer, recipe) -> tuple[list[dict], float]:
    """All sequences of a healing in the order they are read, and how many epochs that is.

    recipe: a `healing.Recipe`.

    A sequence is {"documents": token ids of each}. Packed: documents, each with the end-of-text
    token, fill sequences of max_tokens, and are cut where one ends. Else each document is one
    sequence, truncated. Documents are shuffled anew each epoch, by the seed.
    """
    count = recipe.steps * recipe.batch
    texts = sets.healing_texts(recipe.source, count)
    if recipe.packed:
        ids, end = tokenizer(texts).input_ids, [tokenizer.eos_token_id]
    else:
        ids = tokenizer(texts, truncation=True, max_length=recipe.max_tokens).input_ids
        end = []
    order = random.Random(recipe.seed)
    sequences, documents, first_epoch = [], [], 0
    while len(sequences) < count:
        for document in order.sample(ids, len(ids)):
            rest = document + end
            while rest:
                room = recipe.max_tokens - sum(map(len, documents))
                documents.append(rest[:room])
                rest = rest[room:]
                if not recipe.packed or len(documents[-1]) == room:
                    sequences.append({"documents": documents})
                    documents = []
        first_epoch = first_epoch or max(len(sequences), 1)
    return sequences[:count], round(count / first_epoch, 3)


def collator(joined: bool, pad_token: int) -> Callable[[Sequence[dict]], dict]:
    """Makes a batch of sequences ({"documents": token ids of each}), with labels.

    joined: all documents in one row, input_ids, position_ids and labels (1, N); else a row each,
    (B, T). There is no loss on padding and on the first token of a document (label -100).
    """

    def collate(sequences: Sequence[dict]) -> dict:
        documents = [ids for sequence in sequences for ids in sequence["documents"]]
        if joined:
            return _flattened([{"input_ids": ids} for ids in documents])
        return padded(documents, pad_token)

    return collate


def padded(rows: Sequence[list[int]], pad_token: int) -> dict[str, torch.Tensor]:
    """Documents as rows, padded on the right, so that causal attention needs no mask."""
    rows = [torch.tensor(row) for row in rows]
    labels = pad_sequence(rows, batch_first=True, padding_value=-100)
    labels[:, 0] = -100  # nothing predicts it, so it is no target to be counted
    return {
        "input_ids": pad_sequence(rows, batch_first=True, padding_value=pad_token),
        "labels": labels,
    }


def real_tokens(sequences: Iterable[dict]) -> int:
    """Tokens of all documents, padding not counted."""
    return sum(len(document) for sequence in sequences for document in sequence["documents"])


def arranged(sequences: Sequence[dict], batch: int, micro_batch: int, joined: bool) -> list[dict]:
    """The sequences with those of each step in another order: the sum of their gradients stays.

    By length, so that a padded micro-batch holds documents of like length; where they are joined,
    dealt out, so that no micro-batch is much longer than the others.
    """
    ordered, parts = [], batch // micro_batch
    for start in range(0, len(sequences), batch):
        step = sorted(sequences[start : start + batch], key=lambda s: real_tokens([s]))
        if joined:
            step = [sequence for part in range(parts) for sequence in step[part::parts]]
        ordered += step
    return ordered


def processed_tokens(sequences: Sequence[dict], batch: int, micro_batch: int) -> int:
    """Tokens that padded micro-batches read, padding counted; joined ones read the real ones."""
    order = arranged(sequences, batch, micro_batch, joined=False)
    return sum(_read_tokens(part, joined=False) for part in _parts(order, micro_batch))


def longest(ordered: Sequence[dict], micro_batch: int, joined: bool) -> list[dict]:
    """The micro-batch that reads most tokens, of sequences in the order of `arranged`."""
    return max(_parts(ordered, micro_batch), key=lambda part: _read_tokens(part, joined))


def _parts(ordered: Sequence[dict], micro_batch: int) -> list[Sequence[dict]]:
    """The micro-batches in turn."""
    starts = range(0, len(ordered), micro_batch)
    return [ordered[start : start + micro_batch] for start in starts]


def _read_tokens(part: Sequence[dict], joined: bool) -> int:
    """Tokens that a micro-batch reads; padded documents are as long as the longest."""
    lengths = [len(document) for sequence in part for document in sequence["documents"]]
    return sum(lengths) if joined else len(lengths) * max(lengths)


def quickest(sequences: Sequence[dict], batch: int, most: int) -> int:
    """The padded micro-batch, of at most `most` sequences, that takes the least time.

    A pass takes the time of the tokens that it reads, and of PASS more.
    """
    return min(
        (size for size in range(1, most + 1) if batch % size == 0),
        key=lambda size: processed_tokens(sequences, batch, size) + PASS * len(sequences) / size,
    )


@contextmanager
def isolated_documents(model) -> Iterator[bool]:
    """Within, the model reads joined documents as if each were alone; False if it cannot."""
    if not _reads_apart(model):
        yield False
        return
    with _attending(model, NAME):
        yield True


@contextmanager
def _attending(model, implementation: str) -> Iterator[None]:
    """Within, the model's attention is another of those of transformers."""
    own = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def _reads_apart(model) -> bool:
    """Whether the logits of joined documents are those of each alone; layers are tried once."""
    text_config = model.config.get_text_config(decoder=True)
    softcap = getattr(text_config, "attn_logit_softcapping", None)
    if not model._supports_attention_backend or softcap:
        return False
    known = _tried.setdefault(model, {})
    layers = tuple(map(id, decoder_layers(model)))
    if layers not in known:
        known[layers] = _tries(model)
    return known[layers]


@torch.inference_mode()
def _tries(model) -> bool:
    """Whether a document, joined to another, is read as alone by the model's own attention.

    What comes before it must not matter to it. What comes after it never does, so the row in
    which it is alone is filled up: rows of one length are multiplied in the same way.
    """
    training = model.training
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    first, second = torch.arange(sum(PROBE)).mul(7).remainder(vocabulary).split(PROBE)
    other = first.add(1).remainder(vocabulary)
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
    rounding = ROUNDING if lora.half(model) else LEAK
    leak = (joined - after_another).abs().max()
    difference = (joined - alone).abs().max()
    return bool(leak <= LEAK * spread and difference <= rounding * spread)


def _logits_after(model, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The logits (T, V) of the second of two documents that are joined in one row."""
    batch = _flattened([{"input_ids": document.tolist()} for document in (first, second)])
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
    """Causal attention within documents: (1, heads, N, d) -> (1, N, heads, d).

    cu_seq_lens_q: (documents + 1,), where each begins; None: every row is one document.
    """
    if cu_seq_lens_q is None:
        mask = _band(query, sliding_window)
        return sdpa_attention_forward(module, query, key, value, mask, dropout, scaling)
    if _has_kernel(query) and _takes_keywords(varlen_attn) and not dropout:
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
    split = [x.split(lengths, dim=2) for x in (query, key, value)]
    outputs = [None] * len(lengths)
    for length in dict.fromkeys(lengths):  # those of a length in one call
        places = [i for i, other in enumerate(lengths) if other == length]
        parts = [torch.cat([documents[i] for i in places]) for documents in split]
        mask = _band(parts[0], sliding_window)
        together, _ = sdpa_attention_forward(module, *parts, mask, dropout, scaling)
        for i, document in zip(places, together.split(1), strict=True):
            outputs[i] = document
    return torch.cat(outputs, dim=1), None


def _has_kernel(query: torch.Tensor) -> bool:
    """Whether PyTorch's attention over documents of any length runs there."""
    if varlen_attn is None or not query.is_cuda or query.dtype == torch.float32:
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0)


@cache
def _takes_keywords(kernel: Callable) -> bool:
    """Whether that attention takes all KEYWORDS: in PyTorch 2.10 and 2.11 it does not."""
    return signature(kernel).parameters.keys() >= KEYWORDS


def _band(query: torch.Tensor, window: int | None) -> torch.Tensor | None:
    """The keys that each of T queries sees, those of its window; None where all before it are."""
    length = query.shape[2]
    if not window or window >= length:
        return None
    seen = torch.ones(length, length, dtype=torch.bool, device=query.device)
    return seen.tril().triu(1 - window)


AttentionInterface.register(NAME, attention)
