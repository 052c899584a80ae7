"""Healing on weights that stay packed in 4 bits, as on a GPU, but on the CPU.

`models.load` unpacks for device "cpu" and not for torch.device("cpu"). bitsandbytes is told that
the processor has no AVX512-BF16: there a forward in eval mode repacks the weights for inference,
and every gradient after it is wrong.
"""

from dataclasses import replace
from types import SimpleNamespace

import bitsandbytes
import numpy as np
import pytest
import torch
from conftest import DEVICE, stored, wide_llama
from safetensors.torch import load_file
from test_healing import killed_at

from lib.blocks import Block
from lib.healing import lora, packing, training
from lib.models import loading
from lib.models.decoder import residual_stream
from lib.pruning import dropped
from replication import profiles

BLOCK, FIRST = Block(2, 1), 2
RECIPE = replace(
    profiles.recipe("tiny-random", profiles.get("smoke")),
    steps=4,
    max_tokens=32,
    learning_rate=0.05,
    packed=False,
)
WEIGHTS = "adapter_model.safetensors"


pytestmark = pytest.mark.usefixtures("few_articles")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(stored(wide_llama(), tmp_path_factory.mktemp("packed")))


@pytest.fixture
def packed(checkpoint, monkeypatch):
    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: False)
    device = torch.device(DEVICE)
    model, tokenizer = loading.load(checkpoint, quantization="nf4", dtype="bfloat16", device=device)
    layers = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 5 * 7 and all(m.weight.dtype == torch.uint8 for m in layers)
    return model, tokenizer


def healed(base, folder, recipe=RECIPE, **options) -> tuple[training.Healed, bytes]:
    with dropped(base[0], BLOCK):
        result = training.heal(*base, recipe, folder, **options)
    assert result.status == "ok" and len(result.losses) == recipe.steps
    return result, (result.adapter / WEIGHTS).read_bytes()


def test_healing_packed_is_healing_unpacked(packed, checkpoint, tmp_path, ids):
    unpacked = loading.load(checkpoint, quantization="nf4", dtype="bfloat16", device="cpu")
    unpacked[0].to(DEVICE)
    first, second = (
        healed(base, tmp_path / name)[0] for base, name in ((packed, "4bit"), (unpacked, "bf16"))
    )
    np.testing.assert_allclose(first.losses, second.losses, atol=0.01)
    logits = []
    for model, _ in (packed, unpacked):
        with dropped(model, BLOCK), lora.load_lora(model, first.adapter), torch.inference_mode():
            logits.append(model(ids).logits)
    torch.testing.assert_close(*logits, atol=0.2, rtol=0.05)


def test_the_packed_model_comes_back_whole(packed, tmp_path, ids):
    model, _ = packed
    before, modules = model(ids).logits, dict(model.named_modules())
    healed(packed, tmp_path / "all")
    healed(packed, tmp_path / "after", replace(RECIPE, first_layer=FIRST))
    assert dict(model.named_modules()) == modules and not model.training
    assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize("first", [0, FIRST])
def test_recomputed_activations_change_no_bit(packed, tmp_path, monkeypatch, first):
    recipe, needed, train = replace(RECIPE, first_layer=first), {}, training._train

    def limited(wrapped, *arguments):
        if not arguments[-1]:
            raise torch.OutOfMemoryError("CUDA out of memory.")

        def note(l, x):
            if not torch.is_inference_mode_enabled():  # as where documents are tried
                needed.setdefault(l, x.requires_grad)

        with residual_stream(wrapped.get_base_model(), note):
            return train(wrapped, *arguments)

    whole, expected = healed(packed, tmp_path / "whole", recipe, micro_batch=1)
    monkeypatch.setattr(training, "_train", limited)
    again, adapter = healed(packed, tmp_path / "again", recipe, micro_batch=1)
    assert again.recomputes and not whole.recomputes
    assert again.losses == whole.losses and adapter == expected
    assert needed == {l: l > first for l in range(5)}
    assert not packed[0].is_activation_checkpointing


@pytest.mark.parametrize("first", [0, FIRST])
def test_in_fp16_the_gradients_are_scaled(checkpoint, tmp_path, monkeypatch, first):
    """By accelerate's scaler, which it has on a GPU only; here it is given the CPU's."""
    recipe = replace(RECIPE, first_layer=first)
    plain = loading.load(checkpoint, dtype="float32", device="cpu")
    expected = healed(plain, tmp_path / "fp32", recipe)[0]
    base = loading.load(checkpoint, dtype="float16", device="cpu")
    real, make = training.TrainingArguments, training._Healing.create_accelerator_and_postprocess
    scalers = []

    def with_scaler(trainer):
        make(trainer)
        trainer.accelerator.native_amp = True
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu")
        scalers.append(trainer.accelerator.scaler)

    monkeypatch.setattr(training, "TrainingArguments", lambda **k: real(**k | {"fp16": True}))
    monkeypatch.setattr(training._Healing, "create_accelerator_and_postprocess", with_scaler)
    whole, adapter = healed(base, tmp_path / "fp16", recipe)
    assert scalers[0].get_scale() > 1 and scalers[0].state_dict()["_growth_tracker"] > 0
    np.testing.assert_allclose(whole.losses, expected.losses, atol=0.02)
    assert load_file(whole.adapter / WEIGHTS).popitem()[1].dtype == torch.float32
    with killed_at(3):
        healed(base, tmp_path / "resumed", recipe)
    assert healed(base, tmp_path / "resumed", recipe)[1] == adapter


@pytest.mark.parametrize("device, expected", [("cuda", True), ("cpu", False)])
def test_a_gpu_in_fp16_scales(tmp_path, monkeypatch, device, expected):
    given = {}
    monkeypatch.setattr(
        training, "TrainingArguments", lambda **k: given.update(k) or SimpleNamespace(n_gpu=1)
    )
    for dtype in (torch.float16, torch.bfloat16):
        model = SimpleNamespace(device=torch.device(device), dtype=dtype)
        training._training_arguments(RECIPE, tmp_path, 4, model)
        assert given["fp16"] == (expected and dtype == torch.float16)


@pytest.mark.parametrize("first", [0, FIRST])
def test_resumed_is_uninterrupted(packed, tmp_path, first):
    recipe = replace(RECIPE, first_layer=first)
    whole, expected = healed(packed, tmp_path / "whole", recipe)
    with killed_at(3):
        healed(packed, tmp_path / "resumed", recipe)
    assert (tmp_path / "resumed" / "checkpoint-2").exists()
    again, adapter = healed(packed, tmp_path / "resumed", recipe)
    assert again.losses == whole.losses and adapter == expected


def test_no_adapter_is_merged_into_packed_weights(packed, tmp_path, ids):
    """Merging would quantise anew."""
    model, _ = packed
    result, _ = healed(packed, tmp_path / "healed")
    before = model(ids).logits
    with dropped(model, BLOCK), pytest.raises(ValueError, match="packed in 4 bits"):
        lora.merge(model, result.adapter)
    assert torch.equal(model(ids).logits, before)


def test_joined_documents_heal_like_padded_ones(packed, tmp_path, monkeypatch):
    recipe = replace(RECIPE, packed=False, dropout=0.0)
    joined, _ = healed(packed, tmp_path / "joined", recipe, micro_batch=4)
    monkeypatch.setattr(packing, "_reads_apart", lambda model: False)
    padded, _ = healed(packed, tmp_path / "padded", recipe, micro_batch=4)
    assert (joined.joined, padded.joined) == (True, False)
    np.testing.assert_allclose(joined.losses, padded.losses, atol=0.01)
