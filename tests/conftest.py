"""Tiny random models of many architectures, in fp32, and an isolated output folder."""

import dataclasses
import gc
import json
import math
import os
import runpy
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

os.environ["HF_HUB_OFFLINE"] = "1"  # tests never ask a hub
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # bitsandbytes asks for a compiler that no test needs
os.environ.pop("MAKEFLAGS", None)  # a `make` that a test starts is nobody's child
os.environ.pop("MAKELEVEL", None)
if os.environ.get("DEEPER_LAYERS_DEVICE") != "cuda":  # which `make gpu` says
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # tests and their kernels compute on the CPU anywhere

import bitsandbytes
import nbformat
import numpy as np
import papermill
import pytest
import simulated_device
import tokenizers
import torch
import transformers
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from lib.blocks import UNPRUNED
from lib.evaluation import Task
from lib.gpu import memory, nf4
from lib.models import files, loading, registry
from replication import paths, profiles
from replication.beyond import QUESTIONS
from replication.beyond.letters import readings
from replication.measure import cache, request, scores
from replication.measure.question import register

register(QUESTIONS)  # tests ask their tasks, too

DEVICE = os.environ.get("DEEPER_LAYERS_DEVICE", "cpu")  # or "sim", "cuda": for a list of tests
if DEVICE == "sim":
    simulated_device.register()
ROUNDING = 100 if DEVICE == "cuda" else 1  # its kernels round otherwise for each shape of a batch

VOCAB, LAYERS, WINDOW, LENGTH = 96, 6, 8, 28  # sequences are longer than the sliding window
SIZE = {
    "vocab_size": VOCAB,
    "num_hidden_layers": LAYERS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERT_SIZES = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}
GROUPED = SIZE | {"num_key_value_heads": 2, "max_position_embeddings": 512}
ARCHITECTURES = {
    "llama": lambda: transformers.LlamaConfig(**GROUPED),
    "mistral": lambda: transformers.MistralConfig(**GROUPED, sliding_window=WINDOW),
    "qwen2": lambda: transformers.Qwen2Config(
        **GROUPED, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=3
    ),
    "qwen3": lambda: transformers.Qwen3Config(**GROUPED, head_dim=8),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **GROUPED,
        head_dim=8,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
    ),
    "phi": lambda: transformers.PhiConfig(**GROUPED, partial_rotary_factor=0.5),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SIZE),
    "smollm3": lambda: transformers.SmolLM3Config(
        **GROUPED,
        no_rope_layers=[1, 1, 0, 1, 0, 1],
        use_sliding_window=True,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"] * 3,
    ),
    "olmo2": lambda: transformers.Olmo2Config(**GROUPED),
    "gemma2": lambda: transformers.Gemma2Config(**GROUPED, head_dim=8, sliding_window=WINDOW),
    # beyond the list: learned positions added to the embeddings; layers that return tuples
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCAB, n_layer=LAYERS, n_embd=32, n_head=4, n_positions=128
    ),
    "bloom": lambda: transformers.BloomConfig(
        vocab_size=VOCAB, n_layer=LAYERS, hidden_size=32, n_head=4
    ),
    # mixtures of experts, and hybrids of attention with convolution or a state space
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **GROUPED | EXPERT_SIZES,
        head_dim=8,
        num_experts=4,
        mlp_only_layers=[1, 4],
    ),
    "lfm2": lambda: transformers.Lfm2Config(
        **GROUPED, layer_types=["conv", "full_attention", "conv"] * 2, block_multiple_of=8
    ),
    "granitemoehybrid": lambda: transformers.GraniteMoeHybridConfig(
        **GROUPED,
        layer_types=["mamba", "attention", "mamba"] * 2,
        num_local_experts=4,
        num_experts_per_tok=2,
        shared_intermediate_size=16,
        mamba_n_heads=4,
        mamba_d_state=8,
        mamba_expand=2,
        mamba_d_head=16,
    ),
    # text and vision; the second one's decoder is a hybrid, and its tokenizer adds a token
    "gemma3_vision": lambda: transformers.Gemma3Config(
        text_config=ARCHITECTURES["gemma3"]().to_dict(),
        vision_config=SIZE | {"image_size": 28, "patch_size": 14, "num_hidden_layers": 1},
        image_token_id=VOCAB,
    ),
    "qwen3_5": lambda: transformers.Qwen3_5Config(
        text_config=GROUPED
        | {
            "vocab_size": VOCAB + 1,
            "head_dim": 16,
            "layer_types": ["linear_attention", "linear_attention", "full_attention"] * 2,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
        vision_config={"depth": 1, "hidden_size": 32, "num_heads": 4, "out_hidden_size": 32},
        image_token_id=VOCAB,
    ),
}

