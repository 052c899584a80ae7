"""Names, sources and the sentences of what cannot be had; the hub is a local server."""

import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import huggingface_hub
import pytest
import torch

from lib.models import loading, registry
from lib.models.registry import ModelError


@pytest.mark.parametrize("name", ["nonsense", "", "./absent.gguf", "a/b/c", "~/x", "/etc", "../x"])
def test_unknown_names_end_before_anything_is_loaded(name):
    with pytest.raises(ModelError, match="Unknown model|no checkpoint|no file"):
        loading.load(name)
    with pytest.raises(ModelError, match="int3"):
        loading.load("tiny-random", quantization="int3")


class FakeHub(BaseHTTPRequestHandler):
    """Answers like the hub for a gated, and for an absent repository."""

    def do_GET(self):
        code = "GatedRepo" if "gated" in self.path else "RepoNotFound"
        self.send_response(403 if "gated" in self.path else 404)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


def sentence(name: str, tmp_path, code: str | None = None, **environment) -> str:
    """What loading `name` (or other code) says in a fresh process."""
    imports = "from lib.models import loading, registry; from replication import profiles"
    code = f"{imports}\ntry: {code or f'loading.load({name!r})'}\n"
    code += "except registry.ModelError as error: print(error)"
    settings = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"} | environment
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=settings
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_gated_and_absent_repositories(hub, tmp_path):
    for name, problem in (("some/gated", "is gated"), ("some/absent", "has no model")):
        assert problem in sentence(name, tmp_path, HF_ENDPOINT=hub)
    assert "microsoft/phi-2" in sentence("phi-2", tmp_path, HF_HUB_OFFLINE="1")


def test_the_papers_models_are_pinned_and_no_other_revision_is_made_up(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for name, model in registry.MODELS.items():
        source = registry.resolve(name)
        if source.kind == "hub":
            assert (len(source.revision) == 40) if model.healing else (source.revision == "main")
            assert source.location == model.source


def test_tiny_random_is_the_same_each_time():
    one, other = (loading.load("tiny-random", dtype="float32")[0] for _ in range(2))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
