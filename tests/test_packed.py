"""NF4 weights that stay packed, as on a GPU, on a CPU: the same numbers as unpacked ones.

`loading.load` unpacks for device "cpu" and not for torch.device("cpu"). bitsandbytes is told that
the processor has no AVX512-BF16: there a forward in eval mode repacks the weights for inference,
and every gradient after it is wrong.
"""

import weakref
from dataclasses import replace
from functools import partial

import bitsandbytes
import numpy as np
import pytest
import torch
from conftest import DEVICE, real_task, stored, wide_llama, with_real_tokenizer
from healings import WEIGHTS, killed_at, weights
from safetensors.torch import load_file

from lib import similarity
from lib.blocks import UNPRUNED, Block
from lib.data import sets
from lib.data.encoding import Row
from lib.gpu.memory import ActivationBudget
from lib.healing import linear, lora, training
from lib.models import loading
from lib.prune import Options, prune
from lib.pruning import dropped
from lib.sweep import continuations, sweep
from replication import profiles

BLOCKS = [Block(1, 2), Block(0, 3), Block(3, 2)]
CUT = Block(2, 1)  # what is healed
PACKED = torch.device(DEVICE)
RECIPE = replace(
    profiles.recipe("tiny-random", profiles.get("smoke")),
    **{"steps": 4, "batch": 8, "max_tokens": 32, "learning_rate": 0.05, "packed": False},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = wide_llama(vocab_size=49_152, tie_word_embeddings=True)
    return str(with_real_tokenizer(model, tmp_path_factory.mktemp("packed")))


@pytest.fixture(autouse=True, scope="module")
def as_on_a_gpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: False)
        yield


def load(folder, device=PACKED, **options):
    model, tokenizer = loading.load(
        folder, quantization="nf4", dtype="bfloat16", device=device, **options
    )
    packed = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    for module in packed:
        module.support_avx512bf16_for_cpu = False
    assert bool(packed) == (device is PACKED)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    return model, tokenizer


# ---- measuring -----------------------------------------------------------------------------


def test_sweep_and_distances_of_packed_weights(folder):
    model, tokenizer = load(folder)
    plain, _ = load(folder, "cpu")
    tasks = [real_task(name) for name in ("c4", "mmlu", "arc_easy")]
    packed = sweep(model, tokenizer, BLOCKS, tasks)
    unpacked = sweep(plain, tokenizer, BLOCKS, tasks)
    # not answers: one of 8 questions hangs on 0.02 nats, which a card may round off
    for mine, theirs in zip(packed.to_dict("records"), unpacked.to_dict("records"), strict=True):
        if mine["choices"] is None:
            np.testing.assert_allclose(mine["examples"], theirs["examples"], atol=0.02)
        else:
            for pair in zip(mine["choices"], theirs["choices"], strict=True):
                np.testing.assert_allclose(*pair, rtol=2**-7, atol=0.05)  # bf16 has 8 bits
    texts = sets.c4("validation", "wheels", 12)
    matrices = []
    for each in (model, plain):
        batches = similarity.calibration_batches(texts, tokenizer, 40, 160)
        matrices.append(similarity.block_distances(each, batches).matrix)
    np.testing.assert_allclose(*matrices, atol=0.01)


def test_packed_weights_without_a_block(folder):
    """Loaded without it, or dropped: the same model; and it writes the same text."""
    model, tokenizer = load(folder)
    ids = torch.randint(3, 40_000, (2, 24), generator=torch.Generator().manual_seed(0)).to(PACKED)
    rows = [Row(tuple(range(100, 108)), ()), Row(tuple(range(200, 205)), ())]
    written = continuations(model, tokenizer, [UNPRUNED, *BLOCKS], rows, 6, 200)
    for block in BLOCKS:
        part, _ = load(folder, block=block)
        with torch.inference_mode(), dropped(model, block):
            expected = model(ids).logits
        with torch.inference_mode():
            assert torch.equal(part(ids).logits, expected)
        alone = continuations(part, tokenizer, [UNPRUNED], rows, 6, 200)
        assert alone[UNPRUNED] == written[block]


# ---- healing -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return str(stored(wide_llama(), tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="module")
def packed(small, as_on_a_gpu):
    return load(small)


def heal(base, folder, recipe=RECIPE, **options) -> training.Healed:
    with dropped(base[0], CUT):
        healed = training.heal(*base, recipe, folder, **options)
    assert healed.status == "ok" and len(healed.losses) == recipe.steps
    return healed


