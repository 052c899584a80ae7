"""Models, token batches and blocks that several rows use."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from benchmarks.sizes import Size
from lib import evaluation, similarity
from lib.blocks import Block, BlockDistances, similarity_block, simple_block
from lib.data import sets
from lib.models import loading
from replication import profiles
from replication.measure import request

BATCH_TOKENS = profiles.PROFILES["quick"].batch_tokens

load = cache(loading.load)


def c4_batches(tokenizer, sequences: int, tokens: int) -> list[dict]:
    """C4 as the similarity pass reads it."""
    texts = sets.c4("validation", "wheels", sequences)
    return list(similarity.calibration_batches(texts, tokenizer, tokens, BATCH_TOKENS))


@cache
def distances(size: Size, dtype: str | None = None) -> BlockDistances:
    """The angular distances that choose this run's similarity blocks."""
    model, tokenizer = load(size.model, dtype=dtype)
    return similarity.block_distances(
        model, c4_batches(tokenizer, size.similarity_sequences, size.tokens)
    )


def both_strategies(measured: BlockDistances, sizes: Sequence[int]) -> list[Block]:
    """The distinct blocks of both strategies: the deepest ones are often the same."""
    similar = [similarity_block(measured, n) for n in sizes]
    simple = [simple_block(measured.num_layers, n) for n in sizes]
    return list(dict.fromkeys([*similar, *simple]))


def task(name: str, size: Size) -> evaluation.Task:
    """A task of the library with as many examples as `size` says."""
    profile = replace(
        profiles.PROFILES["quick"],
        arc_easy_questions=size.arc_easy_questions,
        c4_sequences=size.c4_sequences,
        c4_tokens=size.tokens,
        mmlu_subjects=size.mmlu_subjects,
        mmlu_questions=size.mmlu_questions,
        mmlu_shots=size.mmlu_shots,
    )
    return evaluation.task_of(request.of_task(name, profile))


def dtype_of(model) -> str:
    """The dtype of a model's weights, as the table names it."""
    return str(model.dtype).removeprefix("torch.")