EXPERTS = ("qwen3_moe",)  # in place of the FFN
FEW = ("llama", "mistral", "gemma3", "gpt2", "bloom", "qwen3_moe", "qwen3_5")
# the others by `make test-all`


def architectures(*left_out: str) -> list:
    """Return the parameters of a test that runs over ARCHITECTURES."""
    names = [name for name in ARCHITECTURES if name not in left_out]
    return [name if name in FEW else pytest.param(name, marks=pytest.mark.real) for name in names]


def built(config, dtype: torch.dtype = torch.float32):
    """The model of a configuration; its random weights are the same each time."""
    torch.manual_seed(0)
    has_vision = hasattr(config, "vision_config")
    kind = AutoModelForImageTextToText if has_vision else AutoModelForCausalLM
    return kind.from_config(config, dtype=dtype).eval()


def wide_llama(**changes):
    """A Llama large enough for whole blocks of 64 weights, in bf16."""
    sizes = {"num_hidden_layers": 5, "hidden_size": 64, "intermediate_size": 128}
    own = {"num_key_value_heads": 2, "initializer_range": 0.2, "pad_token_id": None}
    return built(transformers.LlamaConfig(**SIZE | sizes | own | changes), torch.bfloat16)


def tiny(name: str):
    """A model whose layers all do something: weights and biases are random, norms not all one."""
    model = built(ARCHITECTURES[name]())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(DEVICE)


def logits(model, ids):
    with torch.inference_mode():
        return model(ids, use_cache=False).logits


def pytest_collection_modifyitems(items):
    """What takes longest begins first, and two workers end together."""
    first = ("test_run.py", "test_recorded.py")
    items.sort(key=lambda item: first.index(name) if (name := item.path.name) in first else 2)
    gc.freeze()  # imports leave 600,000 objects, which each of many collections would search


@pytest.fixture(params=architectures() if DEVICE == "cpu" else ["llama"])
def architecture(request):
    return request.param


@pytest.fixture
def model(architecture):
    return tiny(architecture)


@pytest.fixture
def llama():
    return tiny("llama")


@pytest.fixture
def ids():
    draw = torch.Generator().manual_seed(1)
    return torch.randint(3, VOCAB, (3, LENGTH), generator=draw).to(DEVICE)


@pytest.fixture(autouse=True, scope="session")
def computes_on_the_device():
    """Models are loaded to it, where NF4 stays packed, and healed on it."""
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE != "cpu":
            patch.setattr(loading, "default_device", lambda: DEVICE)
            patch.setattr(nf4, "UNPACKED", 0)
            patch.setenv("ACCELERATE_TORCH_DEVICE", DEVICE)
        if DEVICE == "sim":
            patch.setattr(memory, "gpu_memory", lambda device: simulated_device.MEMORY)
        yield


@pytest.fixture(autouse=True, scope="session")
def no_format_is_remembered(tmp_path_factory):
    """A busy machine's tests do not decide the format of the checkout's own results."""
    place, file, own = tmp_path_factory.mktemp("format"), cache.format_file, paths.RESULTS
    cache.format_file = lambda: place / "format.json" if paths.RESULTS == own else file()
    yield
    cache.format_file = file


@pytest.fixture
def output(tmp_path, monkeypatch):
    """Everything a test measures goes to an empty folder."""
    for name, place in {
        "RESULTS": tmp_path / "data" / "results",
        "TABLES": tmp_path / "data" / "tables",
        "FIGURES": tmp_path / "figures",
        "RUNS": tmp_path / "papermill_runs",
    }.items():
        monkeypatch.setattr(paths, name, place)
    return tmp_path


def note_above(figure) -> str:
    """Return what is written above a figure's panels, in one line."""
    return " ".join(figure.get_suptitle().split())


