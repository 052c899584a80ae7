"""`python -m benchmarks.peers [MODEL …]`: what other tools make of a model, beside ours.

By default of Qwen2.5-Coder-0.5B and -1.5B, after dropping 10, 20 and 30 % of the layers. Other
tools run by their own code, each in an environment of its own below data/peers/, which pip fills;
short-transformers and mergekit need older transformers. PruneMe and ReplaceMe are in no registry:
theirs are the formulas, in our code. PruneMe chooses the block of the row `ours: cut`, and mergekit
cuts it. What heals a cut besides is what guides to peft and Trainer say.

What a tool makes is a checkpoint. It is scored on 64 texts of C4 that chose nothing, and on 64
articles of Wikipedia, of which nothing is chosen or trained. Its row is kept in data/peers/: the
same command goes on where it was. Minutes are of the CPU, on one thread, to choose, cut and repair;
mergekit is given the block. What is healed has three seeds. Differences are from our default
repair of the same seed, paired on texts. In the end the rows are put into
benchmarks/results/peers.csv.

Trainer's rate is that of guides. `--rates` compares our default with Trainer alone, at 20 % also at
other rates; its table is benchmarks/results/peers_rates.csv. `--kept` measures nothing: the table
has the rows that are kept.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch

from lib import evaluation, paths, storage
from lib.data import sets
from lib.evaluation import Task, weighted_mean
from lib.healing import linear
from lib.models import files, loading, machine, registry
from lib.prune import Options, steps
from lib.prune.options import MAX_TOKENS
from lib.sweep import sweep

RESULTS = Path(__file__).parent / "results"
KEPT = paths.DATA / "peers"  # rows, and environments
MODELS = ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
FRACTIONS = (0.1, 0.2, 0.3)
MIDDLE = FRACTIONS[1]
SEEDS = range(3)
SCORED = 64  # texts
ARTICLE = 1000  # characters, at least
KEYS = ["model", "layers", "method", "seed", "task"]
WHOLE = "whole"

# options of `lib.prune` by the name of a row
CUT, REPLACEME, DEFAULT = "ours: cut", "ReplaceMe (2505.02819), its formula", "ours: map, LoRA"
OURS = {
    CUT: {},
    REPLACEME: {"repair": "map"},
    "ours: map": {"repair": "map"},
    "ours: LoRA, as many minutes": {"heal": 10},
    DEFAULT: {"repair": "map", "heal": 8},
    "ours: BY=map": {"repair": "map", "by": "map"},
}

# code of other tools: folder of the model, new one, layers, block's start, seed, file of texts
BEGIN = """
import json, sys
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
base, out, *numbers, texts = sys.argv[1:]
size, start, seed = map(int, numbers)
train = json.load(open(texts))
texts = train[:32]  # by which a block is chosen
tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{base}/tokenizer.json")
config = AutoConfig.from_pretrained(base)
"""
MERGEKIT = """
import pathlib, subprocess
slices = [{"sources": [{"model": base, "layer_range": ends}]}
          for ends in ([0, start], [start + size, config.num_hidden_layers])]
plan = {"merge_method": "passthrough", "dtype": "bfloat16", "slices": slices}
json.dump(plan, open(f"{out}.yml", "w"))
mergekit = pathlib.Path(sys.executable).with_name("mergekit-yaml")
subprocess.run([mergekit, f"{out}.yml", out], check=True)
"""
TRAINER = """
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments
tokenizer.pad_token = tokenizer.decode(config.eos_token_id)
model = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
recipe = TrainingArguments(
    f"{out}.trainer", max_steps=64, per_device_train_batch_size=1, learning_rate=RATE,
    seed=seed, use_cpu=True, report_to="none", save_strategy="no")
