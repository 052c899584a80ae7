"""Scores of many pruned versions of one model, with everything they share computed once.

All versions of a model agree up to their cut. So the unpruned model reads each batch once, the
states x^(l) at the cuts are kept, and each block runs only the layers after its cut, on the state
before it. A prefix that many rows share (the few-shot examples of a subject, the question before
its answers) is read once per block, its keys and values are reused. lm_head runs only where
something is scored. Layer applications: L + the sum of the layers after each cut.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice

import numpy as np
import pandas as pd
import torch
from accelerate.utils import find_executable_batch_size
from tqdm.auto import tqdm
from transformers import DynamicCache
from transformers.cache_utils import DynamicIndexedLayer, DynamicLayer, DynamicSlidingWindowLayer

from . import evaluation
from .blocks import UNPRUNED, Block
from .data.encoding import WRITTEN_TOGETHER, Row
from .evaluation import Task
from .models.decoder import (
    check_tokens,
    decoder_config,
    decoder_layers,
    fp32_target_logits,
    residual_stream,
    run_decoder,
    window,
)
from .models.layers import changed_after_cut, run_after_block
from .models.reading import Batch, greedy_texts, prefix_batches
from .pruning import dropped

HEAD_POSITIONS = 128  # logits of this many positions are held at once, on a CPU
GPU_HEAD_POSITIONS = 2048  # and on a GPU, where starting a product takes longer than computing it


def sweep(
    model, tokenizer, blocks: Sequence[Block], tasks: Iterable[Task], batch_tokens: int = 2048
) -> pd.DataFrame:
    """Score the unpruned model and every block of `blocks` on `tasks`, with shared work.

    One row per block and task: block_start, block_size (0, 0 is the unpruned model), task,
    value, standard_error, n, the per-example values (`examples`) and `weights` of the mean. Of
    multiple-choice questions also the log-likelihood of each choice (`choices`, nats) and the
    statistics of `Task.answer_stats` (commonest, ties, margin, bits_per_byte). shortened:
    questions whose prompt lost solved examples to fit.

    Equal to dropping each block and scoring the model whole. Where the model writes its answer,
    nothing is shared: each version writes on its own. Raises ValueError for a block that does not
    fit the model, and for a task without examples.
    """
    blocks = list(dict.fromkeys([UNPRUNED, *(block for block in blocks if block.size)]))
    for block in blocks:
        block.kept(len(decoder_layers(model)))
    records = []
    for task in tasks:
        if not task.examples:
            raise ValueError(f"The task {task.name} has no example: ask for at least one.")
        rows = task.rows(tokenizer)
        flat = [row for of_example in rows for row in of_example]
        new_tokens = task.examples[0]["new_tokens"] if task.spec.generated else 0
        check_rows(model, flat, task.name, new_tokens)
        if task.spec.generated:
            outputs = continuations(model, tokenizer, blocks, flat, new_tokens, batch_tokens)
        else:
            read = partial(scored, with_likeliest=task.spec.reads_likeliest)
            outputs = target_logprobs(model, blocks, flat, batch_tokens, task.name, read)
        shortened = sum(of_example[0].num_shots_dropped > 0 for of_example in rows)
        for block in blocks:
            rest = iter(outputs[block])
            by_example = [list(islice(rest, len(of_example))) for of_example in rows]
            record = {"block_start": block.start, "block_size": block.size, "task": task.name}
            records.append(record | _score(task, by_example) | {"shortened": shortened})
    return pd.DataFrame(records)


def check_rows(model, rows: list[Row], task: str, new_tokens: int = 0) -> None:
    """Raise ValueError for rows that the model cannot read, or continue by `new_tokens`.

    They are longer than it reads, or than it is exact for (`qwen1`); they have a token that it has
    no embedding of; or no row has a token before the first that is scored.
    """
    longest, most = max(len(row.tokens) for row in rows), window(decoder_config(model))
    if most and longest + new_tokens > most:
        written = f" and {new_tokens} to write" if new_tokens else ""
        raise ValueError(
            f"A row of {task} has {longest} tokens{written}; this model reads at most {most}."
        )
    if not longest:
        raise ValueError(f"No text of {task} has two tokens, so none has a next token to predict.")
    tokens = chain.from_iterable((row.tokens, np.ravel(row.target_ids)) for row in rows)
    check_tokens(model, tokens)


def _score(task: Task, outputs: list[list]) -> dict:
    """One version's score on a task, from its outputs for the rows of each example."""
    values, weights = task.scores(outputs)
    mean, error = evaluation.weighted_mean(values, weights)
    choices = task.loglikelihoods(outputs)
    return {
        "value": mean,
        "standard_error": error,
        "n": int((weights > 0).sum()),
        "examples": values,
        "weights": weights,
        "choices": choices,
    } | task.answer_stats(choices)


