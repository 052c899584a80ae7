"""Where healing acts: adapters on all layers against adapters only after the cut.

Same recipe, same data in the same order. After the cut only, the layers before it need no backward
pass, and their states are computed once a sequence.
"""

import time
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from transformers import DataCollatorForSeq2Seq

from lib import adapters, after_cut, curves, healing, keys, models, results
from lib.profiles import Profile
from lib.pruning import Block, similarity_block
from lib.similarity import BlockDistances
from lib.sweep import resumed

VERSION = 1  # bumped by hand when the numbers of a step's time change
TURNS = 3  # of each timed step, after one that warms up
WHERE = ("all layers", "after the cut")


def measure(
    name: str, profile: Profile, distances: BlockDistances, tasks: list[str]
) -> pd.DataFrame:
    """Scores before and after both healings at one depth, in the columns of `curves.healed`.

    And adapters (where they are, one of WHERE), step_seconds (median time of a training step, both
    measured in turn in one run) and seconds (of all steps). The depth is the middle one of the
    profile's ablations. A block that reaches the model's end leaves nothing to heal after it: one
    row without value, whose status says so.
    """
    unpruned = curves.measure(name, profile, [], tasks)
    untold = {"adapters": None, "step_seconds": np.nan, "seconds": np.nan}
    parts = [unpruned.assign(treatment="unpruned", strategy="none", **untold)]
    sizes = profile.ablation_sizes(distances.num_layers)
    block = similarity_block(distances, sizes[len(sizes) // 2])
    unhealed = curves.measure(name, profile, [block], tasks)
    unhealed = unhealed[unhealed.block_size > 0].assign(strategy="similarity")
    parts.append(unhealed.assign(treatment="unhealed", **untold | {"seconds": 0.0}))
    if block.stop == distances.num_layers:
        gone = curves.NO_SCORE | {"status": "no answer: no layer after the cut"}
        parts.append(unhealed.assign(treatment="healed", **untold, **gone))
    else:
        parts += _healed(name, profile, block, tasks)
    table = pd.concat(parts, ignore_index=True)
    return table.assign(fraction=table.block_size / distances.num_layers)


def _healed(name: str, profile: Profile, block: Block, tasks: list[str]) -> list[pd.DataFrame]:
    recipe = healing.recipe(name, profile)
    times = step_seconds(name, profile, block, recipe)
    parts = []
    for where, first in zip(WHERE, (0, block.start), strict=True):
        own = replace(recipe, first_layer=first)
        step = float(np.median(times[where]))
        told = {"adapters": where, "step_seconds": step, "seconds": recipe.steps * step}
        found = curves.healed_block(name, profile, block, own, tasks)
        parts.append(found.assign(strategy="similarity", treatment="healed", **told))
    return parts


def step_seconds(name: str, profile: Profile, block: Block, recipe: healing.Recipe) -> dict:
    """Seconds of TURNS training steps (forward, backward of a whole batch) with each of WHERE."""
    params = keys.healing(models.identity(name, profile), block.start, block.size, recipe)
    params |= {
        "processor": results.processor(params["device"]),
        "batch_tokens": profile.batch_tokens,
        "turns": TURNS,
        "step_version": VERSION,
    }

    def compute() -> dict:
        model, tokenizer = models.base(name, profile, block)
        micro_batch = max(1, min(recipe.batch, profile.batch_tokens // recipe.max_tokens))
        return _timed_in_turn(model, tokenizer, block.start, recipe, micro_batch)

    return results.load_or_compute("healing_speed", params, compute)["values"]


def _timed_in_turn(
    model, tokenizer, first: int, recipe: healing.Recipe, micro_batch: int
) -> dict[str, list[float]]:
    sequences, _ = healing.training_sequences(tokenizer, replace(recipe, steps=TURNS + 1))
    seconds = {where: [] for where in WHERE}
    for turn in range(TURNS + 1):
        batch = sequences[turn * recipe.batch : (turn + 1) * recipe.batch]
        for where, layer in zip(WHERE, (0, first), strict=True):
            with adapters.fresh(model, replace(recipe, first_layer=layer)) as wrapped:
                wrapped.train()
                start = time.perf_counter()
                for i in range(0, recipe.batch, micro_batch):
                    loss(wrapped, tokenizer, batch[i : i + micro_batch], layer).backward()
                if model.device.type == "cuda":
                    torch.cuda.synchronize()
                seconds[where].append(time.perf_counter() - start)
    return {where: found[1:] for where, found in seconds.items()}


def loss(wrapped, tokenizer, sequences: list[dict], first: int) -> torch.Tensor:
    """The training loss of `sequences`; if `first` is not 0, from the states before that layer."""
    base, collate = wrapped.get_base_model(), DataCollatorForSeq2Seq(tokenizer)
    if first:
        states = after_cut.StatesBefore(base, first, sequences, len(sequences))
        sequences = [states[i] for i in range(len(states))]
        collate = after_cut.collator(collate, tokenizer.padding_side)
    inputs = {name: tensor.to(base.device) for name, tensor in collate(sequences).items()}
    with resumed(base, Block(0, first), inputs.pop("states")) if first else nullcontext():
        return wrapped(**inputs).loss
