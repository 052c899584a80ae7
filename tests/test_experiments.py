"""What the experiments ask for: each variant is another measurement, like is compared with like."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import Distances, score

from lib.models import registry
from replication import profiles, tables
from replication.analysis import curves
from replication.measure import cache, experiments
from replication.run.notebooks import NOTEBOOKS

PROFILE, PAPER = profiles.get(profiles.DRAWN), profiles.get("paper")
(NAME,) = PROFILE.ablation_models


RECORDED = (  # experiments that ask for what they were recorded with, and nothing else
    "unhealed test_split doses healed prompts seeds more_seeds ranks exits letter_biases "
    "option_orders stories states last_layers around_healing"
).split()
MACHINE = ("revision", "dtype", "device")  # parameters that the machine decides


@pytest.fixture(scope="module")
def maps():
    return tables.maps(PROFILE)


def test_beyond_the_dense_part_every_second_size_is_asked():
    few = replace(PROFILE, dense_fraction=0.3, deepest_fraction=0.9)
    assert few.block_sizes(10) == [1, 2, 3, 5, 7, 9] and few.block_sizes(12)[:5] == [1, 2, 3, 5, 7]


def without_machine(params: dict) -> str:
    return cache.canonical({name: params[name] for name in params if name not in MACHINE})


@pytest.mark.parametrize("name", RECORDED)
def test_the_record_has_what_its_experiment_asks_for(name, maps):
    """Every request has its row under the same parameters: none changed, came or went."""
    asked = set()
    for notebook in NOTEBOOKS.values():
        for experiment in notebook.experiments:
            if experiment.__name__ == name:
                for model in notebook.models(PROFILE):
                    requests = experiment(model, maps[model], PROFILE)
                    asked |= {without_machine({"kind": r.kind} | r.params) for r in requests}
    rows = tables.read(name, PROFILE).request
    assert asked == {without_machine(json.loads(row)) for row in rows}


def test_4_bits_are_compared_with_16_whatever_the_profile_has():
    for profile in (PROFILE, PAPER):
        (name,) = profile.ablation_models
        requests = experiments.stacked(name, Distances(), profile)
        formats = {(r.labels["format"], r.params["quantization"]) for r in requests}
        assert formats == {("16 bits", None), ("nf4", "nf4")}


def test_a_model_is_the_same_by_its_hub_id():
    """So its recipe, its pin and its colour are."""
    on_the_hub = {name: of.source for name, of in registry.MODELS.items() if "/" in of.source}
    assert on_the_hub.keys() >= {*PAPER.models}
    for name, hub_id in on_the_hub.items():
        assert profiles.get("paper", [hub_id]) == profiles.get("paper", [name])


def test_two_forms_of_a_question_are_resampled_alike():
    """So that their difference is of the same questions: mmlu and mmlu_content."""
    whole, pruned = score(0, 70), pd.DataFrame([score(2, 52)])
    letters, content = (
        curves.curve(pd.Series(whole | {"task": task, "chance": 0.25}), pruned.assign(task=task))
        for task in ("mmlu", "mmlu_content")
    )
    assert np.array_equal(letters.values, content.values)
