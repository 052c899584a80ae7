"""What the experiments ask for: each variant is another measurement, like is compared with like."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import Distances, score

from lib.models import registry
from replication import profiles
from replication.analysis import curves
from replication.beyond import dose
from replication.measure import experiments

PROFILE, PAPER = profiles.get("overnight"), profiles.get("paper")
(NAME,) = PROFILE.ablation_models


def test_beyond_the_dense_part_every_second_size_is_asked():
    few = replace(PROFILE, dense_fraction=0.3, deepest_fraction=0.9)
    assert few.block_sizes(10) == [1, 2, 3, 5, 7, 9] and few.block_sizes(12)[:5] == [1, 2, 3, 5, 7]


def test_each_variant_of_a_prompt_is_its_own():
    requests = experiments.prompts(NAME, Distances(), PROFILE)
    seen = {(r.labels["variant"], r.params["shots"], r.params.get("shot_order")) for r in requests}
    assert {one for one in seen if "order" in one[0]} == {
        (f"order {order}", max(experiments.SHOTS), order) for order in experiments.ORDERS
    }
    assert {one[:2] for one in seen if "examples" in one[0]} == {
        (f"{k} examples", k) for k in experiments.SHOTS
    }


@pytest.mark.parametrize(
    "profile, name, strategies",
    [
        (PAPER, "mistral-7b", {"similarity", "simple"}),
        (PAPER, "llama-2-70b", {"similarity"}),
        (profiles.get("paper", ["llama-2-70b"]), "llama-2-70b", {"similarity"}),
        (profiles.get("paper", ["llama-2-7b"]), "llama-2-7b", {"similarity", "simple"}),
        (PROFILE, NAME, {"similarity", "simple"}),
    ],
)
def test_ranks_are_swept_with_the_strategies_of_figure_9(profile, name, strategies):
    """Also in a run of this model only."""
    requests = experiments.ranks(name, Distances(), profile)
    assert {r.labels["ablation"] for r in requests} == strategies


def test_a_model_is_the_same_by_its_hub_id():
    """So its recipe, its pin and its colour are; a run cannot have it twice."""
    on_the_hub = {name: of.source for name, of in registry.MODELS.items() if "/" in of.source}
    assert on_the_hub.keys() >= {*PAPER.models}
    for name, hub_id in on_the_hub.items():
        assert profiles.get("paper", [hub_id]) == profiles.get("paper", [name])
        with pytest.raises(ValueError, match=f"two are called {registry.label(name)}"):
            profiles.get("paper", [name, hub_id])


def test_seeds_at_more_depths_are_healed_for_a_length_of_the_dose():
    """So that the first seed is measured already; two thirds of the healings are new."""
    distances = Distances(num_layers=30)
    requests = [r for r in experiments.more_seeds(NAME, distances, PROFILE) if r.recipe]
    doses = [r.params for r in dose.doses(NAME, distances, PROFILE)]
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