rows = Dataset.from_dict(tokenizer(train, truncation=True, max_length=256))
collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
trainer = Trainer(get_peft_model(model, lora), recipe, collator, rows)
trainer.train()
trainer.model.merge_and_unload().save_pretrained(out)
"""
SHORT_TRANSFORMERS = """
from short_transformers import ShortTransformer
config.rope_theta = config.rope_parameters["rope_theta"]
model = ShortTransformer.from_pretrained(base, config=config, torch_dtype="auto")
rows = [{"text": text} for text in texts]
model.remove_layers(tokenizer, size, rows, limit=len(rows), max_length=256)
model.save_pretrained(out)
"""
OPTIPFAIR = """
import optipfair
model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
limits = {"truncation": True, "max_length": 256, "return_tensors": "pt"}
batches = [dict(tokenizer(text, **limits)) for text in texts]
scores = optipfair.analyze_layer_importance(model, batches)
least = sorted(scores, key=scores.get)[:size]
optipfair.prune_model(model, "DEPTH", layer_indices=least).save_pretrained(out)
"""
END = """
raw = json.load(open(f"{out}/config.json"))
if "layer_types" in raw:  # none of them cuts it; here all are alike
    raw["layer_types"] = raw["layer_types"][: raw["num_hidden_layers"]]
json.dump(raw, open(f"{out}/config.json", "w"))
"""
# what pip installs, and the code
OF_MERGEKIT = ["mergekit==0.1.5", "transformers==5.0.0"]  # newer ones refuse its cut of a Qwen2
TRAINED = "mergekit 0.1.5, peft and Trainer"
PEERS = {
    "mergekit 0.1.5": (OF_MERGEKIT, MERGEKIT),
    TRAINED: (OF_MERGEKIT, MERGEKIT + END + TRAINER.replace("RATE", "2e-4")),
    "short-transformers 1.0.0": (
        ["short-transformers==1.0.0", "transformers==4.46.3"],
        SHORT_TRANSFORMERS,
    ),
    "optipfair 0.4.2 (ShortGPT's rule)": (["optipfair==0.4.2"], OPTIPFAIR),
}

OF_TABLE = WHOLE, *PEERS, *OURS

RATES = {f"{TRAINED}, rate {rate}": rate for rate in ("1e-4", "5e-4", "1e-3", "2e-3")}
PEERS |= {
    method: (OF_MERGEKIT, MERGEKIT + END + TRAINER.replace("RATE", rate))
    for method, rate in RATES.items()
}
OF_RATES = WHOLE, CUT, DEFAULT, TRAINED, *RATES
HEALED = {TRAINED, *RATES} | {method for method, options in OURS.items() if "heal" in options}


def environment(tool: str) -> Path:
    """Return the Python of a tool's environment, which has what is missing in ours."""
    folder = KEPT / storage.component(" ".join(PEERS[tool][0])) / ".venv"
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        (packages,) = folder.glob("lib/*/site-packages")
        ours = [place for place in sys.path if place.endswith("site-packages")]
        (packages / "ours.pth").write_text("\n".join(ours))
        subprocess.run([folder / "bin/pip", "install", "-q", *PEERS[tool][0]], check=True)
        (folder / "installed").touch()
    return folder / "bin/python"


def by_peer(tool: str, name: str, size: int, start: int, seed: int, folder: Path) -> Path:
    """Return the checkpoint that a tool makes."""
    base, out = files.open_checkpoint(name).folder, folder / "out"
    texts = folder / "texts.json"
    texts.write_text(json.dumps(sets.healing_texts("c4", 0)))
    command = [environment(tool), "-c", BEGIN + PEERS[tool][1] + END]
    subprocess.run([*command, *map(str, (base, out, size, start, seed, texts))], check=True)
    for file in base.glob("tokenizer*"):
        shutil.copy(file, out)
    return out


def by_ours(method: str, name: str, size: int, seed: int, folder: Path) -> tuple[Path, int]:
    """Return the checkpoint that `lib.prune` makes, and the first layer that it drops."""
    options = Options(name, size, seed=seed, tasks="c4", **OURS[method])
    work = steps.Work(options, options.scored(), folder)
    moments, ridges = linear.moments, linear.RIDGES
    if method == REPLACEME:
        moments, ridges = unweighted, (1e-12,)
    with mock.patch.multiple(linear, moments=moments, RIDGES=ridges):
        block, adapter = steps.cut(work)
    return steps.save(work, block, adapter, files.open_checkpoint(name).dtype), block.start


def unweighted(before, after, inputs) -> linear.Moments:
    """Return the moments of ReplaceMe's least squares, where long states count more."""
    z, change = inputs.double(), (after - before).double()
    return linear.Moments(z.T @ z, z.T @ change, float(change.square().sum()))


