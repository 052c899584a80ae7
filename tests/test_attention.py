"""Documents joined in one row are read as each alone, and heal like padded ones."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from conftest import LENGTH, VOCAB, WINDOW, tiny
from transformers import LlamaForCausalLM

from lib.healing import attention, lora, packing, training
from lib.healing.attention import isolated_documents
from replication import profiles
from scripts import families

RECIPE = replace(
    profiles.recipe("tiny-random", profiles.get("smoke")),
    **{"steps": 2, "batch": 8, "learning_rate": 0.02, "dropout": 0.0, "packed": False},
)


def documents(count: int, longest: int = LENGTH) -> list[list[int]]:
    """Return documents of very unequal length."""
    draw = torch.Generator().manual_seed(0)
    read = []
    for length in torch.randint(2, longest + 1, (count,), generator=draw).tolist():
        tokens = torch.randint(3, VOCAB, (length,), generator=draw)
        read.append(tokens.tolist())
    return read


def logits(model, batch) -> torch.Tensor:
    with torch.inference_mode():
        return model(**batch, use_cache=False).logits


def joined_batch(read: list[list[int]]) -> tuple[dict, torch.Tensor]:
    """Return documents in one row, and its labels."""
    collate = packing.collator(True)
    sequences = [{"documents": read[:2]}, {"documents": read[2:]}]
    batch = collate(sequences)
    labels = batch.pop("labels")
    return batch, labels[0]


@pytest.mark.parametrize("name, longest", [("llama", LENGTH), ("gemma3", WINDOW)])
def test_joined_documents_are_read_as_each_alone(name, longest):
    model = tiny(name)
    read = documents(5, longest)
    batch, labels = joined_batch(read)
    with isolated_documents(model, longest) as able:
        assert able
        (joined,) = logits(model, batch)
    start = 0
    for document in read:
        stop = start + len(document)
        (alone,) = logits(model, {"input_ids": torch.tensor([document])})
        torch.testing.assert_close(joined[start:stop], alone, atol=1e-4, rtol=1e-4)
        assert labels[start] == -100
        assert labels[start + 1 : stop].tolist() == document[1:]
        start = stop
    assert len(labels) == stop


@pytest.mark.parametrize("name", ["gemma2", "granitemoehybrid", "lfm2", "mistral"])
def test_who_cannot_keep_documents_apart_is_found_out(name):
    """A running state or a convolution goes on from one document to the next; a cap is not ours,
    nor a window that is shorter than a document, though longer than what a try reads."""
    model = tiny(name)
    if name == "mistral":
        model.config.sliding_window = 2 * sum(attention.PROBE)
    before = model.config._attn_implementation
    with isolated_documents(model, 2 * sum(attention.PROBE) + 1) as able:
        assert not able and model.config._attn_implementation == before
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("name, able", [("llama", True), ("doge", False), ("nemotron", False)])
def test_a_try_in_bf16_tells_the_same(name, able):
    """Where rounding moves logits, too. Doge's attention has a mask of its own."""
    model = families.tiny_model(name).bfloat16()
    with isolated_documents(model, LENGTH) as joined:
        assert joined == able


class WithoutCount(LlamaForCausalLM):
    """Takes any keyword, and does not count: the loss is the mean of what it is given."""

    def forward(self, *args, num_items_in_batch=None, **kwargs):
        return super().forward(*args, **kwargs)


def trained(model, folder, micro_batch: int, joined: bool = False):
    """Return the losses, and the adapter's weights, after RECIPE's steps."""
    read = documents(RECIPE.steps * RECIPE.batch)
    sequences = [{"documents": [document]} for document in read]
    with (
        attention.attending_with(model) if joined else nullcontext(),
        lora.new_lora(model, RECIPE) as wrapped,
    ):
        collate = packing.collator(joined)
        history = training._train(wrapped, collate, sequences, RECIPE, folder, micro_batch)
        parameters = dict(wrapped.named_parameters())
        weights = {name: parameters[name].clone() for name in parameters if "lora" in name}
    return [entry["loss"] for entry in history if "loss" in entry], weights


@pytest.mark.parametrize("kind", [LlamaForCausalLM, WithoutCount])
def test_joined_padded_and_one_by_one_heal_alike(kind, tmp_path):
    """A step is a mean over its targets, however many there are in each of its micro-batches."""
    model = tiny("llama")
    model.__class__ = kind
    joined = trained(model, tmp_path / "joined", 4, joined=True)
    padded = trained(model, tmp_path / "padded", 4)
    expected, weights = trained(model, tmp_path / "one by one", 1)
    for losses, own in (joined, padded):
        assert losses == pytest.approx(expected, abs=2e-4)
        assert own.keys() == weights.keys()
        for key, value in weights.items():
            torch.testing.assert_close(own[key], value, atol=2e-3, rtol=0.02)
