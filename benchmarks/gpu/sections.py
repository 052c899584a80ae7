"""What is measured, in turn; each section adds its rows."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from bitsandbytes.nn import Linear4bit

from benchmarks.gpu import healing, random_model
from benchmarks.gpu.bench import Bench, Measured, Row, clock
from lib import cards, similarity
from lib.blocks import UNPRUNED, Block
from lib.evaluation import Task
from lib.models import loading
from lib.models.reading import prefix_batches
from lib.paths import ASSETS
from lib.sweep import sweep
from replication import paths
from replication.measure import latency

SEVEN_B = {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32}
SEVEN_B |= {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32_000}
TINY = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 8}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320}


def agreement(bench: Bench) -> None:
    """tests of the method, on the device; without one, on one that is simulated"""
    if not (ASSETS / "smollm2-135m").exists():
        return bench.add(Row("tests", note="not run: `make fetch` fetches what they read"))
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
    command += ["-m", "not real", "@tests/simulated_device/tests.txt"]
    device = "cuda" if torch.cuda.is_available() else "sim" if shutil.which("g++") else "cpu"
    environment = os.environ | {"DEEPER_LAYERS_DEVICE": device}
    done = subprocess.run(command, cwd=paths.ROOT, env=environment, capture_output=True, text=True)
    lines = (done.stdout or done.stderr).strip().splitlines()
    bench.add(Row("tests", note=lines[-1]))
    if done.returncode:
        raise AssertionError("\n".join(lines[-60:]))


def load(bench: Bench) -> None:
    """the model: written, loaded in NF4, whole and without a block"""
    shards = 2 if bench.tiny else 14
    with clock() as took:
        random_model.write(Path(bench.name), shards, loading.default_device(), **bench.sizes)
    bench.add(Row("write the model", Measured(took.seconds)))
    for block in (UNPRUNED, bench.block):
        loading._loaded.clear()
        with clock() as took:
            model, _ = bench.model(block)
        layers = bench.num_layers - block.size
        packed = any(isinstance(module, Linear4bit) for module in model.modules())
        stored = bench.loaded if packed else bench.loaded._replace(quantization=None)
        planned = stored.weights(layers)
        note = f"{latency.weight_bytes(model) / 1e9:.3g} GB of tensors"
        note += "" if packed else ", unpacked"
        note += f", {took.peak / 1e9:.3g} at the peak" if took.peak else ""
        kept = Measured(took.seconds, took.kept)
        bench.add(Row(f"load {layers} layers", kept, memory=planned, note=note))
        del model


def distances(bench: Bench) -> None:
    """angular distances"""
    model, tokenizer = bench.model()
    profile, longest = bench.profile, bench.profile.similarity_tokens
    texts = random_model.texts(profile.similarity_sequences, longest)
    batches = list(similarity.calibration_batches(texts, tokenizer, longest, profile.batch_tokens))
    similarity.block_distances(model, batches[:2])
    with clock() as took:
        similarity.block_distances(model, batches)
    read = cards.Reading(len(texts) * longest, 0)
    runs = [bench.num_layers]
    work = bench.loaded.forward("similarity", read, runs, profile.batch_tokens)
    row = work.memory - bench.loaded.weights(bench.num_layers)
    bench.planned("distances", took, work, memory=row)


def sweeps(bench: Bench) -> None:
    """a sweep on C4 and on questions with shared examples"""
    profile, layers = bench.profile, bench.num_layers
    texts = random_model.texts(profile.c4_sequences, profile.c4_tokens)
    c4 = Task("c4", tuple({"text": t, "max_tokens": profile.c4_tokens} for t in texts))
    questions = random_model.mmlu(profile.mmlu_questions, profile.c4_tokens // 8, shots=5)
    sizes = range(1, layers // 2, 3)
    blocks = [Block(layers - 1 - n - n % 3, n) for n in sizes]
    model, tokenizer = bench.model()
    for task in (c4, questions):
        sweep(model, tokenizer, [], [Task(task.name, task.examples[:1])], profile.batch_tokens)
        with clock() as took:
            sweep(model, tokenizer, blocks, [task], profile.batch_tokens)
        runs = [layers, *(layers - block.stop for block in blocks)]
        read = _reading(task, tokenizer, profile.batch_tokens)
        work = bench.loaded.forward("scores", read, runs, profile.batch_tokens)
        row = work.memory - bench.loaded.weights(layers)
        bench.planned(f"sweep {task.name}", took, work, memory=row, note=f"{len(blocks)} blocks")


def _reading(task: Task, tokenizer, batch_tokens: int) -> cards.Reading:
    """Return what a version reads of a task."""
    rows = [row for example in task.rows(tokenizer) for row in example]
    read = list(prefix_batches(rows, batch_tokens))
    prefixes = sum(bundle.prefix.numel() for bundle in read if bundle.prefix is not None)
    tokens = prefixes + sum(own.ids.numel() for bundle in read for own in bundle.batches)
    return cards.Reading(tokens, sum(len(row.target_ids) for row in rows))


# What runs, and the seconds that each may take.
SECTIONS: dict[Callable, float] = {
    agreement: 150,
    load: 150,
    distances: 40,
    sweeps: 60,
    healing.steps: 120,
    healing.packed: 90,
}
