"""`python -m benchmarks.lm_eval_tasks`: three tasks of lm-eval by our sweep, and by lm-eval itself.

Both score SmolLM2-135M and five cuts, on the same local files and in float32. lm-eval is called
once for each version in memory, so its time has no loading of weights. They are timed in turn in
one run; the numbers are written to benchmarks/results/lm_eval.csv.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from lib import evaluation
from lib.blocks import UNPRUNED, Block
from lib.models import loading
from lib.models.latency import now
from lib.pruning import dropped
from lib.sweep import sweep

from . import harness

FILE = Path(__file__).parent / "results" / "lm_eval.csv"
BLOCKS = [Block(27, 1), Block(25, 3), Block(20, 6), Block(18, 9), Block(14, 12)]
QUESTIONS, BATCH = 30, 8


def by_lm_eval(model, tokenizer, name: str, metric: str, folder: Path) -> list[float]:
    """Return the score of each version, from a call of lm-eval each."""
    scores = []
    for block in [UNPRUNED, *BLOCKS]:
        with dropped(model, block):
            manager = harness.task_manager(folder)
            results = harness.evaluated(model, tokenizer, [name], manager, BATCH)["results"]
        scores.append(results[name][f"{metric},none"])
    return scores


def main() -> int:
    model, tokenizer = loading.load("smollm2-135m", dtype="float32")
    rows = []
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, metric in harness.write_other_tasks(folder, QUESTIONS).items():
            start = now()
            theirs = by_lm_eval(model, tokenizer, name, metric, folder)
            middle = now()
            task = evaluation.task(f"{evaluation.LM_EVAL}{folder}/{name}.yaml")
            ours = sweep(model, tokenizer, BLOCKS, [task]).value
            of_task = {
                "task": name.removeprefix("local_"),
                "metric": metric,
                "n": len(task.examples),
                "seconds_ours": round(now() - middle, 1),
                "seconds_lm_eval": round(middle - start, 1),
            }
            for place, block in enumerate([UNPRUNED, *BLOCKS]):
                scores = {"ours": round(ours[place], 4), "lm_eval": round(theirs[place], 4)}
                blocks = {"block_start": block.start, "block_size": block.size}
                rows.append(of_task | blocks | scores)
            print(*of_task.values(), flush=True)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    table.to_csv(FILE, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
