"""Row 6: few-shot MMLU of all pruned versions against lm-evaluation-harness, letter by letter."""

import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks import harness, inputs
from benchmarks.sizes import Size
from benchmarks.table import Line, seconds
from benchmarks.timing import Pair, alternate
from lib.blocks import UNPRUNED, Block, similarity_block
from lib.pruning import dropped
from lib.sweep import target_logprobs

TIE = 1e-4  # nats: closer than this, rounding decides which letter wins


def against_lm_eval(size: Size) -> list[Line]:
    """Row 6, in fp32, so that a letter that differs means more than rounding."""
    if find_spec("lm_eval") is None:
        return [replace(_line(size), notes=(harness.MISSING,))]
    model, tokenizer = inputs.load(size.model, dtype="float32")
    task = inputs.task("mmlu", size)
    pair = _measure(size, model, tokenizer, task)
    same, apart = compare(pair.reference_value, pair.ours_value)
    samples, rows = pair.reference_value[UNPRUNED], _flat(task.rows(tokenizer))
    read = same_tokens(harness.encoded(model, tokenizer, samples), rows)
    measured = replace(
        _line(size),
        ratio=pair.speedup,
        met=same and pair.speedup >= 8,
        seconds=seconds(pair),
        dtype=inputs.dtype_of(model),
        notes=(*apart, f"{read} of {len(rows)} prompts are the same tokens in both."),
    )
    return [measured]


def _line(size: Size) -> Line:
    """The row before it is measured."""
    sizes = ", ".join(map(str, size.mmlu_block_sizes))
    return Line(
        row=6,
        what=f"MMLU {size.mmlu_shots}-shot, {size.mmlu_subjects} subjects × "
        f"{size.mmlu_questions} questions, full depth and similarity blocks of n = {sizes}; "
        "one turn each",
        reference=f"lm-eval on each pruned model in memory, batches of {size.harness_batch}",
        ours="`sweep.target_logprobs`",
        required="≥ 8, same letters",
    )


def _measure(size: Size, model, tokenizer, task) -> Pair:
    """One turn of each, tokenising included: the reference takes minutes, far above any noise."""
    distances = inputs.distances(size, "float32")
    blocks = [UNPRUNED, *(similarity_block(distances, n) for n in size.mmlu_block_sizes)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = harness.write_tasks(
            folder, size.mmlu_subjects, size.mmlu_questions, size.mmlu_shots
        )
        manager = harness.task_manager(folder)
        return alternate(
            lambda: each_dropped(model, tokenizer, blocks, names, manager, size.harness_batch),
            lambda: target_logprobs(
                model, blocks, _flat(task.rows(tokenizer)), inputs.BATCH_TOKENS, task.name
            ),
            repeats=1,
        )


def each_dropped(model, tokenizer, blocks, names, manager, batch_size) -> dict[Block, list[dict]]:
    """lm-eval's samples of every version, each evaluated as a model of its own."""
    samples = {}
    for block in blocks:
        with dropped(model, block):
            samples[block] = harness.evaluate(model, tokenizer, names, manager, batch_size)
    return samples


def compare(reference: dict, ours: dict) -> tuple[bool, tuple[str, str]]:
    """Whether all letters but ties are the same, and what was counted, in words."""
    own = stacked(ours)
    theirs = stacked({b: map(harness.log_probabilities, s) for b, s in reference.items()})
    compared, equal, ties = letters(theirs, own)
    return compared == equal + ties, (
        f"{compared} questions compared (all versions together), {equal} letters equal, "
        f"{ties} ties below {TIE:g} nats, {compared - equal - ties} others differ.",
        f"log-probabilities differ by at most {abs(theirs - own).max():.1e} nats.",
    )


def stacked(by_block: dict) -> np.ndarray:
    """Log-probabilities (versions × questions, 4), fp64."""
    return np.array([list(row) for rows in by_block.values() for row in rows], dtype=float)


def letters(theirs: np.ndarray, ours: np.ndarray) -> tuple[int, int, int]:
    """Questions, same letters, and letters that differ but lie within TIE for lm-eval."""
    first, second = theirs.argmax(1), ours.argmax(1)
    every = np.arange(len(theirs))
    gap = theirs[every, first] - theirs[every, second]
    different = first != second
    ties = different & (gap < TIE)
    equal = ~different
    return len(theirs), int(equal.sum()), int(ties.sum())


def same_tokens(theirs: list, rows: list) -> int:
    """How many questions both read as the same tokens, the four choices included."""
    same = 0
    for row, pairs in zip(rows, theirs, strict=True):
        ours = [(list(row.tokens), [token]) for token in row.target_ids[0]]
        same += ours == [tuple(pair) for pair in pairs]
    return same


def _flat(rows: list[list]) -> list:
    return [row for example in rows for row in example]
