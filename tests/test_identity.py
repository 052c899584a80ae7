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
from replication.measure import inference_cost

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


def test_weights_that_are_written_over_are_read_again(output):
    """Train, save, measure, train on, save to the same folder, measure: in one process."""
    folder, losses = output / "model", []
    for seed in (0, 1):
        stored(llama(seed), folder)
        losses.append(loss(str(folder)))
    assert losses[0] != losses[1]
    loading.release()
    for file in results.paths.RESULTS.rglob("scores/*.json"):
        file.unlink()
    assert loss(str(folder)) == losses[1]


def test_one_model_stays_loaded_while_its_files_do(output, monkeypatch):
    folder, loads = stored(llama(0), output / "model"), []
    load = loading.load
    monkeypatch.setattr(loading, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
    for _ in range(2):
        loading.load_cached(str(folder), **SMOKE.load_kwargs)
    assert len(loads) == 1
    monkeypatch.setattr(loading, "default_device", lambda: "meta")
    loading.load_cached(str(folder), **SMOKE.load_kwargs)
    assert len(loads) == 2 and len(loading._loaded) == 1


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


# ---- the hub ---------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The local cache with two commits of a model; the function that moves main to one of them."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "models--some--model"
    (folder / "refs").mkdir(parents=True)
    commits = ["a" * 40, "b" * 40]
    for seed, commit in enumerate(commits):
        stored(llama(seed), folder / "snapshots" / commit)

    def move(place: int) -> str:
        (folder / "refs" / "main").write_text(commits[place])
        return commits[place]

    return move


def test_a_hub_model_is_known_by_its_commit(cache, output):
    losses = []
    for place in (0, 1, 0):
        commit = cache(place)
        identity = loading.weights_identity(HUB, **SMOKE.load_kwargs)
        assert identity["revision"] == registry.resolve(HUB).revision == commit
        losses.append(loss(HUB))
        model, _ = loading.load_cached(HUB, **SMOKE.load_kwargs)
        assert torch.equal(model.lm_head.weight, llama(place).lm_head.weight)
    assert losses[0] == losses[2] != losses[1]


def test_a_commit_that_is_named_is_loaded_wherever_main_has_gone(cache):
    source = files.Source("hub", HUB, cache(0))
    cache(1)
    assert files.local_folder(files.pin_revision(source)).name == "a" * 40


def test_the_first_commit_that_the_hub_tells_is_kept(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    code = (
        f"print(loading.weights_identity({HUB!r}, **profiles.get('smoke').load_kwargs)['revision'])"
    )
    with local_hub(HUB, tmp_path / "model") as (hub, _):
        assert sentence(HUB, tmp_path, code=code, HF_ENDPOINT=hub) == COMMIT
    code = f"from lib.models import registry; print(registry.resolve({HUB!r}).revision)"
    assert sentence(HUB, tmp_path, code=code, HF_HUB_OFFLINE="1") == COMMIT


# ---- what it was measured on -----------------------------------------------------------------


def test_timings_of_another_processor_are_never_found(monkeypatch):
    keys = []

    def load_or_compute(kind, params, compute):
        keys.append(cache.key(kind, params))
        raise tables.NotMeasured

    monkeypatch.setattr(results, "load_or_compute", load_or_compute)
    for name in ("Abacus 9", "Loom 2", "Abacus 9"):
        monkeypatch.setattr(machine, "processor", lambda device="cpu", name=name: name)
        with pytest.raises(tables.NotMeasured):
            inference_cost.of_model("tiny-random", SMOKE)
    first, other, again = keys[::2]  # of the first of both formats
    assert first == again != other