def baseline_scores(model, tokenizer, task: Task, batch_tokens: int) -> dict[str, float]:
    """Scores on a task's very questions of answers that read no question, by how they are chosen.

    letter, shortest: as in `Task.baselines`; own: the likeliest choice to `model`, without the
    question, where choices are texts. Empty where there are no choices.
    """
    scores = task.baselines()
    if choices_only := task.without_question():
        table = sweep(model, tokenizer, [], [choices_only], batch_tokens)
        scores["own"] = float(table.value[0])
    return scores


@torch.inference_mode()
def target_logprobs(
    model, blocks: Sequence[Block], rows: list[Row], batch_tokens: int, label: str, read=None
) -> dict[Block, list[np.ndarray]]:
    """For each block, the log-probabilities (fp32) of every row's target tokens, flattened.

    read: in place of `scored`, what else is kept of a batch's final states, an array a row.
    """
    read = read or scored
    outputs = {block: [None] * len(rows) for block in blocks}
    if not shares_prefixes(model):
        rows = [replace(row, group=None) for row in rows]
    for shared in tqdm(list(prefix_batches(rows, batch_tokens)), desc=label):
        caches = {} if shared.prefix is None else _read_prefix(model, blocks, shared.prefix)
        for batch in shared.batches:

            def prefix_cache(block):
                if not caches:
                    return None
                return repeated(caches[block], len(batch.ids) // len(shared.prefix))

            ids = batch.ids.to(model.device)
            for block, states in final_states(model, blocks, ids, prefix_cache):
                for place, of_row in zip(batch.places, read(model, states, batch), strict=True):
                    outputs[block][place] = of_row
    return outputs


def _read_prefix(model, blocks: Sequence[Block], prefix: torch.Tensor) -> dict[Block, DynamicCache]:
    """Of each block, the keys and values of what all rows of a group begin with."""
    caches = defaultdict(lambda: DynamicCache(config=decoder_config(model)))
    for _ in final_states(model, blocks, prefix.to(model.device), caches.__getitem__):
        pass  # the pass fills the caches
    return caches


# ---- one batch through every block ---------------------------------------------------------


def final_states(
    model, blocks: Sequence[Block], ids: torch.Tensor, cache_of: Callable[[Block], DynamicCache]
) -> Iterator[tuple[Block, torch.Tensor]]:
    """The state after the final norm, (B, T, D), of each block; the unpruned model comes first.

    `cache_of` gives a block's key-value cache, or None; it is asked while the model has the
    layers (and the configuration) that the cache is for.
    """
    cuts = [block for block in blocks if block.size]
    depths = sorted({block.start for block in cuts})
    states, widths = {}, []
    cache = cache_of(UNPRUNED)

    def note_width(module, args, output):
        widths.append(len(output) if isinstance(output, tuple) else 0)

    with (
        decoder_layers(model)[-1].register_forward_hook(note_width),
        residual_stream(model, states.__setitem__, at=depths),
    ):
        full = run_decoder(model, ids, cache)
    # taken before any cut runs: a map may read what this very pass has left behind
    inputs = {block: block.input_after_cut(states[block.start]) for block in cuts}
    yield UNPRUNED, full
    for block in cuts:
        with run_after_block(model, block, inputs[block], widths[0]):
            final = run_decoder(model, ids, cache_of(block))
        yield block, final


def shares_prefixes(model) -> bool:
    """Whether one cache can be continued in several ways: keys and values, no running state."""
    return cache_layers(model) <= {DynamicLayer, DynamicSlidingWindowLayer, DynamicIndexedLayer}


def cache_layers(model) -> set[type]:
    """The kinds of layers of the model's cache."""
    return {type(layer) for layer in DynamicCache(config=decoder_config(model)).layers}


def repeated(cache: DynamicCache, repeats: int) -> DynamicCache:
    """A cache with each sequence `repeats` times; growing it leaves `cache` as it is."""
    grown = copy.copy(cache)
    grown.layers = [copy.copy(layer) for layer in cache.layers]
    grown.batch_repeat_interleave(repeats)
    return grown


def scored(
    model, states: torch.Tensor, batch: Batch, with_likeliest: bool = False
) -> list[np.ndarray]:
    """The target tokens' log-probabilities of each row, from final states (B, T, D).

    lm_head runs on the scored positions only, HEAD_POSITIONS (on a GPU more) at once.
    with_likeliest: after them, 1 if each target is the likeliest token of all, else 0.
    """
    device = states.device
    picked = states[batch.row.to(device), batch.position.to(device)]
    target_ids = batch.target_ids.to(device)
    at_once = HEAD_POSITIONS if device.type == "cpu" else GPU_HEAD_POSITIONS
    parts = zip(picked.split(at_once), target_ids.split(at_once), strict=True)
    logprobs, likeliest = [], []
    for part, tokens in parts:
        logits = fp32_target_logits(model, part, tokens)
        logprobs.append(logits.log_softmax(-1).gather(1, tokens))
        if with_likeliest:
            likeliest.append(logits.argmax(-1, keepdim=True) == tokens)
    by_row = torch.cat(logprobs).cpu().split(batch.counts)
    rows = zip(by_row, batch.widths, strict=True)
    arrays = [of_row[:, :width].flatten().numpy() for of_row, width in rows]
    if with_likeliest:
        flags = torch.cat(likeliest).cpu().split(batch.counts)
        pairs = zip(arrays, flags, strict=True)
        arrays = [np.append(of_row, float(flag.all())) for of_row, flag in pairs]
    return arrays


def continuations(
    model, tokenizer, blocks: Sequence[Block], rows: list[Row], new_tokens: int, batch_tokens: int
) -> dict[Block, list[str]]:
    """For each block, the greedy continuation of every row by the model without it.

    Greedy means the likeliest token each time: no penalty that a model's generation_config asks
    for (as of repetitions) is applied. A text ends before the first of GSM8K_STOPS, at the end of
    text, or after `new_tokens` tokens. Prompts of like length are read together, and what they
    all begin with (solved examples) once. WRITTEN_TOGETHER texts are written at once, for a step
    reads all weights however many there are; fewer where a GPU's memory does not hold them.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].tokens))
    longest = max(len(row.tokens) for row in rows) + new_tokens
    together = max(WRITTEN_TOGETHER, batch_tokens // longest)
    # a sliding window would count the padding that stands after a prefix
    shares = cache_layers(model) == {DynamicLayer}
    texts = {block: [""] * len(rows) for block in blocks}

    @find_executable_batch_size(starting_batch_size=together)
    def write(together: int, block: Block) -> None:
        for first in range(0, len(order), together):
            places = order[first : first + together]
            prompts = [rows[i].tokens for i in places]
            written = greedy_texts(model, tokenizer, prompts, new_tokens, shares)
            for i, text in zip(places, written, strict=True):
                texts[block][i] = text

    for block in tqdm(blocks, desc="generation"):
        with dropped(model, block), changed_after_cut(model, block):
            write(block)
    return texts
