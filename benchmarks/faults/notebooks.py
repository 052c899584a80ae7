"""Faults of the real notebooks in `smoke`: a killed run that resumes, models that cannot be had."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.faults import Fault, toys
from replication import paths


def killed_and_continued(folder: Path) -> str:
    """Six jobs, two for each of three models; kill -9 after the third."""
    models = ["tiny-random", *_tiny_models(folder)]
    arguments = ["--profile", "smoke", "--only", "01", "02", "--models", *models]
    undisturbed, output = folder / "undisturbed", folder / "continued"
    status, printed = _finish(_start(undisturbed, *arguments))
    assert status == 0, printed
    runner = _start(output, *arguments)
    for line in runner.stdout:
        if line.startswith("[3/"):
            break
    runner.send_signal(signal.SIGKILL)
    runner.communicate()
    toys.until(lambda: not toys.processes(output))
    done = {f: f.stat().st_mtime_ns for f in output.glob("data/results/*/*/*.json")}
    maps = list(output.glob("data/results/similarity/*/*.json"))
    assert len(maps) == 3, maps
    status, printed = _finish(_start(output, *arguments))
    assert status == 0 and printed.count(": done before") == 3, printed
    assert {f: f.stat().st_mtime_ns for f in done} == done
    tables = sorted(undisturbed.glob("figures/smoke-*/*.csv"))
    assert tables
    for table in tables:
        again = output / table.relative_to(undisturbed)
        assert again.read_bytes() == table.read_bytes(), table.name
    return f"3 not repeated, 3 done; {len(tables)} of {len(tables)} CSVs byte-identical"


def not_to_be_had(folder: Path) -> str:
    """The real hub client, asking a server here that answers as the hub does."""
    models = ["tiny-random", "llama-2-7b", "nobody/absent"]
    with _hub() as address:
        runner = _start(
            folder, "--profile", "smoke", "--only", "01", "--models", *models, HF_ENDPOINT=address
        )
        status, printed = _finish(runner)
    assert status == 1, printed
    table = printed[printed.index("status  ") :]
    assert "skipped: gated" in table and "accept its licence" in table, printed
    assert "skipped: not available" in table and "has no model nobody/absent" in table, printed
    [figure] = [file.read_text() for file in folder.glob("figures/smoke-*/figure_4.csv")]
    assert "llama-2-7b" in figure and "not measured" in figure and "tiny-random" in figure
    return "both told in a sentence and listed as missing; the third model is drawn; exit 1"


def offline(folder: Path) -> str:
    runner = _start(
        folder,
        "--profile",
        "smoke",
        "--only",
        "01",
        "--models",
        "nobody/absent",
        HF_HUB_OFFLINE="1",
    )
    status, printed = _finish(runner)
    assert status == 1 and "the hub cannot be reached" in printed, printed
    return "“… is not in the local cache and the hub cannot be reached …”; exit 1"


# ---- helpers ---------------------------------------------------------------------------------


def _start(output: Path, *arguments: str, **variables: str) -> subprocess.Popen:
    output.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "replication", *arguments],
        env=toys.environment(output) | variables,
        cwd=output,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _finish(runner: subprocess.Popen) -> tuple[int, str]:
    out, _ = runner.communicate(timeout=600)
    return runner.returncode, out


def _tiny_models(folder: Path) -> list[str]:
    """Two local checkpoints, of the tiny random model and of its first layers."""
    code = (
        "import sys; from lib import pruning; from lib.models import loading\n"
        "model, tokenizer = loading.load('tiny-random', dtype='float32', device='cpu')\n"
        "for place, size in zip(sys.argv[1:], (1, 2)):\n"
        "    pruning.save_pruned(model, tokenizer, pruning.Block(3, size), place)\n"
    )
    places = [str(folder / "sieben Schichten"), str(folder / "six-layers")]
    folder.mkdir(parents=True, exist_ok=True)
    environment = toys.environment(folder / "made")
    subprocess.run(
        [sys.executable, "-c", code, *places], env=environment, cwd=paths.ROOT, check=True
    )
    return places


@contextmanager
def _hub() -> Iterator[str]:
    """A server on loopback that has one gated model and no other."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            gated = "Llama-2" in self.path
            body = json.dumps({"error": "gated" if gated else "Repository not found"}).encode()
            self.send_response(403 if gated else 404)
            self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *line):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


QUICK = []
SLOW = [
    Fault("runner killed -9 after 3 of 6 jobs", "resumes, same CSVs", killed_and_continued),
    Fault("a gated and an absent model", "named, the others drawn", not_to_be_had),
    Fault("hub offline", "one sentence, exit 1", offline),
]
