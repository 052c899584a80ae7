"""A model is known by what its files are, a timing by what it was timed on."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import huggingface_hub
import pytest
import torch
from conftest import gguf, stored, tiny
from test_models import sentence

from lib import storage
from lib.models import files, loading, machine, registry
from replication import profiles, results
from replication.measure import distance_maps, inference_cost, scores
from replication.plan import estimates
from replication.plan.assumptions import Card

SMOKE = profiles.get("smoke", limit=4)
HUB = "some/model"


def llama(seed: int):
    model = tiny("llama")
    torch.manual_seed(seed)
    with torch.no_grad():
        model.lm_head.weight.normal_()
    return model


def loss(name: str) -> float:
    return scores.measure(name, SMOKE, [], ["c4"]).value[0]


def test_weights_that_are_written_over_are_read_again(output):
    """Train, save, measure, train on, save to the same folder, measure: in one process."""
    folder = output / "model"
    found = []
    for seed in (0, 1):
        stored(llama(seed), folder)
        found.append(loss(str(folder)))
    assert found[0] != found[1]
    loading.release()
    for file in results.paths.RESULTS.rglob("scores/*.json"):
        file.unlink()
    assert loss(str(folder)) == found[1]


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
    found = []
    for place in (0, 1, 0):
        commit = cache(place)
        assert (
            loading.weights_identity(HUB, **SMOKE.load_kwargs)["revision"]
            == registry.resolve(HUB).revision
            == commit
        )
        found.append(loss(HUB))
        assert torch.equal(
            loading.load_cached(HUB, **SMOKE.load_kwargs)[0].lm_head.weight,
            llama(place).lm_head.weight,
        )
    assert found[0] == found[2] != found[1]


def test_a_commit_that_is_named_is_loaded_wherever_main_has_gone(cache):
    source = files.Source("hub", HUB, cache(0))
    cache(1)
    assert files.local_folder(files.pin_revision(source)).name == "a" * 40


class Repository(BaseHTTPRequestHandler):
    """A hub whose repositories have one commit, and of it the configuration."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        content = b"{}" if self.path == f"/{HUB}/resolve/main/config.json" else b""
        found = content or self.path == f"/{HUB}/resolve/{'c' * 40}/config.json"
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("ETag", '"e"')
        self.send_header("Content-Length", str(len(b"{}" if found else b"")))
        self.end_headers()
        if body and found:
            self.wfile.write(b"{}")

    def log_message(self, *args):
        pass


def test_the_first_commit_that_the_hub_tells_is_kept(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Repository)
    Thread(target=server.serve_forever, daemon=True).start()
    hub = f"http://127.0.0.1:{server.server_port}"
    code = (
        f"print(loading.weights_identity({HUB!r}, **profiles.get('smoke').load_kwargs)['revision'])"
    )
    assert sentence(HUB, tmp_path, code=code, HF_ENDPOINT=hub) == "c" * 40
    server.shutdown()
    code = f"from lib.models import registry; print(registry.resolve({HUB!r}).revision)"
    assert sentence(HUB, tmp_path, code=code, HF_HUB_OFFLINE="1") == "c" * 40


def test_nothing_is_planned_as_done_of_a_commit_that_is_not_known(cache, output):
    cache(0)
    tokens = profiles.get("smoke", models=[HUB], limit=4)
    distance_maps.of_model(HUB, tokens)
    assert estimates._maps(HUB, tokens)
    assert (registry.resolve(HUB).revision, registry.resolve("no/body").revision) == (
        "a" * 40,
        "main",
    )
    assert not estimates._maps("no/body", tokens)


def test_a_commit_that_cannot_be_asked_for_is_one_sentence(tmp_path):
    code = f"loading.weights_identity({HUB!r}, **profiles.get('smoke').load_kwargs)"
    said = sentence(HUB, tmp_path, code=code, HF_HUB_OFFLINE="1")
    assert said.startswith("some/model is not in the local cache") and "\n" not in said


# ---- what it was measured on -----------------------------------------------------------------


def test_the_number_of_threads_counts_for_times_only(monkeypatch):
    """Else a run that resumes on a machine with more cores would measure everything again."""
    for threads in (1, 8):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert "threads" not in loading.weights_identity("tiny-random", **SMOKE.load_kwargs)


def timed(kind: str, measure, processor: str, monkeypatch) -> str:
    """The key of what `measure` times on a processor."""
    monkeypatch.setattr(machine, "processor", lambda device="cpu": processor)
    asked = {}

    def load_or_compute(kind, params, compute):
        asked[kind] = params
        if kind == "healing":  # how it went, not in what time
            return {"status": "ok", "values": {"micro_batch": 16, "recomputes": False}}
        raise results.NotMeasured

    monkeypatch.setattr(results, "load_or_compute", load_or_compute)
    with pytest.raises(results.NotMeasured):
        measure()
    return results.key(kind, asked[kind])


def inference():
    inference_cost.of_model("tiny-random", SMOKE)


def test_timings_of_another_processor_are_never_found(monkeypatch):
    names = ("Abacus 9", "Loom 2", "Abacus 9")
    first, other, again = (timed("inference_cost", inference, n, monkeypatch) for n in names)
    assert first == again != other


def test_every_record_names_its_processor(output):
    told = results.environment()
    assert told["processor"] == machine.processor() != ""
    assert (told["card"] is not None) == torch.cuda.is_available()


def test_the_card_is_named(monkeypatch):
    machine.processor.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    assert results.environment()["card"] == "NVIDIA H100"
    machine.processor.cache_clear()


def test_results_of_a_gpu_are_found_by_a_plan(output, monkeypatch):
    """Their identity has no threads."""
    monkeypatch.setattr(loading, "default_device", lambda: "cuda")
    load = loading.load
    monkeypatch.setattr(loading, "load", lambda *a, **k: load(*a, **k | {"device": "cpu"}))
    distance_maps.of_model("tiny-random", SMOKE)
    [found] = estimates._maps("tiny-random", SMOKE)
    assert (
        loading.weights_identity("tiny-random", **SMOKE.load_kwargs).items()
        <= found["params"].items()
    )
    card = Card("test", 1e12, 1e12, 1e12, "stated")
    assert [estimate.done for estimate in estimates.estimates(SMOKE, ["01"], card)] == [True]
