"""Rows 3 and 4: scores of all pruned versions, shared work against each version whole."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from benchmarks import counts, inputs
from benchmarks.sizes import Size
from benchmarks.table import Line, seconds
from benchmarks.timing import alternate
from lib.blocks import UNPRUNED, Block
from lib.data.encoding import Row
from lib.models.decoder import decoder_layers
from lib.models.reading import prefix_batches
from lib.pruning import dropped
from lib.sweep import scored, sweep
from replication.measure.damage import all_blocks


def arc_easy(size: Size) -> list[Line]:
    """Row 3: questions, whose answers are scored token by token."""
    task = inputs.task("arc_easy", size)
    what = f"ARC-Easy, {len(task.examples)} questions, both strategies"
    return [_row(size, 3, task, what, _both(size), least=2.5)]


def c4(size: Size) -> list[Line]:
    """Row 4: every position is scored, so every version owes a whole lm_head of its own."""
    task = inputs.task("c4", size)
    what = f"the C4 loss, {len(task.examples)} sequences of {size.tokens} tokens, both strategies"
    return [_row(size, 4, task, what, _both(size), least=None)]


def damage_map(size: Size) -> list[Line]:
    """Row 11: the C4 loss without every block there is."""
    task = inputs.task("c4", replace(size, c4_sequences=size.damage_sequences))
    model, _ = inputs.load(size.model, dtype=None)
    blocks = all_blocks(len(decoder_layers(model)))
    what = f"the C4 loss, {len(task.examples)} sequences of {size.tokens} tokens: the damage map"
    return [_row(replace(size, repeats=1), 11, task, what, blocks, least=1.4)]


def _both(size: Size) -> list[Block]:
    """The blocks of both strategies, up to half of the layers."""
    distances = inputs.distances(size)
    return inputs.both_strategies(distances, range(1, distances.num_layers // 2 + 1))


def _row(
    size: Size, number: int, task, what: str, blocks: list[Block], least: float | None
) -> Line:
    model, tokenizer = inputs.load(size.model, dtype=None)
    sizes = f"n = 1 … {max(block.size for block in blocks)}, {len(blocks)} distinct blocks"
    pair = alternate(
        lambda: whole_versions(model, tokenizer, blocks, task),
        lambda: sweep(model, tokenizer, blocks, [task], inputs.BATCH_TOKENS),
        size.repeats,
    )
    same, text = agreement(pair.reference_value, pair.ours_value)
    return Line(
        row=number,
        what=f"Sweep on {what}, {sizes}",
        reference="each version whole: same rows, batches and prefixes",
        ours="`sweep.sweep`",
        required=f"≥ {least}, same scores" if least else "same scores",
        ratio=pair.speedup,
        met=same and pair.speedup >= (least or 0),
        seconds=seconds(pair),
        limit=_limit(model, blocks, head_in_layers(model, task.rows(tokenizer), size.repeats)),
        dtype=inputs.dtype_of(model),
        notes=(text,),
    )


def whole_versions(model, tokenizer, blocks: list[Block], task) -> pd.DataFrame:
    """Drop each block in memory and score what is left, whole, as the sweep scores one model."""
    scores = []
    for block in [UNPRUNED, *blocks]:
        with dropped(model, block):
            scores.append(sweep(model, tokenizer, [], [task], inputs.BATCH_TOKENS))
    return pd.concat(scores, ignore_index=True)


def agreement(reference: pd.DataFrame, ours: pd.DataFrame) -> tuple[bool, str]:
    """Whether both give every version the same score, and how far single examples are apart."""
    same = int((reference.value.to_numpy() == ours.value.to_numpy()).sum())
    apart = abs(np.stack(reference.examples) - np.stack(ours.examples)).max()
    text = f"{same} of {len(ours)} scores are the same; examples differ by at most {apart:.1e}."
    return same == len(ours), text


def _limit(model, blocks: list[Block], head: float) -> str:
    """What counts allow: of layers alone, and with the head that each version owes."""
    layers = len(decoder_layers(model))
    alone, owed = counts.ratio(layers, blocks), counts.ratio(layers, blocks, head)
    return f"{alone:.2f} (layers); {owed:.2f} (each version's own head is {head:.1f} layers)"


@torch.inference_mode()
def head_in_layers(model, examples: list[list[Row]], repeats: int) -> float:
    """Time to score all rows (lm_head, log-softmax), over that of one layer to read them."""
    rows = [row for example in examples for row in example]
    shared = list(prefix_batches(rows, inputs.BATCH_TOKENS))
    owns = [own for bundle in shared for own in bundle.batches]
    prefixes = [bundle.prefix for bundle in shared if bundle.prefix is not None]

    def read(batches):
        decoder = model.get_decoder()
        batches = [ids.to(model.device) for ids in batches]
        return [decoder(input_ids=ids, use_cache=False).last_hidden_state for ids in batches]

    states = read([own.ids for own in owns])
    pair = alternate(
        lambda: read([*prefixes, *(own.ids for own in owns)]),
        lambda: [scored(model, *batch) for batch in zip(states, owns, strict=True)],
        2 * repeats,
    )
    return pair.ours / (pair.reference / len(decoder_layers(model)))
