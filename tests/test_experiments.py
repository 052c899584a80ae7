"""What the experiments ask for: each variant is another measurement, like is compared with like."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import Distances, score

from lib.blocks import Block
from replication import profiles
from replication.analysis import curves
from replication.beyond import dose
from replication.measure import experiments, request

PROFILE = profiles.get("overnight")
(NAME,) = PROFILE.ablation_models


def test_each_order_of_the_examples_is_its_own():
    requests = experiments.prompts(NAME, Distances(), PROFILE)
    orders = [r for r in requests if r.labels["ablation"] == "order"]
    numbers = [r for r in requests if r.labels["ablation"] == "number"]
    assert {(r.labels["variant"], r.params["shot_order"]) for r in orders} == {
        (f"order {order}", order) for order in experiments.ORDERS
    }
    shots = {(r.labels["variant"], r.params["shots"]) for r in numbers}
    assert shots == {(f"{k} examples", k) for k in experiments.SHOTS}


@pytest.mark.parametrize(
    "name, strategies",
    [
        ("mistral-7b", {"similarity", "simple"}),
        ("llama-2-7b", {"similarity", "simple"}),
        ("llama-2-70b", {"similarity"}),
    ],
)
def test_ranks_are_swept_with_the_strategies_of_figure_9(name, strategies):
    paper = profiles.get("paper")
    assert {r.labels["ablation"] for r in experiments.ranks(name, Distances(), paper)} == strategies
    alone = profiles.get("paper", [name])  # also in a run of this model only
    requests = experiments.ranks(name, Distances(), alone)
    assert {r.labels["ablation"] for r in requests} == strategies


def test_every_rank_model_of_other_profiles_has_both_strategies():
    requests = experiments.ranks(NAME, Distances(), PROFILE)
    assert {r.labels["ablation"] for r in requests} == {"similarity", "simple"}


def test_seeds_at_more_depths_are_healed_for_a_length_of_the_dose():
    """So that the first seed is measured already; two thirds of the healings are new."""
    distances = Distances(num_layers=30)
    requests = [r for r in experiments.more_seeds(NAME, distances, PROFILE) if r.recipe]
    doses = [r.params for r in dose.requests(NAME, distances, PROFILE)]
    assert {r.block.size for r in requests} == {6, 12}
    assert {r.recipe.steps for r in requests} == {64}
    assert {r.recipe.seed for r in requests} == set(experiments.SEEDS)
    for r in requests:
        assert (r.params in doses) == (r.recipe.seed == 0)
    assert experiments.more_seeds(NAME, distances, profiles.get("quick")) == []


def test_a_model_that_mmlu_tells_of_is_asked_fewer_questions_of_the_test_split():
    distances = Distances(num_layers=28)
    main = experiments.test_split(PROFILE.main_model, distances, PROFILE)
    other = experiments.test_split(NAME, distances, PROFILE)
    assert {r.params["questions"] for r in main} == {PROFILE.ablation_questions}
    assert {r.params["questions"] for r in other} == {PROFILE.arc_easy_test_questions}
    assert {r.block.size for r in main} == {0, 3, 6, 8, 11, 14} < {r.block.size for r in other}


def test_two_forms_of_a_question_are_resampled_alike():
    """So that their difference is of the same questions: mmlu and mmlu_content."""
    lines = []
    for task in ("mmlu", "mmlu_content"):
        whole, pruned = (score(depth, 70 - 9 * depth, task=task, chance=0.25) for depth in (0, 2))
        lines.append(curves.curve(pd.Series(whole), pd.DataFrame([pruned])))
    letters, content = lines
    assert np.array_equal(letters.values, content.values)


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_a_healed_score_needs_the_healing_that_is_requested_alone(quantization):
    profile, block = replace(PROFILE, quantization=quantization), Block(3, 2)
    recipe = profiles.recipe(NAME, profile)
    scored = request.score(NAME, profile, "c4", block, recipe)
    alone = request.healing(NAME, profile, block, recipe)
    assert scored.healing.params == alone.params
    assert alone.healing.params == alone.params
