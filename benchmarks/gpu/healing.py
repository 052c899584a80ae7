"""Healing on the GPU: steps of the paper's size, through the end of memory and from packed NF4."""

import gc
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

from benchmarks.gpu import random_model
from benchmarks.gpu.bench import Bench, Measured, counter, held, wait
from lib import cards
from lib.data import sets
from lib.gpu import memory
from lib.healing import training
from lib.models import loading
from replication import profiles

STEPS = 3  # the first warms up, the last is not timed: no step begins after it
SLOW = 45  # seconds of them; a card that needs more has FEW sequences a step, not 16
FEW = 4


def steps(bench: Bench) -> None:
    """a healing's steps: full rows, one sequence at a time, all recomputed; and real documents"""
    loaded = bench.model(bench.block)
    _step(bench, "as they are", loaded, memory.MICRO_BATCH)
    _step(bench, "one at a time", loaded, 1)
    _step(bench, "recomputed", loaded, 1, recomputes=True)
    # what a run of the paper trains on: each alone, as long as those of C4
    longest = bench.profile.heal_tokens
    texts = random_model.texts_like(
        cards.lengths(longest), STEPS * profiles.get("paper").heal_batch
    )
    with mock.patch.object(sets, "healing_texts", lambda source, count: texts[:count]):
        _step(bench, "documents of C4's lengths", loaded, memory.MICRO_BATCH, packed=False)


def packed(bench: Bench) -> None:
    """steps from NF4 that stays packed, as of a model too large to unpack"""
    loading.release()
    options = bench.profile.load_kwargs | {"block": bench.block, "packed": True}
    loaded = loading.load(bench.name, **options)
    with mock.patch.object(cards.ModelOnCard, "packed", True):
        for recomputes in (False, True):
            _step(bench, "packed" + ", recomputed" * recomputes, loaded, 8, recomputes)


def _step(bench: Bench, name: str, loaded, micro: int, recomputes: bool = False, **changes) -> None:
    """Add the row of a step, as `heal` takes it; recomputes: all layers, whatever room there is.

    changes: of the recipe.
    """
    recipe = profiles.recipe(bench.name, bench.profile, steps=STEPS, warmup_steps=1, **changes)
    layers = bench.num_layers - bench.block.size
    if bench.card.seconds(bench.loaded.healing(layers, recipe)) > SLOW:
        recipe = replace(recipe, batch=FEW)
    folder = Path(bench.name).with_name(f"steps {name}")
    no_room = mock.patch.object(memory, "USABLE", 0) if recomputes else nullcontext()
    with no_room, mock.patch.object(memory, "MICRO_BATCH", micro):
        work = bench.loaded.healing(layers, recipe)
        healed, took = heal(loaded, recipe, folder, micro)
    one_row = healed.micro_batch == 1 and recomputes  # which is what the plan counts
    row = work.memory - bench.loaded.weights(layers) if one_row else None
    losses = "…".join(f"{loss:.3f}" for loss in (healed.losses or [0])[:: STEPS - 1])
    note = f"m {healed.micro_batch}, {healed.status}, "
    note += f"{'joined' if healed.joined else 'PADDED'}, losses {losses}"
    what = f"a step of {recipe.batch} x {recipe.max_tokens}, {name}"
    bench.planned(what, took, work, 1 / STEPS, row, note)


def heal(loaded, recipe, folder: Path, micro: int):
    """Heal (model, tokenizer), `micro` sequences at a time; return it, a step's time and peak.

    When memory ran out, the clock and the peak start again.
    """
    gc.collect()
    before, begun = held(), []

    class Timed(training.CheckpointCallback):
        """Notes when each step begins, and resets the peak before the first."""

        def on_train_begin(self, *args, **kwargs):
            super().on_train_begin(*args, **kwargs)
            begun.clear()
            if counter():
                counter().reset_peak_memory_stats()

        def on_step_begin(self, *args, **kwargs):
            wait()
            begun.append(time.perf_counter())

    with mock.patch.object(training, "CheckpointCallback", Timed):
        healed = training.heal(*loaded, recipe, folder, micro)
    apart = [later - earlier for earlier, later in zip(begun, begun[1:], strict=False)]
    peak = counter().max_memory_allocated() - before if counter() else None
    return healed, Measured(min(apart, default=None), peak)
