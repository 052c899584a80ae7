"""What a name means, and what computes: sources, commits, devices, formats."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from threading import Thread

import httpx
import huggingface_hub
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from conftest import COMMIT, gguf, local_hub, stored, tiny, wide_llama
from huggingface_hub import errors

from lib import similarity, storage
from lib.evaluation import Task
from lib.models import loading, machine, reading, registry, sizes
from lib.models.registry import ModelError
from lib.sweep import sweep
from replication import __main__ as run
from replication import profiles, tables
from replication.measure import cache, fetching, inference_cost
from replication.measure.request import Request

HUB = "some/model"
SMOKE = profiles.get("smoke")


@pytest.mark.parametrize("name", ["nonsense", "", "./absent.gguf", "a/b/c", "~/x", "/etc", "../x"])
def test_unknown_names_end_before_anything_is_loaded(name):
    with pytest.raises(ModelError, match="Unknown model|no checkpoint"):
        loading.load(name)
    with pytest.raises(ModelError, match="int3"):
        loading.load("tiny-random", quantization="int3")


def test_tiny_random_is_the_same_each_time():
    one, other = (loading.load("tiny-random", dtype="float32")[0] for _ in range(2))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


# ---- the hub -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error, problem",
    [(errors.GatedRepoError, "is gated"), (errors.RepositoryNotFoundError, "check its name")],
)
def test_what_the_hub_refuses_is_one_sentence(tmp_path, monkeypatch, error, problem):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    response = httpx.Response(403, request=httpx.Request("GET", "https://hub"))

    def refuse(*_, **__):
        raise error("403 Client Error", response=response)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(ModelError, match=f"{HUB} .*{problem}") as refused:
        loading.load(HUB)
    assert isinstance(refused.value, registry.GatedError) == (error is errors.GatedRepoError)
    with pytest.raises(ModelError, match="microsoft/phi-2 cannot be had"):
        loading.load("phi-2")  # tests are offline


def test_the_papers_models_are_pinned_and_no_other_revision_is_made_up(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for name, model in registry.MODELS.items():
        source = registry.resolve(name)
        if source.kind == "hub":
            assert (len(source.revision) == 40) if model.healing else (source.revision == "main")
            assert source.location == model.source


def llama(seed: int):
    model = tiny("llama")
    torch.manual_seed(seed)
    with torch.no_grad():
        model.lm_head.weight.normal_()
    return model


def test_a_hub_model_is_known_by_its_commit(tmp_path, monkeypatch):
    """Wherever main goes."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "models--some--model"
    (folder / "refs").mkdir(parents=True)
    commits = ["a" * 40, "b" * 40]
    for seed, commit in enumerate(commits):
        stored(llama(seed), folder / "snapshots" / commit)
    for place in (0, 1, 0):
        (folder / "refs" / "main").write_text(commits[place])
        assert loading.weights_identity(HUB, None, "float32")["revision"] == commits[place]
        model, _ = loading.load_cached(HUB, None, "float32")
        assert torch.equal(model.lm_head.weight, llama(place).lm_head.weight)


def test_the_first_commit_that_the_hub_tells_is_kept(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    code = f"from lib.models import files; print(files.pinned({HUB!r}).revision)"
    with local_hub(HUB, tmp_path / "model") as (hub, _):
        online = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub}
        printed = subprocess.check_output([sys.executable, "-c", code], env=os.environ | online)
    assert printed.decode().strip() == COMMIT
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert registry.resolve(HUB).revision == COMMIT


# ---- a model is known by what its files are, a timing by what it was timed on ------------------


