"""The fastest format is measured once, kept with the results, and can be asked for otherwise."""

import json
import logging
import os
import re
from contextlib import nullcontext
from threading import Thread

import pytest
import torch
from conftest import stored, wide_llama

from lib import similarity
from lib.evaluation import Task
from lib.models import loading, machine, reading
from lib.models.registry import ModelError
from lib.sweep import sweep
from replication import __main__ as run
from replication import paths, profiles
from replication.run import notebooks


@pytest.fixture
def clock(output, monkeypatch):
    """Seconds of each format, as a test says; and which were timed."""
    times, timed = {"bfloat16": 2.0, "float32": 1.0}, []

    def seconds(dtype):
        timed.append(dtype)
        return times[dtype]

    monkeypatch.setattr(machine, "seconds", seconds)
    monkeypatch.setattr(loading, "default_device", lambda: "cpu")
    monkeypatch.setattr(machine, "processor", lambda device="cpu": "Abacus 9")
    return times, timed


@pytest.mark.parametrize("slow, fast", [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_the_faster_format_is_taken_and_remembered(clock, slow, fast):
    times, timed = clock
    times |= {slow: 3.0, fast: 1.0}
    assert loading.default_dtype("cpu") == fast
    times |= {slow: 1.0, fast: 3.0}  # a busy moment later
    count = len(timed)
    assert loading.default_dtype("cpu") == fast
    load_kwargs = profiles.get("quick").load_kwargs
    assert loading.weights_identity("tiny-random", **load_kwargs)["dtype"] == fast
    assert loading.load("tiny-random")[0].dtype == getattr(torch, fast)
    assert len(timed) == count


def test_a_run_that_resumes_on_another_processor_keeps_its_format(clock, monkeypatch, caplog):
    times, _ = clock
    loading.default_dtype("cpu")
    monkeypatch.setattr(machine, "processor", lambda device="cpu": "Loom 2")
    times |= {"bfloat16": 0.1}
    with caplog.at_level(logging.WARNING):
        assert [loading.default_dtype("cpu") for _ in range(3)] == ["float32"] * 3
    (warning,) = caplog.records
    assert "Abacus 9" in warning.message and "Loom 2" in warning.message


def test_a_dtype_that_is_asked_for_overrides_it(clock):
    _, timed = clock
    profile = profiles.get("quick", dtype="bfloat16")
    assert loading.weights_identity("tiny-random", **profile.load_kwargs)["dtype"] == "bfloat16"
    assert loading.load_cached("tiny-random", **profile.load_kwargs)[0].dtype == torch.bfloat16
    assert not timed and not machine.remembered()


def test_the_first_of_several_processes_decides(clock, monkeypatch):
    times, _ = clock
    dtypes = []
    threads = [Thread(target=lambda: dtypes.append(machine.fastest())) for _ in range(8)]

    def seconds(dtype):
        times["bfloat16"] = -times["bfloat16"]  # no two measurements agree
        return times[dtype]

    monkeypatch.setattr(machine, "seconds", seconds)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(dtypes) == 8 and set(dtypes) == {machine.remembered()["dtype"]}


@pytest.mark.parametrize("damage", ["{", "{}", '{"dtype": "int3", "processor": "x"}', "[]"])
def test_a_damaged_memory_is_set_aside(clock, damage):
    loading.default_dtype("cpu")
    file = paths.RESULTS / "format.json"
    file.write_text(damage)
    assert loading.default_dtype("cpu") == "float32"
    assert file.with_name("format.json.corrupt").read_text() == damage
    assert json.loads(file.read_text())["dtype"] == "float32"


def test_every_notebook_takes_a_dtype(monkeypatch):
    runs = []
    monkeypatch.setattr(run, "run", lambda whole, engine: runs.append(whole) or 0)
    assert run.main(["--profile", "smoke", "--dtype", "bfloat16"]) == 0
    (whole,) = runs
    assert whole.profile.dtype == whole.parameters["DTYPE"] == "bfloat16"
    assert list(whole.notebooks) == list(notebooks.NOTEBOOKS)
    for notebook in notebooks.NOTEBOOKS.values():
        source = (paths.NOTEBOOKS / f"{notebook.file}.ipynb").read_text(encoding="utf-8")
        assert re.search(r"profiles\.get\([^)]*DTYPE", source), notebook.file
        assert "notebook.start(profile)" in source, notebook.file


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """An nvidia-smi that lists what a test says, and a PyTorch that can use no GPU."""
    file, listed = tmp_path / "nvidia-smi", tmp_path / "listed"
    file.write_text(f"#!/bin/sh\ncat {listed}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    machine.listed_gpus.cache_clear()
    yield listed
    machine.listed_gpus.cache_clear()


ALL = nullcontext()
TEXT = ({"text": "The five boxing wizards jump quickly.", "max_tokens": 8},)
GPU = "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-1)\nGPU 1: NVIDIA T4 (UUID: GPU-2)\n"


def test_a_gpu_that_pytorch_cannot_use_is_one_sentence(smi, monkeypatch, capsys):
    """As with an old driver: neither the CPU without a word, nor a notebook that fails."""
    smi.write_text(GPU)
    with pytest.raises(ModelError, match="A100-SXM4-80GB, that PyTorch .* cannot use: update"):
        loading.load("tiny-random")
    monkeypatch.setattr(run, "run", lambda *_: pytest.fail("it started"))
    assert run.main(["--profile", "smoke"]) == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert "CUDA_VISIBLE_DEVICES" in sentence


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_a_gpu_can_be_left_alone_on_purpose(smi, monkeypatch, hidden):
    smi.write_text(GPU)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert loading.default_device() == "cpu"


@pytest.mark.parametrize("listed", ["", "No devices found.\n", "NVIDIA-SMI has failed\n"])
def test_without_a_gpu_it_is_the_cpu(smi, listed):
    smi.write_text(listed)
    assert loading.default_device() == "cpu"


def test_a_gpu_that_can_be_used_is_used(smi, monkeypatch):
    smi.write_text(GPU)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert loading.default_device() == "cuda"


@pytest.mark.parametrize("supported, expected", [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_without_bf16_computes_in_fp16(monkeypatch, supported, expected):
    """NF4 too, unless another format is asked for."""

    def is_bf16_supported(including_emulation=True):
        return supported or including_emulation  # a V100 says that it can

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    assert loading.default_dtype("cuda") == expected
    compute = {
        dtype: loading.nf4(loading._weights("nf4", dtype, "cuda").compute).bnb_4bit_compute_dtype
        for dtype in (None, *machine.DTYPES)
    }
    assert compute[None] == getattr(torch, expected)
    assert compute["bfloat16"] == torch.bfloat16 and compute["float16"] == torch.float16
    assert compute["float32"] == (torch.bfloat16 if supported else torch.float32)


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_states_too_large_for_fp16_are_one_sentence(tmp_path, quantization):
    """Wherever the model is read: distances, scores, texts that it writes."""
    model = wide_llama()
    model.model.layers[2].mlp.down_proj.weight.data *= 2e4
    folder = str(stored(model, tmp_path / "loud"))
    ids = torch.arange(3, 11)
    readers = [
        lambda model, tokenizer: similarity.of_text(model, ids),
        lambda model, tokenizer: sweep(model, tokenizer, [], [Task("c4", TEXT)]),
        lambda model, tokenizer: reading.greedy_texts(model, tokenizer, [tuple(ids)], 2),
    ]
    for dtype in ("float32", "float16"):
        loaded = loading.load(folder, quantization=quantization, dtype=dtype)
        for read in readers:
            with pytest.raises(ModelError, match="DTYPE=float32") if dtype == "float16" else ALL:
                read(*loaded)
