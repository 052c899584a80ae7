"""Whether a model fits: what its weights take in memory, what is free, and what is merely kept."""

import weakref
from dataclasses import replace

import pytest
import torch
from conftest import LAYERS, stored, tiny
from originals import qwen_1_config, qwen_1_weights

from lib.models import files, loading, qwen1, sizes
from lib.models.machine import NF4_BYTES
from replication import profiles

SMOKE = replace(profiles.get("smoke"), dtype="bfloat16", batch_tokens=16)


@pytest.fixture(params=["llama", "phi", "qwen3"])
def folder(request, tmp_path):
    return stored(tiny(request.param), tmp_path / request.param)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of which `free` bytes are not reserved, and `kept` are reserved but not allocated."""
    memory = {"free": 0, "kept": 0, "all": 0}
    monkeypatch.setattr(loading, "default_device", lambda: "cuda")
    monkeypatch.setattr(loading, "get_max_memory", lambda: {0: memory["free"], "cpu": 0})
    monkeypatch.setattr(loading, "_gpu_memory", lambda device: memory["all"])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 1000)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 1000 + memory["kept"])
    return memory


class Free:
    """Free memory that notes what is compared with it."""

    def __add__(self, kept):
        return self

    def __gt__(self, needed):
        self.needed = needed
        return True


def needed(folder, quantization: str | None, gpu) -> float:
    """The bytes that must be free."""
    gpu["free"] = free = Free()
    assert loading.fits(str(folder), SMOKE.batch_tokens, quantization, SMOKE.dtype)
    return free.needed


def test_nf4_leaves_embeddings_head_norms_and_biases_in_16_bits(folder, gpu):
    """Between the two formats, only the layers' matrices differ."""
    matrices = sum(sizes.parameters(sizes.skeleton(str(folder))).matrices)
    saved = needed(folder, None, gpu) - needed(folder, "nf4", gpu)
    assert saved == pytest.approx(matrices * (2 - NF4_BYTES))


def test_nf4_that_is_unpacked_counts_twice(folder, gpu):
    """On a GPU of three times the model's size in 16 bits."""
    matrices = sum(sizes.parameters(sizes.skeleton(str(folder))).matrices)
    whole = files.in_memory(files.lazy_state_dict(folder), 2, 2)
    gpu["all"] = 3 * whole - 1
    packed = needed(folder, "nf4", gpu)
    gpu["all"] = 3 * whole + 1
    assert needed(folder, "nf4", gpu) - packed == pytest.approx(2 * matrices)


def test_there_is_room_for_a_batch(folder, gpu):
    whole = files.in_memory(files.lazy_state_dict(folder), 2, 2)
    room = needed(folder, None, gpu) - whole
    hidden = 32
    assert room > 16 * 2 * 2 * LAYERS * hidden / 2  # keys and values of all layers, of two heads


def test_memory_that_pytorch_keeps_is_free(folder, gpu):
    least = needed(folder, None, gpu)
    gpu |= {"free": least - 1, "kept": 1}
    assert not loading.fits(str(folder), SMOKE.batch_tokens, **SMOKE.load_kwargs)
    gpu["kept"] = 2
    assert loading.fits(str(folder), SMOKE.batch_tokens, **SMOKE.load_kwargs)


def test_a_model_that_will_be_let_go_does_not_count(tmp_path, gpu, monkeypatch):
    monkeypatch.setattr(loading, "default_device", lambda: "cpu")
    small = stored(tiny("llama"), tmp_path / "small")
    loaded = weakref.ref(loading.load_cached("tiny-random", **SMOKE.load_kwargs)[0])
    free = iter([loaded])
    monkeypatch.setattr(
        loading, "get_max_memory", lambda: {"cpu": 0 if next(free)() is not None else 2**40}
    )
    assert loading.fits(str(small), SMOKE.batch_tokens, **SMOKE.load_kwargs)
    loading.load_cached(str(small), **SMOKE.load_kwargs)
    # it is there now, so that no memory is asked for
    assert loading.fits(str(small), SMOKE.batch_tokens, **SMOKE.load_kwargs)


def test_experts_are_not_quantised_and_qwen_1_is():
    config = qwen_1_config(208)
    renamed = qwen1.renamed({n: _Stored(t) for n, t in qwen_1_weights(config).items()})
    layer = 4 * 32 * 32 + 3 * 32 * 48
    assert files.in_memory(renamed, 1, 0) == config["num_hidden_layers"] * layer
    names = ("model.layers.0.mlp.experts.1.up_proj.weight", "model.layers.0.mlp.gate.weight")
    assert files.in_memory(dict.fromkeys(names, torch.ones(4, 2)), 1, 0) == 8


class _Stored:
    def __init__(self, tensor):
        self.get_shape = lambda: list(tensor.shape)
