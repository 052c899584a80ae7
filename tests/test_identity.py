"""A model is known by what its files are, a timing by what it was timed on."""

import os

import huggingface_hub
import pytest
import torch
from conftest import COMMIT, gguf, local_hub, measured_scores, stored, tiny
from test_models import sentence

from lib import storage
from lib.models import files, loading, machine, registry
from replication import profiles, tables
from replication.measure import cache, inference_cost

SMOKE = profiles.get("smoke", limit=4)
HUB = "some/model"


def llama(seed: int):
    model = tiny("llama")
    torch.manual_seed(seed)
    with torch.no_grad():
        model.lm_head.weight.normal_()
    return model


def loss(name: str) -> float:
    return measured_scores(name, SMOKE, [], ["c4"]).value[0]


def test_weights_that_are_written_over_are_read_again(output, monkeypatch):
    """Train, save, measure, train on, save to the same folder, measure: in one process.

    As long as its files and its device stay, one model stays loaded.
    """
    load, loads = loading.load, []
    monkeypatch.setattr(loading, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
    folder, losses = output / "model", []
    for seed in (0, 1):
        stored(llama(seed), folder)
        losses.append(loss(str(folder)))
        loading.load_cached(str(folder), **SMOKE.load_kwargs)
        assert len(loads) == seed + 1
    assert losses[0] != losses[1]
    monkeypatch.setattr(loading, "default_device", lambda: "meta")
    loading.load_cached(str(folder), **SMOKE.load_kwargs)
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


def test_a_hub_model_is_known_by_its_commit(tmp_path, output, monkeypatch):
    """Wherever main goes; a commit that is named is loaded wherever main has gone."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "models--some--model"
    (folder / "refs").mkdir(parents=True)
    commits, losses = ["a" * 40, "b" * 40], []
    for seed, commit in enumerate(commits):
        stored(llama(seed), folder / "snapshots" / commit)
    for place in (0, 1, 0):
        (folder / "refs" / "main").write_text(commits[place])
        identity = loading.weights_identity(HUB, **SMOKE.load_kwargs)
        assert identity["revision"] == registry.resolve(HUB).revision == commits[place]
        losses.append(loss(HUB))
        model, _ = loading.load_cached(HUB, **SMOKE.load_kwargs)
        assert torch.equal(model.lm_head.weight, llama(place).lm_head.weight)
    assert losses[0] == losses[2] != losses[1]
    other = files.pin_revision(files.Source("hub", HUB, commits[1]))
    assert files.local_folder(other).name == commits[1]


def test_the_first_commit_that_the_hub_tells_is_kept(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    code = f"print(loading.weights_identity({HUB!r}, None, 'float32')['revision'])"
    with local_hub(HUB, tmp_path / "model") as (hub, _):
        assert sentence(HUB, tmp_path, code=code, HF_ENDPOINT=hub) == COMMIT
    code = f"print(registry.resolve({HUB!r}).revision)"
    assert sentence(HUB, tmp_path, code=code, HF_HUB_OFFLINE="1") == COMMIT


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
