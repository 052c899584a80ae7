"""The damage map: every block, its work counted, and where it and the distances disagree."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lib.blocks import Block
from lib.data import sets
from lib.evaluation import Task
from lib.pruning import dropped
from lib.sweep import sweep
from replication import measure, profiles
from replication.beyond import repeat, which_block
from replication.measure import damage

SMOKE = replace(profiles.get("smoke"), damage_sequences=10, damage_tokens=20)


def test_damage_is_the_rise_of_the_loss_without_the_block(loaded_llama, tokenizer):
    damages = measure.table(damage.damage, ["tiny-random"], SMOKE)
    damages = damages.set_index(["block_start", "block_size"])
    texts = sets.c4("validation", "wheels", SMOKE.damage_sequences)
    task = Task("c4", tuple({"text": t, "max_tokens": SMOKE.damage_tokens} for t in texts))
    whole = sweep(loaded_llama, tokenizer, [], [task]).value[0]
    for start, size in ((0, 1), (2, 3), (1, 5)):
        with dropped(loaded_llama, Block(start, size)):
            loss = sweep(loaded_llama, tokenizer, [], [task]).value[0]
        row = damages.loc[start, size]
        assert row.loss == pytest.approx(loss, abs=1e-5)
        assert row.value == pytest.approx(loss - whole, abs=1e-5)
        assert row.n == SMOKE.damage_sequences


def test_a_block_run_twice_is_a_model_that_has_its_layers_twice(loaded_llama, tokenizer):
    repeats = measure.table(repeat.repeats, measure.distances(SMOKE)[0], SMOKE)
    repeats = repeats.set_index(["block_start", "block_size"])
    texts = sets.c4("validation", "wheels", damage.CHUNK)
    task = Task("c4", tuple({"text": t, "max_tokens": SMOKE.damage_tokens} for t in texts))
    whole = sweep(loaded_llama, tokenizer, [], [task]).value[0]
    layers = list(loaded_llama.model.layers)
    for start, size in ((0, 1), (4, 2)):
        longer = copy.deepcopy(loaded_llama)
        twice = [*layers[: start + size], *copy.deepcopy(layers[start:])]
        longer.model.layers = torch.nn.ModuleList(twice)
        longer.config.num_hidden_layers = len(twice)
        loss = sweep(longer, tokenizer, [], [task]).value[0]
        assert repeats.loc[start, size].value == pytest.approx(loss - whole, abs=1e-5)


def test_updates_are_weighted_by_the_tokens_they_are_of():
    """All but the first token; the first token's own update counts once a text."""
    keys = [*which_block.CRITERIA, "update", "update_first"]
    values = dict.fromkeys(keys, np.array([[1.0, 3.0]]))
    rows = which_block._rows([(0, 1)], np.array([2.0, 4.0]), values)
    table = pd.DataFrame(rows).set_index("criterion")
    expected = {
        "last token": (1 + 3) / 2,
        "all tokens": (2 * 1 + 4 * 3) / 6,
        "block influence": (2 * 1 + 4 * 3) / 6,
        "update": (1 * 1 + 3 * 3) / 4,
        "update, first token": (1 + 3) / 2,
    }
    assert table.value.to_dict() == pytest.approx(expected)


def test_the_error_of_a_rise_is_paired_on_texts():
    """Texts differ by far more than what the block does to each; the last has twice the tokens."""
    whole = np.array([1.0, 5.0, 9.0])
    pruned = np.array([1.5, 5.6, 9.7])
    losses = np.stack([whole, pruned])
    tokens = np.array([1, 1, 2])
    (row,) = damage.rises([{"block_size": 0}, {"block_size": 1}], losses, tokens)
    assert row["value"] == pytest.approx((0.5 + 0.6 + 2 * 0.7) / 4)
    assert row["loss"] == pytest.approx((1.5 + 5.6 + 2 * 9.7) / 4)
    squares = 0.125**2 + 0.025**2 + (2 * 0.075) ** 2
    error = (3 / 2 * squares) ** 0.5 / 4
    assert row["standard_error"] == pytest.approx(error)
