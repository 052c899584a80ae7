"""`python -m benchmarks.teacher [NAME …]`: chats heal an instruct model, also with a teacher.

SmolLM2-135M-Instruct after dropping 6 layers, with a map, healed on 200 chats of GSM8K: the
question is the user's, the solution the assistant's. With and without a teacher a healing reads
the same tokens, by three seeds. Each saved model is scored on the answers of 200 other problems,
and on C4, in nats per token. So are the whole model, and the cut with its map alone. Minutes are
of the CPU, on one thread, with all that `prune` does.

What is done is kept in data/teacher/: the same command goes on where it was. With names, as
map-LoRA-0, only these are measured. Else benchmarks/results/teacher.csv is written.
"""

import json
import re
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib import evaluation, paths
from lib.data import chats, sets
from lib.evaluation import Task, weighted_mean
from lib.models import loading, machine
from lib.prune import Options, prune
from lib.sweep import sweep

FILE = Path(__file__).parent / "results" / "teacher.csv"
KEPT = paths.DATA / "teacher"
MODEL, LAYERS = "smollm2-135m", 6
TRAIN, JUDGED = 200, 200  # chats
EVERY = 8  # each eighth row of a file is not trained on
STEPS = 128  # of a sequence of 256 tokens
WHOLE, PLAIN, TAUGHT = "whole", "map-LoRA", "map-LoRA-teacher"
RUNS = {f"{WHOLE}-0": None, "map-0": {}} | {
    f"{way}-{seed}": {"steps": STEPS, "seed": seed, "teacher": int(way == TAUGHT)}
    for seed, way in product(range(3), (PLAIN, TAUGHT))
}


def messages() -> tuple[str, list[list[dict]]]:
    """Write the chats to train on into a file; return its name, and the chats to judge."""
    train = TRAIN * EVERY // (EVERY - 1)
    _, rows = sets.gsm8k("wheels", train + JUDGED, shots=0)
    talks = []
    for row in rows:
        answer = re.sub("<<.*?>>", "", row["answer"])  # of a calculator
        pairs = ("user", row["question"]), ("assistant", answer)
        talks.append([{"role": role, "content": content} for role, content in pairs])
    KEPT.mkdir(exist_ok=True)
    file = KEPT / "messages.jsonl"
    lines = [json.dumps({"messages": talk}) for talk in talks[:train]]
    file.write_text("\n".join(lines), encoding="utf-8")
    return str(file), talks[train:]


def scores(folder: str, talks: list[list[dict]]) -> dict[str, list]:
    """Return by what is read (answers, c4) the loss of each text, and how many tokens count."""
    examples = [{"text": chats.read(talk), "max_tokens": 1024} for talk in talks]
    c4 = evaluation.task("c4", sequences=96, max_tokens=256)
    model, tokenizer = loading.load(folder)
    tasks = {"answers": Task("c4", tuple(examples)), "c4": c4}
    pairs = {}
    for name, task in tasks.items():
        (row,) = sweep(model, tokenizer, [], [task]).itertuples()
        pairs[name] = np.array([row.examples, row.weights]).tolist()
    return pairs


def measured(name: str, file: str, talks: list[list[dict]]) -> dict:
    """Return the losses of a model by what is read, and the minutes that it took."""
    kept, out, options = KEPT / f"{name}.json", KEPT / name, RUNS[name]
    if not kept.exists():
        start = time.process_time()
        if options is not None and not out.exists():
            call = {"layers": LAYERS, "repair": "map", "tasks": "c4", "texts": file}
            prune(Options(MODEL, **call, **options), out)
        minutes = (time.process_time() - start) / 60
        losses = scores(MODEL if options is None else str(out), talks)
        kept.write_text(json.dumps({"minutes": minutes, "losses": losses}))
    return json.loads(kept.read_text())


def compared(done: dict[str, dict]) -> pd.DataFrame:
    """Return a row a model and what is read: its loss, and the difference to the plain healing.

    The difference is paired on texts, between models of one seed; of the others' to seed 0.
    """
    rows = []
    for (name, result), read in product(done.items(), ("answers", "c4")):
        way, _, seed = name.rpartition("-")
        losses, weights = np.array(result["losses"][read])
        plain, _ = np.array(done[f"{PLAIN}-{seed}"]["losses"][read])
        (loss, error), (change, of_change) = (
            weighted_mean(values, weights) for values in (losses, losses - plain)
        )
        rows.append(
            {
                "repair": way,
                "seed": int(seed),
                "read": read,
                "loss": loss,
                "standard_error": error,
                "to_plain": change,
                "to_plain_error": of_change,
                "minutes": result["minutes"],
                "n": len(losses),
            }
        )
    return pd.DataFrame(rows).round(4).assign(processor=machine.processor())


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    file, talks = messages()
    done = {name: measured(name, file, talks) for name in names or RUNS}
    if not names:
        table = compared(done)
        table.to_csv(FILE, index=False)
        print(table.to_string())


if __name__ == "__main__":
    main(sys.argv[1:])
