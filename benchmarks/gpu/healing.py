"""Healing on the GPU: steps of the paper's size through the end of memory, and equal adapters."""

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
WEIGHTS = "adapter_model.safetensors"


class Stopped(BaseException):
    """What no handler catches."""


def steps(bench: Bench) -> None:
    """a healing's steps: 16 sequences until memory ends, then fewer, recomputed, padded"""
    longest = bench.profile.heal_tokens
    recipe = profiles.recipe(bench.name, bench.profile, steps=STEPS, warmup_steps=1)
    after = replace(recipe, first_layer=bench.block.start)
    cases = {
        "as many as fit": (recipe, 16, False),
        "one at a time": (recipe, 1, False),
        "recomputed": (recipe, 1, True),
        "rank 64": (replace(recipe, rank=64), 2, False),
        "padded": (replace(recipe, packed=False), 2, False),
        "after the cut": (after, 2, False),
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
        if own.packed and not own.first_layer:
            bench.planned(what, took, work, 1 / STEPS, row, note)
        else:  # other tokens, or fewer layers, than the plan counts
            bench.add(Row(what, took, note=note))


def determinism(bench: Bench) -> None:
    """a step with deterministic algorithms and without, in turns"""
    max_tokens = bench.profile.heal_tokens // 8
    recipe = profiles.recipe(
        bench.name, bench.profile, steps=STEPS, max_tokens=max_tokens, warmup_steps=1
    )
    free = mock.patch.object(training, "_deterministic", lambda warn_only: nullcontext())
    took = {"deterministic": [], "not deterministic": []}
    for turn in range(2):
        for which, seconds in took.items():
            with nullcontext() if which == "deterministic" else free:
                folder = Path(bench.name).with_name(f"{which} {turn}")
                seconds.append(heal(bench, recipe, folder, 2)[1].seconds)
    for which, seconds in took.items():
        what = f"{recipe.batch} x {recipe.max_tokens}, {which}"
        bench.add(Row(what, Measured(min(seconds))))


def same_bytes(bench: Bench) -> None:
    """the same adapter twice, after an interruption, and with activations recomputed"""
    max_tokens = bench.profile.heal_tokens // 8
    recipe = profiles.recipe(bench.name, bench.profile, steps=8, batch=4, max_tokens=max_tokens)
    made = Path(bench.name).with_name

    def adapter(name: str, micro: int, recomputes: bool = False) -> bytes:
        healed, _ = heal(bench, recipe, made(name), micro, recomputes)
        return (healed.adapter / WEIGHTS).read_bytes()

    once = adapter("once", 4)
    equal = {"twice": adapter("twice", 4) == once}
    try:
        heal(bench, recipe, made("resumed"), 4, stop_at=6)
    except Stopped:
        equal["resumed"] = adapter("resumed", 4) == once
    equal["recomputed"] = adapter("single", 1) == adapter("single recomputed", 1, True)
    bench.add(Row("same adapter, byte for byte", note=str(equal)))
    if not all(equal.values()):
        raise AssertionError(f"Adapters differ: {equal}.")


def heal(bench: Bench, recipe, folder: Path, micro: int, recomputes=False, stop_at=0):
    """The healing of the cut model, from `micro` sequences at a time; a step's time and peak.

    When memory ran out, the clock and the peak start again. stop_at: the step that is interrupted.
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
            if len(begun) == stop_at:
                raise Stopped

    only = mock.patch.object(training, "memory_fallbacks", lambda micro: [(1, True)])
    with mock.patch.object(training, "_Watch", Timed), only if recomputes else nullcontext():
        healed = training.heal(model, tokenizer, recipe, folder, micro)
    apart = [later - earlier for earlier, later in zip(begun, begun[1:], strict=False)]
    peak = counter().max_memory_allocated() - before if counter() else None
    return healed, Measured(min(apart, default=None), peak)
