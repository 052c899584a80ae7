"""Documents joined in one row are read as each alone, and heal like padded ones."""

from dataclasses import replace
from inspect import signature
from itertools import pairwise

import pytest
import torch
from conftest import LENGTH, VOCAB, tiny
from torch.nn.functional import scaled_dot_product_attention

from lib import healing, profiles
from lib.models import adapters, documents, files

ABLE = ("llama", "mistral", "qwen2", "qwen3", "gemma3", "phi", "gpt_neox", "smollm3", "gpt2")
UNABLE = ("gemma2", "bloom", "lfm2", "qwen3_next", "granitemoehybrid")
NAMED = ("llama", "qwen2", "mistral", "phi", "gemma3")
RECIPE = replace(
    profiles.recipe("tiny-random", profiles.get("smoke")),
    **{"steps": 2, "batch": 8, "learning_rate": 0.02, "dropout": 0.0, "packed": False},
)


def some(count: int, seed: int = 0) -> list[list[int]]:
    """Documents of very unequal length, some beyond the sliding window."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, LENGTH, (count,), generator=draw).tolist()
    return [torch.randint(3, VOCAB, (n,), generator=draw).tolist() for n in lengths]


def logits(model, batch) -> torch.Tensor:
    with torch.inference_mode():
        return model(**batch, use_cache=False).logits


@pytest.mark.parametrize("name", ABLE)
def test_joined_documents_are_read_as_each_alone(name):
    model, read = tiny(name), some(5)
    batch = documents.collator(True, 0)([{"documents": read[:2]}, {"documents": read[2:]}])
    assert batch["input_ids"].shape == (1, sum(map(len, read)))
    labels = batch.pop("labels")[0]
    ends = torch.tensor([0, *map(len, read)]).cumsum(0)
    assert (labels == -100).nonzero().flatten().tolist() == ends[:-1].tolist()
    with documents.apart(model) as able:
        assert able
        found = logits(model, batch)[0]
    for document, (start, stop) in zip(read, pairwise(ends.tolist()), strict=True):
        alone = logits(model, {"input_ids": torch.tensor([document])})[0]
        torch.testing.assert_close(found[start:stop], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", UNABLE)
def test_who_cannot_keep_documents_apart_is_found_out(name):
    """A running state goes on from one document to the next; some attention is another one."""
    model = tiny(name)
    before = model.config._attn_implementation
    with documents.apart(model) as able:
        assert not able and model.config._attn_implementation == before


def test_a_document_sees_no_other():
    model, (first, second) = tiny("llama"), some(2)
    with documents.apart(model):
        found = [
            logits(model, {k: v for k, v in batch.items() if k != "labels"})[0, len(first) :]
            for batch in (
                documents.collator(True, 0)([{"documents": [before[: len(first)], second]}])
                for before in (first, [5] * len(first))
            )
        ]
    assert torch.equal(*found)


def trained(model, tmp_path, name: str, micro_batch: int, sequences: list[dict]):
    """Losses, and the adapter's weights, after RECIPE's steps."""
    with adapters.fresh(model, RECIPE) as wrapped:
        how = (files.tokenizer("tiny-random"), sequences, RECIPE, tmp_path / name, micro_batch)
        losses, _ = healing._train(wrapped, *how)
        weights = {n: p.detach().clone() for n, p in wrapped.named_parameters() if "lora" in n}
    return losses, weights


@pytest.mark.parametrize("name", NAMED)
def test_joined_sorted_and_one_by_one_heal_alike(name, tmp_path, monkeypatch):
    model = tiny(name)
    sequences = [{"documents": [document]} for document in some(RECIPE.steps * RECIPE.batch)]
    ways = {"joined": (True, 4), "sorted": (False, 4), "one by one": (False, 1)}
    found = {}
    for way, (joined, micro_batch) in ways.items():
        if not joined:
            monkeypatch.setattr(documents, "_reads_apart", lambda model: False)
        found[way] = trained(model, tmp_path, way, micro_batch, sequences)
    expected, weights = found.pop("one by one")
    for losses, own in found.values():
        assert losses == pytest.approx(expected, abs=2e-4)
        assert own.keys() == weights.keys()
        for key, value in weights.items():
            torch.testing.assert_close(own[key], value, atol=2e-3, rtol=0.02)


def test_the_order_within_a_step_is_all_that_changes():
    sequences = [{"documents": [[i] * (1 + i * 7 % 16)]} for i in range(32)]
    for joined in (True, False):
        found = documents.arranged(sequences, 16, 4, joined)
        for start in (0, 16):
            step = slice(start, start + 16)
            assert sorted(map(str, found[step])) == sorted(map(str, sequences[step]))
    dealt = [documents.real_tokens(found[i : i + 4]) for i in range(0, 16, 4)]
    assert dealt == sorted(dealt)
    found = documents.arranged(sequences, 16, 4, True)
    dealt = [documents.real_tokens(found[i : i + 4]) for i in range(0, 16, 4)]
    assert max(dealt) - min(dealt) <= 16


def test_padding_is_counted_and_the_quickest_is_taken():
    sequences = [{"documents": [[1] * n]} for n in (1, 100, 2, 99) * 4]
    read = {size: documents.processed_tokens(sequences, 16, size) for size in (1, 2, 4, 8, 16)}
    assert read == {1: 808, 2: 808, 4: 808, 8: 816, 16: 1600}
    assert documents.quickest(sequences, 16, 16) == 8
    assert documents.quickest(sequences, 16, 4) == 4


# ---- the kernel of a GPU, in the place of which stands what its documentation says -----------


def reference(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa
):
    """What `varlen_attn` computes, document by document."""
    assert cu_seq_q.dtype == torch.int32 and max_q == cu_seq_q.diff().max()
    found = []
    for start, stop in pairwise(cu_seq_q.tolist()):
        q, k, v = (x[start:stop].transpose(0, 1)[None] for x in (query, key, value))
        place = torch.arange(stop - start)
        apart = place[:, None] - place
        seen = (apart >= 0) & (apart <= window_size[0] if window_size[0] >= 0 else True)
        part = scaled_dot_product_attention(q, k, v, seen, scale=scale, enable_gqa=enable_gqa)
        found.append(part[0].transpose(0, 1))
    return torch.cat(found)


@pytest.mark.parametrize("name", NAMED)
def test_the_kernel_is_asked_for_the_same(name, monkeypatch):
    kernel = documents.varlen_attn
    if kernel:  # this release of PyTorch has it
        signature(kernel).bind(*range(7), scale=1.0, window_size=(-1, 0), enable_gqa=True)
    model, read = tiny(name), some(4)
    batch = documents.collator(True, 0)([{"documents": read}])
    del batch["labels"]
    with documents.apart(model):
        expected = logits(model, batch)
        monkeypatch.setattr(documents, "varlen_attn", reference)
        monkeypatch.setattr(documents, "_has_kernel", lambda query: True)
        torch.testing.assert_close(logits(model, batch), expected, atol=1e-4, rtol=1e-4)