def cpu_seconds() -> float:
    """Return the seconds of this process, and of those that it has waited for."""
    return time.process_time() + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def file_of(method: str, name: str, size: int, seed: int) -> Path:
    """Return the file that keeps a method's row."""
    return KEPT / storage.component(f"{name} {size} {seed} {method}") / "row.json"


def row_of(method: str, name: str, size: int, seed: int) -> dict:
    """Return a method's block, minutes and losses: measured, or as they are kept."""
    file = file_of(method, name, size, seed)
    if not file.exists():
        start = None
        if method in PEERS:
            environment(method)  # not timed
            start = row_of(CUT, name, size, 0)["start"]
        began = cpu_seconds()
        with tempfile.TemporaryDirectory() as folder:
            made = name
            if method in PEERS:
                made = by_peer(method, name, size, start, seed, Path(folder))
            elif method in OURS:
                made, start = by_ours(method, name, size, seed, Path(folder))
            minutes = (cpu_seconds() - began) / 60
            model, tokenizer = loading.load(str(made))
            losses = {judge: losses_on(task, model, tokenizer) for judge, task in judges().items()}
        row = {"start": start, "minutes": minutes, "processor": machine.processor()} | losses
        storage.atomic_write(file, json.dumps(row, default=int).encode())
    return json.loads(file.read_text())


def judges() -> dict[str, Task]:
    """Return the tasks that score: texts like those that heal, and others."""
    c4 = evaluation.task("c4", "wheels", sequences=SCORED, max_tokens=MAX_TOKENS)
    articles = sets.healing_texts("wheels", 0)[len(sets.healing_texts("c4", 0)) :]
    long = [text for text in dict.fromkeys(articles) if len(text) >= ARTICLE][:SCORED]
    examples = tuple({"text": text, "max_tokens": MAX_TOKENS, "copies": 1} for text in long)
    return {"c4": c4, "wikipedia": replace(c4, examples=examples)}


def losses_on(task: Task, model, tokenizer) -> list[list[float]]:
    """Return the loss of each text in nats per token, and its weight."""
    scores = sweep(model, tokenizer, [], [task]).iloc[0]
    return [list(scores.examples), list(scores.weights)]


def table(names: list[str], methods: Sequence[str], only_kept: bool) -> pd.DataFrame:
    """Return a row a model, number of layers, method, seed and judge."""
    rows = []
    for name, fraction in product(names, FRACTIONS):
        size = round(fraction * registry.num_layers(name))
        for method, seed in product(methods, SEEDS):
            if seed and method not in HEALED:
                continue  # there each seed is the same
            if method in RATES and fraction != MIDDLE:
                continue
            pair = method, DEFAULT
            if only_kept and not all(file_of(each, name, size, seed).exists() for each in pair):
                continue
            row, ours = (row_of(each, name, size, seed) for each in pair)
            for judge in judges():
                losses, weights = np.array(row[judge])
                value, error = weighted_mean(losses, weights)
                difference, paired = weighted_mean(losses - ours[judge][0], weights)
                rows.append(
                    {
                        "model": name,
                        "layers": size,
                        "method": method,
                        "seed": seed,
                        "task": judge,
                        "start": row["start"],
                        "value": value,
                        "standard_error": error,
                        "difference": difference,
                        "difference_error": paired,
                        "minutes": row["minutes"],
                        "n": SCORED,
                        "processor": row["processor"],
                    }
                )
    return pd.DataFrame(rows).astype({"start": "Int64"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--rates", action="store_true", help="our default and Trainer, by rate")
    parser.add_argument("--kept", action="store_true", help="measure nothing")
    call = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the other tools
    rows = table(call.models, OF_RATES if call.rates else OF_TABLE, call.kept)
    file = RESULTS / ("peers_rates.csv" if call.rates else "peers.csv")
    before = pd.read_csv(file) if file.exists() else rows[:0]
    after = pd.concat([before, rows.round(4)]).drop_duplicates(KEYS, keep="last")
    after.to_csv(file, index=False)
    print(rows.to_string())


if __name__ == "__main__":
    main()
