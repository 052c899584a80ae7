"""Where healing acts: adapters on all layers against adapters only after the cut.

Same recipe, same data in the same order. After the cut only, the layers before it have nothing to
learn, so the backward pass ends at the cut.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import TrainerCallback

from lib import healing, profiles, results
from lib.blocks import Block, BlockDistances, similarity_block
from lib.measure import fetching, scores, wanted
from lib.measure.inference_cost import now
from lib.models import adapters, formats, loading
from lib.profiles import Profile, Recipe, no_memory

VERSION = 2  # bumped by hand when the numbers of a step's time change
TURNS = 3  # of each timed step, after one that warms up
WHERE = ("all layers", "after the cut")
UNTIMED = {"adapters": None, "micro_batch": None, "step_seconds": np.nan, "seconds": np.nan}


def measure(maps: scores.Maps, profile: Profile, tasks: list[str]) -> pd.DataFrame:
    """Scores of each model before and after both healings, in the columns of `scores.healed`.

    And adapters (where they are, one of WHERE), micro_batch (sequences at a time, as the healing
    had memory for), step_seconds (median of `step_seconds`) and seconds (step_seconds times the
    steps: an estimate of the training alone, without loading, data and checkpoints). The depth is
    the middle one of the profile's ablations. A healing that cannot be made or timed has no value;
    its status says why: no layer after the cut, diverged, oom, not measured.
    """
    tables = [_of_model(*model, profile, tasks) for model in maps.items()]
    return pd.concat(tables, ignore_index=True)


def _of_model(
    name: str, distances: BlockDistances, profile: Profile, tasks: list[str]
) -> pd.DataFrame:
    sizes = profile.ablation_sizes(distances.num_layers)
    block = similarity_block(distances, sizes[len(sizes) // 2])
    found = scores.measure(name, profile, [block], tasks)
    found = found.assign(treatment="unpruned", strategy="none", **UNTIMED)
    unpruned, unhealed = found[found.block_size == 0], found[found.block_size > 0]
    unhealed = unhealed.assign(treatment="unhealed", strategy="similarity")
    if block.stop == distances.num_layers:
        gone = scores.NO_SCORE | {"status": "no answer: no layer after the cut"}
        healed = [unhealed.assign(treatment="healed", **gone)]
    else:
        healed = _healed(name, profile, block, tasks)
    table = pd.concat([unpruned, unhealed.assign(seconds=0.0), *healed], ignore_index=True)
    return table.assign(fraction=table.block_size / distances.num_layers)


def _healed(name: str, profile: Profile, block: Block, tasks: list[str]) -> list[pd.DataFrame]:
    recipe = profiles.recipe(name, profile)
    recipes = dict(zip(WHERE, (recipe, replace(recipe, first_layer=block.start)), strict=True))
    healed = {w: scores.measure(name, profile, [block], tasks, recipes[w]) for w in WHERE}
    try:
        timed, gap = step_seconds(name, profile, block, recipes), None
    except RuntimeError as error:
        if not (isinstance(error, results.NotMeasured) or no_memory(str(error))):
            raise
        timed, gap = {}, getattr(error, "status", "oom")
    parts = []
    for where, found in healed.items():
        if gap:
            status = found.status.where(found.status != "ok", gap)
            found = found.assign(**scores.NO_SCORE | {"status": status})
        how = timed.get(where, {"micro_batch": None, "seconds": [np.nan]})
        step = float(np.median(how["seconds"]))
        told = {"adapters": where, "micro_batch": how["micro_batch"], "step_seconds": step}
        told |= {"seconds": recipe.steps * step, "strategy": "similarity", "treatment": "healed"}
        parts.append(found.assign(**told))
    return parts


def step_seconds(
    name: str, profile: Profile, block: Block, recipes: dict[str, Recipe]
) -> dict[str, dict]:
    """Seconds of TURNS training steps of each healing that went well, measured in turn.

    A step is the healing's own: forward and backward pass of a batch, in the micro-batch that the
    healing had memory for (recomputing activations if it had to), and the update.
    {where: {"micro_batch": sequences, "seconds": [...]}}. Raises RuntimeError when memory runs out.
    """
    identity, made, told = loading.weights_of(name, **profile.weights), {}, {}
    for where, recipe in recipes.items():
        (asked,) = fetching.here([wanted.healing(name, profile, block, recipe)])
        stored = results.load("healing", asked.params)
        record = stored or scores.heal(name, profile, block, recipe)
        if record["status"] == "ok":
            how = {way: record["values"][way] for way in ("micro_batch", "recomputes")}
            key = {k: v for k, v in asked.params.items() if k not in identity}
            made[where], told[where] = (recipe, *how.values()), key | how
    params = identity | {"processor": formats.processor(identity["device"])}
    params |= {"healings": told, "turns": TURNS, "step_version": VERSION}

    def compute() -> dict:
        return _timed_in_turn(*loading.loaded(name, **profile.weights, block=block), made)

    return results.load_or_compute("healing_speed", params, compute)["values"] if made else {}


def _timed_in_turn(model, tokenizer, made: dict[str, tuple]) -> dict[str, dict]:
    found = {w: {"micro_batch": micro, "seconds": []} for w, (_, micro, _) in made.items()}
    (common, *_), *_ = made.values()  # they differ in their first layer only
    sequences, _ = healing.training_sequences(tokenizer, replace(common, steps=TURNS + 1))
    for turn in range(TURNS + 1):
        batch = sequences[turn * common.batch : (turn + 1) * common.batch]
        for where, (recipe, *how) in made.items():
            clock = _Clock()
            with tempfile.TemporaryDirectory() as folder, adapters.fresh(model, recipe) as wrapped:
                one = replace(recipe, steps=1)
                healing._train(wrapped, tokenizer, batch, one, Path(folder), *how, [clock])
            if turn:  # the first one warms up
                found[where]["seconds"].append(clock.seconds)
    return found


class _Clock(TrainerCallback):
    """The seconds of a training step."""

    def on_step_begin(self, args, state, control, **kwargs):
        self.start = now()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds = now() - self.start