def test_healing_packed_is_healing_unpacked(packed, small, tmp_path, ids):
    """Afterwards the packed model is as it was, and nothing is merged into it."""
    model, _ = packed
    unpacked = load(small, "cpu")
    unpacked[0].to(DEVICE)
    before = model(ids).logits
    modules = dict(model.named_modules())
    first = heal(packed, tmp_path / "4bit")
    second = heal(unpacked, tmp_path / "bf16")
    np.testing.assert_allclose(first.losses, second.losses, atol=0.01)
    logits = []
    for base, _ in (packed, unpacked):
        with dropped(base, CUT), lora.load_lora(base, first.adapter), torch.inference_mode():
            logits.append(base(ids).logits)
    torch.testing.assert_close(*logits, atol=0.2, rtol=0.05)
    with dropped(model, CUT), pytest.raises(ValueError, match="packed in 4 bits"):
        lora.merge(model, first.adapter)  # which would quantise anew
    assert dict(model.named_modules()) == modules
    assert not model.training
    assert torch.equal(model(ids).logits, before)


def test_a_checkpoint_is_repaired_in_the_files_it_came_from(packed, small, tmp_path, monkeypatch):
    """The map and the adapter go into what was not packed, once the packed model is gone."""
    load, loaded = loading.load, []

    def alone(name, quantization=None, **kwargs):
        whole = [one for one in (of() for of in loaded) if one is not None]
        assert not any(map(is_packed, whole)) and not (whole and quantization)
        model, tokenizer = load(name, quantization=quantization, **kwargs)
        assert is_packed(model) == bool(quantization)
        loaded.append(weakref.ref(model))
        return model, tokenizer

    monkeypatch.setattr(loading, "load", alone)
    monkeypatch.setattr(loading, "_unpacks", lambda *args: False)
    monkeypatch.setattr(loading, "default_dtype", lambda device: "bfloat16")
    fold, folded = linear.fold, []

    def noted(model, block, change):
        folded.append(change)
        fold(model, block, change)

    monkeypatch.setattr(linear, "fold", noted)
    call = Options(small, 1, start=2, repair="map", heal=1, lr=0.05, limit=4, nf4=1, tasks="c4")
    out = tmp_path / "smaller"
    record = prune(call, out)
    (adapter,) = tmp_path.glob("smaller.work/*/healing/adapter/*.safetensors")
    (change,) = folded
    added, files = load_file(adapter), load_file(f"{small}/model.safetensors")
    for name, weight in load_file(out / "model.safetensors").items():
        expected = files[name.replace("layers.3", "layers.4").replace("layers.2", "layers.3")]
        if name == "model.layers.1.mlp.down_proj.weight":
            expected = (expected.float() + change.T @ expected.float()).bfloat16()
        path = f"base_model.model.{name.removesuffix('weight')}lora_%s.weight"
        if path % "A" in added:
            expected = expected.float() + added[path % "B"] @ added[path % "A"]
        torch.testing.assert_close(weight, expected.bfloat16(), atol=1e-4, rtol=0.01)
    assert [row["version"] for row in record["versions"]][-2:] == ["mapped", "saved"]


def is_packed(model) -> bool:
    return any(isinstance(module, bitsandbytes.nn.Linear4bit) for module in model.modules())


def test_resumed_or_with_recomputed_activations_no_bit_changes(packed, tmp_path, monkeypatch):
    recipe = replace(RECIPE, first_layer=2)
    whole = heal(packed, tmp_path / "whole", recipe, micro_batch=1)
    with killed_at(3):
        heal(packed, tmp_path / "resumed", recipe, micro_batch=1)
    assert (tmp_path / "resumed" / "checkpoint-2").exists()
    resumed = heal(packed, tmp_path / "resumed", recipe, micro_batch=1)
    # by its length, a row recomputes none, one or both of the two layers that are trained
    budget, recomputed = ActivationBudget(2000, 0, 50, 10, 2), []
    count = ActivationBudget.num_recomputed

    def note(budget, tokens):
        recomputed.append(count(budget, tokens))
        return recomputed[-1]

    monkeypatch.setattr(ActivationBudget, "num_recomputed", note)
    train = partial(training._train, budget=budget)
    monkeypatch.setattr(training, "_train", lambda *arguments: train(*arguments[:6]))
    by_row = heal(packed, tmp_path / "by row", recipe, micro_batch=1)
    assert {*recomputed} == {0, 1, 2}
    for healed in (resumed, by_row):
        assert healed.losses == whole.losses and weights(healed) == weights(whole)
    assert not packed[0].is_activation_checkpointing


def test_healing_in_fp16_is_healing_in_fp32(small, tmp_path):
    """Its adapters are kept in fp32."""
    first, second = (
        heal(loading.load(small, dtype=dtype, device="cpu"), tmp_path / dtype)
        for dtype in ("float16", "float32")
    )
    np.testing.assert_allclose(first.losses, second.losses, atol=0.02)
    assert load_file(first.adapter / WEIGHTS).popitem()[1].dtype == torch.float32
