"""`python -m benchmarks.choice [MODEL …]`: the block by BY=similarity, BY=loss or BY=map.

By default of SmolLM2-135M and Qwen2.5-Coder-0.5B and -1.5B, after dropping 10, 20 and 30 % of the
layers. Each rule chooses a block that a map can repair. The cut, the cut with its map, and the cut
after REPAIR=map HEAL=8 are scored on 64 texts of C4 that chose nothing, in nats per token. Minutes
are of the CPU, on one thread, to choose; BY=map fits its map in them.

What is done is kept in data/choice/: the same command goes on where it was. In the end the models'
rows are put into benchmarks/results/choice.csv.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.peers import FRACTIONS, SCORED
from lib import evaluation, paths, storage
from lib.evaluation import Task, weighted_mean
from lib.models import files, loading, machine, registry
from lib.prune import Options, steps
from lib.prune.options import CHOICES, MAX_TOKENS
from lib.sweep import sweep

FILE = Path(__file__).parent / "results" / "choice.csv"
KEPT = paths.DATA / "choice"
MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
PAPER, *OTHERS = CHOICES["by"]


def once(name: str, measure: Callable[[], dict]) -> dict:
    """Return what is measured under a name, or was before."""
    kept = KEPT / f"{storage.component(name)}.json"
    if not kept.exists():
        storage.atomic_write(kept, json.dumps(measure()).encode())
    return json.loads(kept.read_text())


def judging() -> Task:
    """Return the loss on the texts that choose nothing."""
    return evaluation.task("c4", "wheels", sequences=SCORED, max_tokens=MAX_TOKENS)


def chosen(name: str, size: int, by: str) -> dict:
    """Return the first layer of the block that a rule chooses, and the minutes that it takes."""
    options = Options(name, size, by=by, repair="map", tasks="c4")
    work = steps.Work(options, options.scored(), KEPT)
    model, tokenizer = work.load(name)
    began = time.process_time()
    blocks = steps.choose(options, model, tokenizer)
    block = blocks[0] if len(blocks) == 1 else steps.fit_map(work, model, tokenizer, blocks)
    return {"start": block.start, "minutes": (time.process_time() - began) / 60}


def losses(name: str, size: int, start: int) -> dict[str, list]:
    """Return what each text loses, and its weight: whole, cut, mapped, healed."""
    options = Options(name, size, start=start, repair="map", heal=8, tasks="c4")
    with tempfile.TemporaryDirectory() as folder:
        work = steps.Work(options, [judging()], Path(folder))
        block, adapter = steps.cut(work)
        scores = {
            row["version"]: np.array(row["scores"]["c4"]).tolist()
            for row in work.results["versions"]
        }
        saved = steps.save(work, block, adapter, files.open_checkpoint(name).dtype)
        (row,) = sweep(*loading.load(str(saved)), [], [judging()]).itertuples()
    return scores | {"healed": np.array([row.examples, row.weights]).tolist()}


def rows_of(name: str, fraction: float) -> list[dict]:
    """Return a row a rule: its block, and the loss of each version of the model."""
    size = round(fraction * registry.num_layers(name))
    blocks = {
        by: once(f"{name} {size} {by}", lambda b=by: chosen(name, size, b))
        for by in (PAPER, *OTHERS)
    }
    by_start = {}
    for start in sorted({block["start"] for block in blocks.values()}):
        by_start[start] = once(f"{name} {size} {start}", lambda s=start: losses(name, size, s))
    rows = []
    for by, version in product(blocks, ("cut", "mapped", "healed")):
        values, weights = np.array(by_start[blocks[by]["start"]][version])
        paper, _ = np.array(by_start[blocks[PAPER]["start"]][version])
        value, error = weighted_mean(values, weights)
        difference, paired = weighted_mean(values - paper, weights)
        rows.append(
            {
                "model": name,
                "layers": size,
                "version": version,
                "by": by,
                "start": blocks[by]["start"],
                "loss": value,
                "loss_error": error,
                "to_similarity": difference,
                "to_similarity_error": paired,
                "minutes_to_choose": blocks[by]["minutes"],
                "n": SCORED,
            }
        )
    return rows


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    names = names or list(MODELS)
    rows = [row for name, fraction in product(names, FRACTIONS) for row in rows_of(name, fraction)]
    table = pd.DataFrame(rows).round(4).assign(processor=machine.processor())
    if FILE.exists():
        others = pd.read_csv(FILE).query("model not in @names")
        table = pd.concat([others, table])
    table.to_csv(FILE, index=False)
    print(table.to_string())


if __name__ == "__main__":
    main(sys.argv[1:])
