"""`python -m benchmarks.teacher`: chats heal an instruct model, also with a teacher.

SmolLM2-135M-Instruct after dropping 6 layers from layer 13 on, with a map, healed on 200 chats of
GSM8K as REPAIR=map HEAL=8 does it: the question is the user's, the solution the assistant's. With
HEAL=96 it reads 520 chats, each about once. With and without a teacher a healing reads the same
tokens, by three seeds. Each model is scored on the answers of 100 other problems, and on C4, in
nats per token. So are the whole model, and the cut with its map alone. Minutes are of the CPU, on
one thread, of the healing alone.

What is done is kept in data/teacher/: the same command goes on where it was. The rows of this HEAL
in benchmarks/results/teacher.csv are written anew.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib import evaluation, paths
from lib.blocks import Block
from lib.data import chats, sets
from lib.evaluation import Task, weighted_mean
from lib.healing import Recipe, heal
from lib.healing.linear import add_map_hook
from lib.healing.lora import load_lora
from lib.models import loading, machine
from lib.prune import Options
from lib.prune.options import FITTED
from lib.prune.steps import fitted_maps
from lib.pruning import dropped
from lib.sweep import sweep

FILE = Path(__file__).parent / "results" / "teacher.csv"
KEPT = paths.DATA / "teacher"
MODEL, BLOCK = "smollm2-135m", Block(13, 6)
TRAIN = {8: 200, 96: 520}  # chats to train on, by HEAL
JUDGED = 100  # chats
EVERY = 8  # each eighth row of a file is not trained on
SEEDS = range(3)
READ = "answers", "c4"
WHOLE, MAPPED, PLAIN, TAUGHT = "whole", "map", "map, LoRA", "map, LoRA, teacher"


def messages(train: int) -> tuple[str, list[list[dict]]]:
    """Write so many chats to train on into a file; return its name, and the chats to judge."""
    train = train * EVERY // (EVERY - 1)
    _, rows = sets.gsm8k("wheels", train + JUDGED, shots=0)
    talks = []
    for row in rows:
        answer = re.sub("<<.*?>>", "", row["answer"])  # of a calculator
        pairs = ("user", row["question"]), ("assistant", answer)
        talks.append([{"role": role, "content": content} for role, content in pairs])
    file = KEPT / f"messages-{train}.jsonl"
    lines = [json.dumps({"messages": talk}) for talk in talks[:train]]
    file.write_text("\n".join(lines), encoding="utf-8")
    return str(file), talks[train:]


def scores(model, tokenizer, talks: list[list[dict]]) -> dict[str, list]:
    """Return by what is read (answers, c4) the loss of each text, and how many tokens count."""
    examples = [{"text": chats.read(talk), "max_tokens": 1024} for talk in talks]
    c4 = evaluation.task("c4", sequences=32, max_tokens=256)
    tasks = {"answers": Task("c4", tuple(examples)), "c4": c4}
    pairs = {}
    for name, task in tasks.items():
        (row,) = sweep(model, tokenizer, [], [task]).itertuples()
        pairs[name] = np.array([row.examples, row.weights]).tolist()
    return pairs


def once(name: str, measure: Callable[[], dict]) -> dict:
    """Return what is measured under a name, or was before."""
    kept = KEPT / f"{name}.json"
    if not kept.exists():
        kept.write_text(json.dumps(measure()))
    return json.loads(kept.read_text())


def measured(seeds: Sequence[int], heal_units: int) -> dict[tuple[str, int], dict]:
    """Return minutes and scores by repair and seed; of what has no seed with the first seed."""
    file, talks = messages(TRAIN[heal_units])
    model, tokenizer = loading.load(MODEL)
    call = {"layers": BLOCK.size, "start": BLOCK.start, "repair": "map", "texts": file}
    options = Options(MODEL, heal=heal_units, **call)
    recipe = options.recipe(model.num_parameters(), on_cpu=True)
    texts = options.train_texts(FITTED)
    (mapped,) = fitted_maps(model, tokenizer, [BLOCK], texts)
    done = {}

    def healed(name: str, recipe: Recipe, whole) -> dict:
        start = time.process_time()
        result = heal(model, tokenizer, recipe, KEPT / name, whole=whole)
        minutes = (time.process_time() - start) / 60
        with load_lora(model, result.adapter):
            return scores(model, tokenizer, talks) | {"minutes": minutes}

    with dropped(model, BLOCK) as whole:
        add_map_hook(model, BLOCK, mapped.change)
        for seed, way in product(seeds, (PLAIN, TAUGHT)):
            name = f"{way}-{heal_units}-{seed}"
            one = replace(recipe, seed=seed, teacher=way == TAUGHT)
            done[way, seed] = once(name, lambda n=name, r=one: healed(n, r, whole))
        name = f"{MAPPED}-{heal_units}"
        done[MAPPED, seeds[0]] = once(name, lambda: scores(model, tokenizer, talks))
    name = f"{WHOLE}-{heal_units}"
    done[WHOLE, seeds[0]] = once(name, lambda: scores(model, tokenizer, talks))
    return done


def compared(done: dict[tuple[str, int], dict], seeds: Sequence[int]) -> pd.DataFrame:
    """Return a row a model and what is read: its loss, and the difference to the plain healing.

    The difference is paired on texts, between models of one seed; the last rows have that of the
    mean over seeds.
    """
    rows = []
    for ((way, seed), result), read in product(done.items(), READ):
        losses, weights = np.array(result[read])
        plain, _ = np.array(done[PLAIN, seed][read])
        row = {"repair": way, "seed": seed, "read": read, "n": len(losses)}
        row |= _means("loss", losses, weights) | _means("to_plain", losses - plain, weights)
        rows.append(row | {"minutes": result.get("minutes")})
    for read in READ:
        changes = [
            np.array(done[TAUGHT, seed][read])[0] - np.array(done[PLAIN, seed][read])[0]
            for seed in seeds
        ]
        weights = np.array(done[TAUGHT, seeds[0]][read])[1]
        row = {"repair": TAUGHT, "seed": "mean", "read": read, "n": len(weights)}
        rows.append(row | _means("to_plain", np.mean(changes, axis=0), weights))
    return pd.DataFrame(rows).round(4).assign(processor=machine.processor())


def _means(name: str, values: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    return dict(zip((name, f"{name}_error"), weighted_mean(values, weights), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--heal", type=int, choices=TRAIN, default=min(TRAIN))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    call = parser.parse_args()
    torch.set_num_threads(1)
    KEPT.mkdir(exist_ok=True)
    table = compared(measured(call.seeds, call.heal), call.seeds)
    table.insert(0, "heal", call.heal)
    others = pd.read_csv(FILE).query("heal != @call.heal")
    pd.concat([others, table]).sort_values("heal", kind="stable").to_csv(FILE, index=False)
    print(table.to_string())


if __name__ == "__main__":
    main()
