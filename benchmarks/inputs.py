"""Models, token batches, blocks and tasks that several rows use."""

from dataclasses import replace
from functools import cache

from benchmarks.sizes import Size
from lib import evaluation, similarity
from lib.blocks import Block, similarity_block, simple_block
from lib.data import sets
from lib.models import loading
from replication import profiles
from replication.measure import request

BATCH_TOKENS = profiles.PROFILES["quick"].batch_tokens

load = cache(loading.load)


def c4_batches(tokenizer, size: Size) -> list[dict]:
    """C4 as the similarity pass reads it."""
    texts = sets.c4("validation", "wheels", size.similarity_sequences)
    return list(similarity.calibration_batches(texts, tokenizer, size.tokens, BATCH_TOKENS))


def both_strategies(size: Size) -> list[Block]:
    """The distinct blocks of both strategies, up to half of the layers."""
    model, tokenizer = load(size.model, dtype=None)
    distances = similarity.block_distances(model, c4_batches(tokenizer, size))
    layers = distances.num_layers
    sizes = range(1, layers // 2 + 1)
    similar = [similarity_block(distances, n) for n in sizes]
    return list(dict.fromkeys([*similar, *(simple_block(layers, n) for n in sizes)]))


def task(name: str, size: Size) -> evaluation.Task:
    """A task of the library with as many examples as `size` says."""
    profile = replace(
        profiles.PROFILES["quick"],
        arc_easy_questions=size.arc_easy_questions,
        c4_sequences=size.damage_sequences,
        c4_tokens=size.tokens,
    )
    return evaluation.task_of(request.of_task(name, profile))


def dtype_of(model) -> str:
    """The dtype of a model's weights, as the table names it."""
    return str(model.dtype).removeprefix("torch.")
