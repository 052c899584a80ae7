"""`python -m benchmarks.lm_eval_tasks [QUESTIONS]`: tasks of lm-eval by our sweep and by lm-eval.

Both score SmolLM2-135M and five cuts on the same local files, in float32 on one core. lm-eval is
called once for each version, in memory, so that no weights are loaded. Seconds are of the
processor, so other programs hardly count. The numbers go to benchmarks/results/lm_eval.csv.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import pandas as pd
import torch

from lib import evaluation
from lib.blocks import UNPRUNED, Block
from lib.models import loading
from lib.pruning import dropped
from lib.sweep import sweep
from lib.tasks import LM_EVAL

from . import harness

FILE = Path(__file__).parent / "results" / "lm_eval.csv"
BLOCKS = [Block(27, 1), Block(25, 3), Block(20, 6), Block(18, 9), Block(14, 12)]
QUESTIONS, BATCH = 30, 8


def by_lm_eval(model, tokenizer, name: str, metric: str, folder: Path) -> list[float]:
    """Return the score of each version, from a call of lm-eval each."""
    scores, manager = [], harness.task_manager(folder)
    for block in [UNPRUNED, *BLOCKS]:
        with dropped(model, block):
            results = harness.evaluated(model, tokenizer, [name], manager, BATCH)["results"]
        scores.append(results[name][f"{metric},none"])
    return scores


def compared(model, tokenizer, name: str, metric: str, folder: Path) -> list[dict]:
    """Return the rows of a task: the score of each version by both, and the seconds of both."""
    start = process_time()
    theirs = by_lm_eval(model, tokenizer, name, metric, folder)
    middle = process_time()
    task = evaluation.task(f"{LM_EVAL}{folder}/{name}.yaml")
    ours = sweep(model, tokenizer, BLOCKS, [task]).value
    of_task = {
        "task": name.removeprefix("local_"),
        "metric": metric,
        "n": len(task.examples),
        "seconds_ours": round(process_time() - middle, 1),
        "seconds_lm_eval": round(middle - start, 1),
    }
    rows = []
    for place, block in enumerate([UNPRUNED, *BLOCKS]):
        scores = {"ours": round(ours[place], 4), "lm_eval": round(theirs[place], 4)}
        rows.append(of_task | {"block_start": block.start, "block_size": block.size} | scores)
    return rows


def main(argv: Sequence[str]) -> int:
    torch.set_num_threads(1)
    questions = int(argv[0]) if argv else QUESTIONS
    model, tokenizer = loading.load("smollm2-135m", dtype="float32")
    rows = []
    with TemporaryDirectory() as folder:
        for name, metric in harness.write_other_tasks(Path(folder), questions).items():
            rows += compared(model, tokenizer, name, metric, Path(folder))
            pd.DataFrame(rows).to_csv(FILE, index=False)
    print(FILE.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