def test_weights_that_are_written_over_are_read_again(tmp_path, monkeypatch):
    """As long as its files and its device stay, one model stays loaded."""
    load, loads = loading.load, []
    monkeypatch.setattr(loading, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
    folder = tmp_path / "model"
    for seed in (0, 1):
        stored(llama(seed), folder)
        for _ in range(2):
            model, _ = loading.load_cached(str(folder), None, "float32")
        assert len(loads) == seed + 1
        assert torch.equal(model.lm_head.weight, llama(seed).lm_head.weight)
    monkeypatch.setattr(loading, "default_device", lambda: "meta")
    loading.load_cached(str(folder), None, "float32")
    assert len(loads) == 3 and len(loading._loaded) == 1


def test_a_gguf_file_is_hashed_once_and_known_by_its_content(tmp_path, monkeypatch):
    file, hashed = tmp_path / "model.gguf", []
    digest = storage.digest
    monkeypatch.setattr(storage, "digest", lambda f: hashed.append(f) or digest(f))
    gguf(file, layers=3)
    before = [registry.resolve(str(file)) for _ in range(3)]
    assert len(set(before)) == 1 and len(hashed) == 1
    gguf(file, layers=5)
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))  # as long as before
    assert registry.resolve(str(file)) != before[0] and len(hashed) == 2


def test_timings_of_another_processor_are_never_found(monkeypatch):
    keys = []

    def load_or_compute(kind, params, compute):
        keys.append(cache.key(kind, params))
        raise tables.NotMeasured

    monkeypatch.setattr(cache, "load_or_compute", load_or_compute)
    for name in ("Abacus 9", "Loom 2", "Abacus 9"):
        monkeypatch.setattr(machine, "processor", lambda device="cpu", name=name: name)
        with pytest.raises(tables.NotMeasured):
            inference_cost.fetch(inference_cost.cost("tiny-random", None, SMOKE))
    first, other, again = keys  # of the first of both formats
    assert first == again != other


# ---- the format of the weights ----------------------------------------------------------------


@pytest.fixture
def clock(output, monkeypatch):
    """Seconds of each format, as a test says; and which were timed."""
    times, timed, fastest = {"bfloat16": 2.0, "float32": 1.0}, [], machine.fastest

    def seconds(dtype):
        timed.append(dtype)
        return times[dtype]

    monkeypatch.setattr(machine, "seconds", seconds)
    monkeypatch.setattr(loading, "default_device", lambda: "cpu")
    fastest.cache_clear()
    yield times, timed
    fastest.cache_clear()


def keyed_dtype(dtype: str | None = None) -> str:
    """The dtype in the key of a result, where one is named or not."""
    weights = {"model": "tiny-random", "quantization": None, "dtype": dtype}
    (keyed,) = fetching.keyed_by_machine([Request("similarity", weights)])
    return keyed.params["dtype"]


