"""Healings of a tiny cut model, and how one is killed: for the tests of all that heals."""

from contextlib import contextmanager
from dataclasses import replace

import pytest

from lib.blocks import Block
from lib.healing import training
from lib.pruning import dropped
from replication import profiles

BLOCK = Block(3, 2)
SMOKE = profiles.recipe("tiny-random", profiles.get("smoke"))
RECIPE = replace(SMOKE, steps=6, batch=8, learning_rate=0.05)
START = replace(RECIPE, steps=4, batch=4, warmup_steps=1, max_tokens=32)
WEIGHTS = "adapter_model.safetensors"


def heal(base, folder, recipe=RECIPE, **options) -> training.Healed:
    """Heal the model without BLOCK."""
    with dropped(base[0], BLOCK) as whole:
        return training.heal(*base, recipe, folder, **{"whole": whole} | options)


def weights(healed: training.Healed) -> bytes:
    return (healed.adapter / WEIGHTS).read_bytes()


class Killed(BaseException):
    """What no handler catches."""


@contextmanager
def killed_at(step: int):
    """Kill a healing after so many steps."""

    def stop(self, args, state, control, **kwargs):
        if state.global_step == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training.CheckpointCallback, "on_step_end", stop)
        yield
