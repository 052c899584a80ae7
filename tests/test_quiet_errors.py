"""Errors that raise nothing and move a number, each seen by an expectation computed by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Distances, score

from lib.blocks import BlockDistances
from lib.healing import lora, packing, training
from replication import profiles
from replication.analysis.depth import lower_minus_upper
from replication.analysis.islands import islands
from replication.claims.tables import RunTables
from replication.measure import experiments

SMOKE, PAPER = profiles.get("smoke"), profiles.get("paper")


# ---- requests ------------------------------------------------------------------------------


def test_an_ablation_changes_a_recipe_that_the_paper_gives_for_the_model():
    """Llama-2-7B is healed with rank 2, but for the figure that varies it."""
    assert profiles.recipe("llama-2-7b", PAPER).rank == 2
    requests = experiments.ranks("llama-2-7b", Distances(), PAPER)
    ranks = {r.labels["variant"]: r.recipe.rank for r in requests if r.recipe}
    assert ranks == {f"rank {rank}": rank for rank in (2, 4, 8, 16, 32, 64)}


# ---- healing -------------------------------------------------------------------------------


def test_every_draw_of_a_healing_is_by_the_recipes_seed(base, tmp_path):
    """The order of documents, the adapter before a step, and what training drops."""
    model, tokenizer = base
    orders, adapters = [], []
    for seed in (0, 3):
        recipe = replace(profiles.recipe("tiny-random", SMOKE), seed=seed)
        orders.append(packing.training_sequences(tokenizer, recipe)[0])
        with lora.new_lora(model, recipe) as wrapped:
            weights = (p for name, p in wrapped.named_parameters() if "lora_A" in name)
            adapters.append(next(weights).clone())
        assert training._training_arguments(recipe, tmp_path, 4, model).seed == seed
    assert orders[0] != orders[1]
    assert not torch.equal(*adapters)


# ---- which block ---------------------------------------------------------------------------


def test_shallow_minus_deep_is_a_mean_over_sizes():
    """Of 8 layers: the blocks of one and two layers within [1, 4) and [4, 7)."""
    rises = {
        (1, 1): 0.1,
        (2, 1): 0.2,
        (3, 1): 0.6,
        (1, 2): 0.4,
        (2, 2): 0.6,
        (4, 1): 0.3,
        (5, 1): 0.1,
        (6, 1): 0.2,
        (4, 2): 0.3,
        (5, 2): 0.5,
        (0, 1): 9.0,  # outside, as are the following
        (7, 1): 9.0,
        (3, 2): 9.0,
        (1, 3): 9.0,
    }
    rows = [
        {"block_start": start, "block_size": size, "examples": np.array([rise, 2 * rise])}
        for (start, size), rise in rises.items()
    ]
    # (0.9 / 3 + 1.0 / 2) / 2 = 0.4, and (0.6 / 3 + 0.8 / 2) / 2 = 0.3
    np.testing.assert_allclose(lower_minus_upper(pd.DataFrame(rows), 8), [0.1, 0.2])


def test_an_islands_stability_is_that_at_its_own_threshold():
    """One of 0.15 is there at 0.2 in every resample, and at 0.1 in none."""
    matrix = np.ones((25, 25))
    for size in range(1, 13):
        matrix[12, 12 + size] = 0
    for start, size in ((4, 3), (4, 4), (5, 3)):
        matrix[start, start + size] = 0.15
    distances = BlockDistances(matrix, 0 * matrix, np.stack([matrix] * 16), 16)
    (island,) = islands(distances, 0.2).itertuples()
    assert island.area == 3 and island.stability == 1


# ---- statistics ----------------------------------------------------------------------------


def test_a_line_begins_at_its_own_variants_unpruned_score():
    lines = {"0 examples": (50, 40), "5 examples": (70, 60)}  # right of 100: unpruned, cut
    rows = [
        score(depth, right, task="mmlu", ablation="number", variant=variant)
        for variant, line in lines.items()
        for depth, right in enumerate(line)
    ]
    run = RunTables({}, {"prompts": pd.DataFrame(rows)})
    where = {"model": "m", "task": "mmlu", "ablation": "number", "treatment": "unhealed"}
    for variant, line in lines.items():
        curve = run.line("prompts", variant=variant, **where)
        assert (100 * curve.values[0]).tolist() == pytest.approx(line)