def replicate(folder, *arguments: str, cwd=paths.ROOT, **variables) -> subprocess.CompletedProcess:
    """Run `python -m replication`; all that it leaves is in `folder`."""
    environment = os.environ | {"DEEPER_LAYERS_OUTPUT": str(folder)} | variables
    command = [sys.executable, "-m", "replication", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


def run_elsewhere(notebook: Path, folder: Path, monkeypatch) -> nbformat.NotebookNode:
    """Run a notebook of `exercises` in `smoke` from another folder, where all that it leaves is."""
    monkeypatch.setenv("DEEPER_LAYERS_OUTPUT", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(paths.ROOT))  # not that of the tests
    return papermill.execute_notebook(
        notebook, folder / "done.ipynb", {"PROFILE": "smoke"}, cwd=folder, progress_bar=False
    )


def made_once(tmp_path_factory, name: str, *arguments: str, **variables) -> Path:
    """Return the folder of a whole run, made by the first process of pytest that needs it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / name
    with FileLock(base / f"{name}.lock"):
        if not folder.exists():
            folder.mkdir()
            done = replicate(folder, *arguments, cwd=folder, **variables)
            (folder / "stdout").write_text(done.stdout)
            (folder / "stderr").write_text(done.stderr)
            (folder / "exit").write_text(str(done.returncode))
    ended = [(folder / stream).read_text() for stream in ("exit", "stdout", "stderr")]
    assert ended[0] == "0", "\n".join(ended)
    return folder


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory):
    """Return the folder of every notebook in `smoke`, which nobody may change.

    It has an odd name, and the run begins in another working directory.
    """
    return made_once(tmp_path_factory, "a füll run", "--profile", "smoke")


@pytest.fixture(scope="session")
def recorded_run(tmp_path_factory):
    """Return the folder of the drawn record."""
    return made_once(tmp_path_factory, "recorded run", "--profile", profiles.DRAW_ONLY_PROFILE)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The folder of a checkpoint whose tokenizer has a token a letter: trained in a blink."""
    return str(stored(tiny("llama"), tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="module")
def base(small):
    """Model and tokenizer of `small`, in fp32."""
    return loading.load(small, dtype="float32")


@pytest.fixture(scope="session")
def smollm2():
    """The embedded model's tokenizer: byte-level BPE, where " No" and "No" are two tokens."""
    return files.tokenizer("smollm2-135m")


@pytest.fixture(scope="module")
def chromium():
    """The system's Chromium, driven by Playwright."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    quiet = ("gpu", "background-networking", "component-update", "sync")
    switches = ["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=switches)
        yield browser
        browser.close()


AS_RECORDED = {"rtol": 1e-6}  # the record has 7 digits; the rest is sums in any order of addition


class Distances:
    """Distances of a model, whose most similar block begins at `start` whatever its size."""

    def __init__(self, start: int = 2, num_layers: int = 8):
        self.start, self.num_layers = start, num_layers

    def best_start(self, size: int) -> int:
        return self.start


def real_task(name: str, **counts) -> Task:
    """A task on the real data, as many questions as the profile `smoke` has or `counts` say."""
    profile = dataclasses.replace(profiles.get("smoke"), **counts)
    return request.load_task(request.task_params(name, profile))


def three_questions() -> Task:
    """ARC-Easy by letter, after two solved examples, of four options each."""
    few_shot = dataclasses.replace(profiles.get("smoke"), arc_easy_shots=2)
    task = readings.load_four_options(request.task_params("arc_easy_letters", few_shot))
    return dataclasses.replace(task, examples=task.examples[:3])


def measured_scores(name: str, profile, blocks, tasks, recipe=None):
    """Scores of a model without each block, by task; if none is healed, first the unpruned ones."""
    blocks = blocks if recipe else [UNPRUNED, *blocks]
    pairs = [(task, block) for task in tasks for block in blocks]
    return scores.table([request.score(name, profile, *one, recipe) for one in pairs])


def score(depth: int, right: int, **columns) -> dict:
    """A made-up score without `depth` layers: of 100 questions the first `right` are right."""
    row = {"model": "m", "block_size": depth, "fraction": depth / 10, "floor": 0.25}
    row |= {"strategy": "similarity" if depth else "none"}
    row |= {"treatment": "unhealed" if depth else "unpruned"}
    row |= {"value": right / 100, "standard_error": 0.04, "n": 100}
    return row | {"examples": np.arange(100) < right, "weights": np.ones(100)} | columns


@pytest.fixture
def tokenizer():
    return letters()


@pytest.fixture
def loaded_llama(llama, tokenizer, output, monkeypatch):
    """A tiny model in the place of whatever is loaded, and an empty output folder."""
    monkeypatch.setattr(loading, "load_cached", lambda *args, **kwargs: (llama, tokenizer))
    return llama


def in_nf4(weight: torch.Tensor) -> torch.Tensor:
    """A weight to NF4 and back, by bitsandbytes' own functions; a block is a row of 64 for them."""
    rows = weight.reshape(-1, 64) if weight.numel() % 64 == 0 else weight
    packed, state = bitsandbytes.functional.quantize_4bit(
        rows, quant_type="nf4", compress_statistics=True
    )
    return bitsandbytes.functional.dequantize_4bit(packed, state).reshape(weight.shape)


def letters() -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of one token a letter."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2} | {chr(33 + i): 3 + i for i in range(VOCAB - 3)}
    plain = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    plain.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def stored(model, folder, **kwargs):
    """`model` as a checkpoint folder with a tokenizer of one token a letter."""
    model.save_pretrained(folder, **kwargs)
    letters().save_pretrained(folder)
    return folder


# ---- a hub -----------------------------------------------------------------------------------

COMMIT = "c" * 40


class Hub(SimpleHTTPRequestHandler):
    """Answers like the hub, whose files lie at their addresses below a folder."""

    def __init__(self, sent: list[str], gated: bool, *args, **options):
        self.sent, self.gated = sent, gated
        super().__init__(*args, **options)

    def send_head(self):
        """Send what comes before a file; of a gated model what the hub says without a login."""
        if not self.gated or "/resolve/" not in self.path:
            return super().send_head()
        self.send_response(401)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Error-Message", "Access to this model is restricted.")
        self.send_header("Content-Length", "0")
        super().end_headers()
        return None

    def end_headers(self):
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{Path(self.path).name}"')
        super().end_headers()

    def log_request(self, code):
        if self.command == "GET" and "/resolve/" in self.path:
            self.sent.append(Path(self.path).name)

    def log_message(self, *args):
        pass


@contextmanager
def local_hub(name: str, folder: Path, gated: bool = False):
    """A hub that has the model `name`: its address, and the files that it was made to send."""
    sent = []
    with TemporaryDirectory() as root:
        tree = Path(root, "api", "models", name, "tree", COMMIT)
        tree.parent.mkdir(parents=True)
        files = [
            {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": file.name}
            for file in folder.iterdir()
        ]
        tree.write_text(json.dumps(files))
        resolved = Path(root, name, "resolve")
        resolved.mkdir(parents=True)
        for revision in ("main", COMMIT):
            (resolved / revision).symlink_to(folder)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, sent, gated, directory=root))
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", sent
        finally:
            server.shutdown()


def with_real_tokenizer(model, folder):
    """`model` as a checkpoint folder with the embedded model's tokenizer."""
    model.save_pretrained(folder)
    ignored = shutil.ignore_patterns("config.json", "generation_config.json", "*.safetensors")
    real = files.local_folder(registry.resolve("smollm2-135m"))
    shutil.copytree(real, folder, dirs_exist_ok=True, ignore=ignored)
    return folder


# ---- programs, in this process ---------------------------------------------------------------


def text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def start(module: str, *arguments: str) -> int:
    """Return the exit status of `python -m module`, run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *arguments])
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as end:
            return end.code or 0
    return 0


def make_in_process(*variables: str) -> int:
    """Return the exit status of `make prune` with these variables, whose program runs here."""
    command = ["make", "-n", "-o", ".venv/installed", "prune", *variables]
    made = subprocess.run(command, cwd=paths.ROOT, text=True, capture_output=True)
    sys.stderr.write(made.stderr)
    if made.returncode:
        return made.returncode
    _, _, module, *words = shlex.split(made.stdout)
    return start(module, *words)


@pytest.fixture(scope="module")
def computes_in_fp32():
    """As on a processor that is slow in bf16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "default_dtype", lambda device: "float32")
        yield


@pytest.fixture(scope="session", autouse=True)
def any_map():
    """`prune` goes on with a map that raises the loss, as in models with random weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib.prune.steps.SIGNIFICANT", math.inf)
        yield


@pytest.fixture(scope="module")
def asks_of_every_cut():
    """`prune` asks its cuts whatever the whole model scores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib.prune.steps.SIGNAL", -math.inf)
        yield