@pytest.mark.parametrize("slow, fast", [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_the_faster_format_is_measured_once(clock, slow, fast):
    times, timed = clock
    times |= {slow: 3.0, fast: 1.0}
    assert loading.default_dtype("cpu") == fast
    count = len(timed)
    assert loading.load("tiny-random")[0].dtype == getattr(torch, fast)
    assert len(timed) == count


def test_a_run_that_resumes_on_another_processor_keeps_its_format(clock):
    times, timed = clock
    assert keyed_dtype("bfloat16") == "bfloat16"
    assert not timed and not cache.format_file().exists()
    assert keyed_dtype() == "float32"
    times |= {"bfloat16": 0.1}
    machine.fastest.cache_clear()
    assert keyed_dtype() == "float32" and loading.default_dtype("cpu") == "bfloat16"


def test_the_first_of_several_processes_decides(clock, monkeypatch):
    dtypes, fastest = [], iter(machine.TRIED * 4)
    monkeypatch.setattr(machine, "fastest", lambda: next(fastest))  # no two measurements agree
    threads = [Thread(target=lambda: dtypes.append(cache.cpu_dtype())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(dtypes) == 8
    assert set(dtypes) == {json.loads(cache.format_file().read_text())["dtype"]}


@pytest.mark.parametrize("supported, expected", [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_without_bf16_computes_in_fp16(monkeypatch, supported, expected):
    """And NF4 in the 16 bits of the weights."""

    def is_bf16_supported(including_emulation=True):
        return supported or including_emulation  # a V100 says that it can

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    assert loading.default_dtype("cuda") == expected
    for dtype in (torch.bfloat16, torch.float16):
        assert loading.nf4(dtype).bnb_4bit_compute_dtype == dtype
    assert loading.nf4(torch.float32).bnb_4bit_compute_dtype == torch.bfloat16


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_states_too_large_for_fp16_are_one_sentence(tmp_path, quantization):
    """Wherever the model is read: distances, scores, texts that it writes."""
    model = wide_llama()
    model.model.layers[2].mlp.down_proj.weight.data *= 2e4
    folder = str(stored(model, tmp_path / "loud"))
    ids = torch.arange(3, 11)
    texts = Task("c4", ({"text": "The five boxing wizards jump quickly.", "max_tokens": 8},))
    readers = [
        lambda model, tokenizer: similarity.of_text(model, ids),
        lambda model, tokenizer: sweep(model, tokenizer, [], [texts]),
        lambda model, tokenizer: reading.greedy_texts(model, tokenizer, [tuple(ids)], 2),
    ]
    refused = pytest.raises(ModelError, match="DTYPE=float32")
    for dtype, expected in (("float32", nullcontext()), ("float16", refused)):
        loaded = loading.load(folder, quantization=quantization, dtype=dtype)
        for read in readers:
            with expected:
                read(*loaded)


@pytest.mark.parametrize("architecture", ["llama", "phi"])
def test_what_nf4_packs_is_counted(architecture, tmp_path):
    """The layers' matrices; not embeddings, lm_head, norms and biases."""
    folder = str(stored(tiny(architecture), tmp_path / "model"))
    model, _ = loading.load(folder, quantization="nf4", dtype="float32", packed=True)
    packed = [m.weight for m in model.modules() if isinstance(m, Linear4bit)]
    numbers = sum(weight.quant_state.shape.numel() for weight in packed)
    assert sum(sizes.parameters(tiny(architecture)).matrices) == numbers > 0


def test_nf4_is_unpacked_on_a_gpu_of_three_times_its_size(monkeypatch):
    model = wide_llama()
    whole = 2 * model.num_parameters()
    for memory, dtype, expected in (
        (3 * whole, torch.bfloat16, True),
        (3 * whole - 1, torch.bfloat16, False),
        (6 * whole, torch.float32, False),  # multiplied in bf16 while it is packed
    ):
        monkeypatch.setattr(loading, "_gpu_memory", lambda device, memory=memory: memory)
        assert loading._unpacks(model.config, dtype, "cuda") == expected


# ---- the device --------------------------------------------------------------------------------

GPUS = "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-1)\nGPU 1: NVIDIA T4 (UUID: GPU-2)\n"


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


def test_a_gpu_that_pytorch_cannot_use_is_one_sentence(smi, monkeypatch, capsys):
    """As with an old driver: neither the CPU without a word, nor a notebook that fails."""
    smi.write_text(GPUS)
    with pytest.raises(ModelError, match="A100-SXM4-80GB, that PyTorch .* cannot use: update"):
        loading.load("tiny-random")
    monkeypatch.setattr(run, "run", lambda *_: pytest.fail("it started"))
    assert run.main(["--profile", "smoke"]) == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert "CUDA_VISIBLE_DEVICES" in sentence


@pytest.mark.parametrize(
    "listed, visible, usable, device",
    [
        (GPUS, None, True, "cuda"),
        (GPUS, "", False, "cpu"),
        (GPUS, "-1", False, "cpu"),
        (GPUS, "NoDevFiles", False, "cpu"),
        ("No devices found.\n", None, False, "cpu"),
    ],
)
def test_a_gpu_is_used_unless_it_is_hidden(smi, monkeypatch, listed, visible, usable, device):
    smi.write_text(listed)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    assert loading.default_device() == device
