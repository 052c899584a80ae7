"""Rows 3 and 4: scores of all pruned versions, shared work against each version whole."""

import numpy as np
import pandas as pd
import torch

from benchmarks import counts, inputs
from benchmarks.sizes import Size
from benchmarks.table import Line, seconds
from benchmarks.timing import alternate
from lib.models import decoder_layers, logits
from lib.pruning import UNPRUNED, Block, dropped
from lib.sweep import HEAD_POSITIONS, sweep


def arc_easy(size: Size) -> list[Line]:
    """Row 3: few positions are scored, so the layers decide."""
    task = inputs.task("arc_easy", size)
    what = f"Sweep on ARC-Easy, {len(task.examples)} questions"
    return [_row(size, 3, task, what, lambda model, blocks: _limit(model, blocks, head=0))]


def c4(size: Size) -> list[Line]:
    """Row 4: every position is scored, so every version owes a whole lm_head of its own."""
    task = inputs.task("c4", size)
    what = f"Sweep on the C4 loss, {len(task.examples)} sequences of {size.tokens} tokens"

    def limit(model, blocks):
        ids = torch.tensor(_equal_lengths(task, inputs.load(size.model, dtype=None)[1]))
        return _limit(model, blocks, head_in_layers(model, ids, size.repeats))

    return [_row(size, 4, task, what, limit)]


def _row(size: Size, number: int, task, what: str, limit) -> Line:
    model, tokenizer = inputs.load(size.model, dtype=None)
    half = len(decoder_layers(model)) // 2
    blocks = inputs.both_strategies(inputs.distances(size), range(1, half + 1))
    pair = alternate(
        lambda: whole_versions(model, tokenizer, blocks, task),
        lambda: sweep(model, tokenizer, blocks, [task]),
        size.repeats,
    )
    same, text = agreement(pair.reference_value, pair.ours_value)
    return Line(
        row=number,
        what=f"{what}, both strategies, n = 1 … {half}, {len(blocks)} distinct blocks",
        reference="each version whole: same rows, batches and prefixes",
        ours="`sweep.sweep`",
        required="≥ 2.5, same scores" if number == 3 else "same scores",
        ratio=pair.speedup,
        met=same and (pair.speedup >= 2.5 or number != 3),
        seconds=seconds(pair),
        limit=limit(model, blocks),
        dtype=inputs.dtype_of(model),
        notes=(text,),
    )


def whole_versions(model, tokenizer, blocks: list[Block], task) -> pd.DataFrame:
    """Drop each block in memory and score what is left, whole, as the sweep scores one model."""
    scores = []
    for block in [UNPRUNED, *blocks]:
        with dropped(model, block):
            scores.append(sweep(model, tokenizer, [], [task]))
    return pd.concat(scores, ignore_index=True)


def agreement(reference: pd.DataFrame, ours: pd.DataFrame) -> tuple[bool, str]:
    """Whether both give every version the same score, and how far single examples are apart."""
    same = int((reference.value.to_numpy() == ours.value.to_numpy()).sum())
    apart = abs(np.stack(reference.examples) - np.stack(ours.examples)).max()
    text = f"{same} of {len(ours)} scores are the same; examples differ by at most {apart:.1e}."
    return same == len(ours), text


def _limit(model, blocks: list[Block], head: float) -> str:
    """What counts allow; with the head, where it matters."""
    layers = len(decoder_layers(model))
    plain = f"{counts.ratio(layers, blocks):.2f}"
    if not head:
        return plain
    owed = counts.ratio(layers, blocks, head)
    return f"{owed:.2f}, as the head costs {head:.1f} layers ({plain} if it cost nothing)"


@torch.inference_mode()
def head_in_layers(model, ids: torch.Tensor, repeats: int) -> float:
    """Time of lm_head and log-softmax on every position, over that of one layer."""
    ids = ids.to(model.device)
    decoder = model.get_decoder()
    states = decoder(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)

    def head():
        for part in states.split(HEAD_POSITIONS):
            logits(model, part).float().logsumexp(-1)

    pair = alternate(lambda: decoder(input_ids=ids, use_cache=False), head, 2 * repeats)
    return pair.ours / (pair.reference / len(decoder_layers(model)))


def _equal_lengths(task, tokenizer) -> list[tuple[int, ...]]:
    """The tokens of those rows of a task that are as long as its longest."""
    tokens = [row.tokens for example in task.rows(tokenizer) for row in example]
    return [row for row in tokens if len(row) == max(map(len, tokens))]
