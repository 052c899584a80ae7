"""Healing on the GPU: steps of the paper's size through the end of memory."""

import gc
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

from benchmarks.gpu.bench import Bench, Measured, Row, counter, held, wait
from lib.healing import training
from replication import profiles

STEPS = 3  # the first warms up, the last is not timed: no step begins after it


def steps(bench: Bench) -> None:
    """a healing's steps: 16 sequences until memory ends, then fewer, recomputed, padded"""
    longest = bench.profile.heal_tokens
    recipe = profiles.recipe(bench.name, bench.profile, steps=STEPS, warmup_steps=1)
    cases = {
        "as many as fit": (recipe, 16, False),
        "one at a time": (recipe, 1, False),
        "recomputed": (recipe, 1, True),
        "padded": (replace(recipe, packed=False), 2, False),
    }
    for name, (own, micro, recomputes) in cases.items():
        folder = Path(bench.name).with_name(f"steps {name}")
        healed, took = heal(bench, own, folder, micro, recomputes)
        layers = bench.num_layers - bench.block.size
        way = healed.micro_batch, healed.recomputes
        work = bench.loaded.healing(layers, own, micro=way)
        one_row = healed.micro_batch == 1 and healed.recomputes  # which is what the plan counts
        row = work.memory - bench.loaded.weights(layers) if one_row else None
        losses = "…".join(f"{loss:.3f}" for loss in (healed.losses or [0])[:: STEPS - 1])
        note = f"m {healed.micro_batch}{', recomputed' * healed.recomputes}, {healed.status}"
        note += f", losses {losses}"
        what = f"a step of 16 x {longest}, {name}"
        if own.packed:
            bench.planned(what, took, work, 1 / STEPS, row, note)
        else:  # other tokens than the plan counts
            bench.add(Row(what, took, note=note))


def heal(bench: Bench, recipe, folder: Path, micro: int, recomputes=False):
    """Heal the cut model, from `micro` sequences at a time; return it, a step's time and peak.

    When memory ran out, the clock and the peak start again.
    """
    model, tokenizer = bench.model(bench.block)
    gc.collect()
    before, begun = held(), []

    class Timed(training._Watch):
        """Notes when each step begins, and resets the peak before the first."""

        def on_train_begin(self, *args, **kwargs):
            super().on_train_begin(*args, **kwargs)
            begun.clear()
            if counter():
                counter().reset_peak_memory_stats()

        def on_step_begin(self, *args, **kwargs):
            wait()
            begun.append(time.perf_counter())

    only = mock.patch.object(training, "memory_fallbacks", lambda micro: [(1, True)])
    with mock.patch.object(training, "_Watch", Timed), only if recomputes else nullcontext():
        healed = training.heal(model, tokenizer, recipe, folder, micro)
    apart = [later - earlier for earlier, later in zip(begun, begun[1:], strict=False)]
    peak = counter().max_memory_allocated() - before if counter() else None
    return healed, Measured(min(apart, default=None), peak)
