"""`python -m benchmarks [--tiny]`: a sweep against scoring each pruned model whole, in seconds.

Both score ARC-Easy after dropping the blocks of both strategies, up to half of the layers. They
are timed in turn (A B A B), and the least time of each counts: a machine that slows down slows
both, and other work can only add time. Prints a page and writes it to
benchmarks/results/first_light.md; with --tiny it tries a random model, and writes nothing.
"""

import argparse
import datetime
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lib.blocks import UNPRUNED, Block
from lib.data import sets
from lib.models import loading, machine
from lib.models.latency import now
from lib.pruning import dropped
from lib.similarity import block_distances, calibration_batches
from lib.sweep import sweep
from replication import profiles
from replication.measure import request
from replication.measure.experiments import blocks_of

FILE = Path(__file__).parent / "results" / "first_light.md"
BATCH_TOKENS = profiles.PROFILES["quick"].batch_tokens
TEXTS, MAX_TOKENS = 64, 128  # by which blocks are chosen
REQUIRED = 2.5  # times as fast
PAGE = """# The speed of a sweep

- Date: {date}
- Machine: {processor}, {cores} cores, {threads} threads, {gpu}
- Versions: python {python}, torch {torch}, transformers {transformers}
- Model: {model}, in {dtype}
- Task: ARC-Easy, {questions} questions; {blocks} distinct blocks of both strategies, n = 1 … {most}

| | seconds |
|---|---|
| each version whole: same rows, batches and prefixes | {whole:.3g} |
| `sweep.sweep` | {shared:.3g} |

**{ratio:.2f} times** as fast; required: {required}. Saving all layers that can be saved would give
{saved:.2f}. {same} of {scores} scores are the same; those of a question differ by at most
{apart:.1e}.
"""


def chosen_blocks(model, tokenizer) -> list[Block]:
    """Return the distinct blocks of both strategies, up to half of the layers."""
    texts = sets.c4("validation", "wheels", TEXTS)
    batches = calibration_batches(texts, tokenizer, MAX_TOKENS, BATCH_TOKENS)
    distances = block_distances(model, batches)
    sizes = range(1, distances.num_layers // 2 + 1)
    blocks = [
        block for strategy in profiles.STRATEGIES for block in blocks_of(strategy, distances, sizes)
    ]
    return list(dict.fromkeys(blocks))


def whole_versions(model, tokenizer, blocks: list[Block], task) -> pd.DataFrame:
    """Drop each block in memory and score what is left, whole, as the sweep scores one model."""
    scores = []
    for block in [UNPRUNED, *blocks]:
        with dropped(model, block):
            scores.append(sweep(model, tokenizer, [], [task], BATCH_TOKENS))
    return pd.concat(scores, ignore_index=True)


def layers_saved(num_layers: int, blocks: list[Block]) -> float:
    """Return the layers of all versions run whole, over the layers run from each block on."""
    whole = num_layers + sum(num_layers - block.size for block in blocks)
    return whole / (num_layers + sum(num_layers - block.stop for block in blocks))


def timed(work: Callable[[], pd.DataFrame]) -> tuple[float, pd.DataFrame]:
    """Return the seconds that some work takes, and its scores."""
    start = now()
    scores = work()
    return now() - start, scores


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a tiny random model, to try it")
    tiny = parser.parse_args(argv).tiny
    name, questions, turns = ("tiny-random", 4, 1) if tiny else ("smollm2-135m", 40, 2)
    model, tokenizer = loading.load(name)
    profile = replace(profiles.get("quick"), arc_easy_questions=questions)
    task = request.load_task(request.task_params("arc_easy", profile))
    blocks = chosen_blocks(model, tokenizer)
    seconds = {"whole": [], "shared": []}
    for _ in range(turns):
        took, whole = timed(lambda: whole_versions(model, tokenizer, blocks, task))
        seconds["whole"].append(took)
        took, shared = timed(lambda: sweep(model, tokenizer, blocks, [task], BATCH_TOKENS))
        seconds["shared"].append(took)
    least = {way: min(times) for way, times in seconds.items()}
    page = PAGE.format(
        **least,
        date=datetime.date.today(),
        processor=machine.processor(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU",
        python=platform.python_version(),
        torch=version("torch"),
        transformers=version("transformers"),
        model=name,
        dtype=str(model.dtype).removeprefix("torch."),
        questions=questions,
        blocks=len(blocks),
        most=max(block.size for block in blocks),
        ratio=least["whole"] / least["shared"],
        required=REQUIRED,
        saved=layers_saved(model.config.num_hidden_layers, blocks),
        same=(whole.value == shared.value).sum(),
        scores=len(shared),
        apart=abs(np.stack(whole.examples) - np.stack(shared.examples)).max(),
    )
    print(page)
    if not tiny:
        FILE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
