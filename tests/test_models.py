"""What a name means, and in what format it computes: sources, commits, files."""

import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import huggingface_hub
import pytest
import torch
from conftest import COMMIT, local_hub, measured_scores, stored, tiny, wide_llama

from lib.data import wheels
from lib.models import files, loading, machine, registry, sizes
from lib.models.registry import ModelError
from replication import measure, profiles
from replication.beyond import which_block
from replication.measure import cache, fetching
from replication.measure.request import Request

HUB = "some/model"


@pytest.mark.real
@pytest.mark.parametrize("name", wheels.ORIGINALS)
def test_a_packaged_model_is_planned_as_large_as_its_file(name):
    """The Qwens' files have an embedding and a head of their own, their originals one for both."""
    if not wheels.location(name).exists():
        pytest.skip("not fetched")
    tensors = files.open_checkpoint(name).tensors().values()
    count = sum(math.prod(tensor.get_shape()) for tensor in tensors)
    assert sizes.skeleton(name).num_parameters() == count


# ---- the hub -----------------------------------------------------------------------------------


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
        assert registry.hub_id(HUB) == HUB and registry.hub_id(str(folder)) is None
        assert torch.equal(model.lm_head.weight, llama(place).lm_head.weight)


def test_the_papers_models_are_read_at_their_commits():
    revisions = [registry.resolve(name).revision for name in profiles.get("paper").models]
    assert all(re.fullmatch("[0-9a-f]{40}", revision) for revision in revisions)


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


# ---- a model is known by what its files are ---------------------------------------------------


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


def test_another_copy_of_a_mirror_is_the_same_model(tmp_path, monkeypatch):
    """Copied later, with the notes of a download; unless a file's end has changed."""
    folder = stored(llama(0), tmp_path / "first" / HUB)
    copied = tmp_path / "second" / HUB
    shutil.copytree(folder, copied, copy_function=shutil.copy)
    (copied / ".cache").mkdir()
    (copied / ".cache" / "model.safetensors.metadata").write_text("2026")
    revisions = []
    for name in ("first", "second"):
        monkeypatch.setenv("DEEPER_LAYERS_MIRROR", str(tmp_path / name))
        revisions.append(registry.resolve(HUB).revision)
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert revisions[0] == revisions[1] != registry.resolve(HUB).revision


# ---- the format of the weights ----------------------------------------------------------------


def keyed_dtype(dtype: str | None = None) -> str:
    """The dtype in the key of a result, where one is named or not."""
    weights = {"model": "tiny-random", "quantization": None, "dtype": dtype}
    (keyed,) = fetching.keyed_by_machine([Request("similarity", weights)])
    return keyed.params["dtype"]


def test_a_run_that_resumes_on_another_processor_keeps_its_format(output, monkeypatch):
    """On a CPU that has no units for bf16, and then on one that has."""
    monkeypatch.setattr(loading, "default_device", lambda: "cpu")
    monkeypatch.setattr(machine, "_cpuinfo", lambda: "flags : avx512f")
    assert keyed_dtype("bfloat16") == "bfloat16" and not cache.format_file().exists()
    assert keyed_dtype() == "float32"
    monkeypatch.setattr(machine, "_cpuinfo", lambda: "flags : amx_bf16")
    assert keyed_dtype() == "float32" and loading.default_dtype("cpu") == "bfloat16"
    profile = replace(profiles.get("smoke"), dtype=None)
    for measures in (measure.distances, lambda of: measured_scores("tiny-random", of, [], ["c4"])):
        measures(profile)
        ((model, _),) = loading._loaded.values()
        assert model.dtype == torch.float32


def test_states_too_large_for_fp16_are_refused(tmp_path):
    model = wide_llama()
    model.model.layers[2].mlp.down_proj.weight.data *= 2e4
    folder = str(stored(model, tmp_path / "loud"))
    ids = torch.arange(3, 11)
    which_block.of_text(loading.load(folder, dtype="float32")[0], ids)
    half, _ = loading.load(folder, dtype="float16")
    with pytest.raises(ModelError, match="DTYPE=float32"):
        which_block.of_text(half, ids)


def test_a_gpu_that_no_kernel_was_built_for_is_refused(monkeypatch):
    """Though PyTorch says that it is available."""
    monkeypatch.setattr(machine, "gpu_at_hand", lambda: "Tesla V100-SXM2-16GB")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "compute_120"])
    with pytest.raises(ModelError, match="sm_70; the oldest is sm_75.*TORCH=cu126"):
        loading.default_device()
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_50", "sm_70", "sm_90"])
    assert loading.default_device() == "cuda"
