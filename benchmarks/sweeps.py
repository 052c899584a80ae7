"""Rows 3 and 11: scores of all pruned versions, shared work against each version whole."""

from dataclasses import replace

import numpy as np
import pandas as pd

from benchmarks import inputs
from benchmarks.sizes import Size
from benchmarks.table import Line
from benchmarks.timing import alternate
from lib.blocks import UNPRUNED, Block
from lib.models.decoder import decoder_layers
from lib.pruning import dropped
from lib.sweep import sweep
from replication.measure.damage import all_blocks


def arc_easy(size: Size) -> Line:
    """Row 3: questions, without the blocks of both strategies, up to half of the layers."""
    task = inputs.task("arc_easy", size)
    what = f"ARC-Easy, {len(task.examples)} questions, both strategies"
    return _row(size, 3, task, what, inputs.both_strategies(size), least=2.5)


def damage_map(size: Size) -> Line:
    """Row 11: the C4 loss without every block there is."""
    task = inputs.task("c4", size)
    model, _ = inputs.load(size.model, dtype=None)
    blocks = all_blocks(len(decoder_layers(model)))
    what = f"the C4 loss, {len(task.examples)} sequences of {size.tokens} tokens: the damage map"
    return _row(replace(size, repeats=1), 11, task, what, blocks, least=1.4)


def _row(size: Size, row: int, task, what: str, blocks: list[Block], least: float) -> Line:
    model, tokenizer = inputs.load(size.model, dtype=None)
    sizes = f"n = 1 … {max(block.size for block in blocks)}, {len(blocks)} distinct blocks"
    pair = alternate(
        lambda: whole_versions(model, tokenizer, blocks, task),
        lambda: sweep(model, tokenizer, blocks, [task], inputs.BATCH_TOKENS),
        size.repeats,
    )
    whole, shared = pair.reference_value, pair.ours_value
    same = int((whole.value.to_numpy() == shared.value.to_numpy()).sum())
    apart = abs(np.stack(whole.examples) - np.stack(shared.examples)).max()
    return Line(
        row=row,
        what=f"Sweep on {what}, {sizes}",
        reference="each version whole: same rows, batches and prefixes",
        ours="`sweep.sweep`",
        required=f"≥ {least}, same scores",
        met=same == len(shared) and pair.speedup >= least,
        pair=pair,
        limit=f"{layers_saved(len(decoder_layers(model)), blocks):.2f}",
        dtype=inputs.dtype_of(model),
        note=f"{same} of {len(shared)} scores are the same; examples differ by at most "
        f"{apart:.1e}.",
    )


def whole_versions(model, tokenizer, blocks: list[Block], task) -> pd.DataFrame:
    """Drop each block in memory and score what is left, whole, as the sweep scores one model."""
    scores = []
    for block in [UNPRUNED, *blocks]:
        with dropped(model, block):
            scores.append(sweep(model, tokenizer, [], [task], inputs.BATCH_TOKENS))
    return pd.concat(scores, ignore_index=True)


def layers_saved(num_layers: int, blocks: list[Block]) -> float:
    """Layers of all versions run whole, over layers run from each block on."""
    whole = num_layers + sum(num_layers - block.size for block in blocks)
    return whole / (num_layers + sum(num_layers - block.stop for block in blocks))
