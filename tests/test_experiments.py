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
from replication.measure import cache, experiments, request, scores

PROFILE, PAPER = profiles.get(profiles.DRAWN), profiles.get("paper")
(NAME,) = PROFILE.ablation_models


def test_beyond_the_dense_part_every_second_size_is_asked():
    few = replace(PROFILE, dense_fraction=0.3, deepest_fraction=0.9)
    assert few.block_sizes(10) == [1, 2, 3, 4, 5, 7, 9]  # 4: two fifths


@pytest.mark.parametrize("profile", [PROFILE, PAPER], ids=lambda profile: profile.name)
def test_4_bits_are_compared_with_16_whatever_the_profile_has(profile):
    (name,) = profile.ablation_models
    requests = experiments.stacked(name, Distances(), profile)
    formats = {(r.labels["format"], r.params["quantization"]) for r in requests}
    assert formats == {("16 bits", None), ("nf4", "nf4")}


def test_a_model_is_the_same_by_its_hub_id():
    """So its recipe, its pin and its colour are."""
    for name in PAPER.models:
        hub_id = registry.MODELS[name].source
        assert profiles.get("paper", [hub_id]) == profiles.get("paper", [name])


def test_runs_of_other_models_have_other_folders_and_models_other_names():
    runs = [None, ["phi-2"], ["mistral-7b"], ["phi-2", "mistral-7b"], ["phi-2", "qwen-7b"]]
    assert len({profiles.get("smoke", models).folder for models in runs}) == len(runs)
    with pytest.raises(ValueError, match="two are called model"):
        profiles.get("smoke", ["an/other-model", "some/model", "another/model"])


def test_two_forms_of_a_question_are_resampled_alike():
    """So that their difference is of the same questions: mmlu and mmlu_content."""
    whole = pd.Series(score(0, 70) | {"chance": 0.25})
    pruned = pd.DataFrame([score(2, 52)])
    resampled = []
    for task in ("mmlu", "mmlu_content"):
        whole["task"] = pruned["task"] = task
        resampled.append(curves.curve(whole, pruned).values)
    assert np.array_equal(*resampled)


@pytest.mark.record
def test_a_task_asks_what_was_recorded_under_its_key():
    """The first prompt and its choices: a key does not know what a function makes of it."""
    of_cut = ("kind", "batch_tokens", "version", *request.WEIGHTS, *request.HEALING, "patched")
    compared = 0
    for _, rows in tables.read_all(tables.folder(PROFILE)):
        if "prompt_digest" not in rows:
            continue
        asked = {}
        for row in rows[rows.value.notna()].itertuples():
            params = json.loads(row.request)
            kept = {k: v for k, v in params.items() if k not in of_cut and not k.startswith("map")}
            asked.setdefault(cache.canonical(kept), set()).add(row.prompt_digest)
        for params, digests in asked.items():
            assert digests == {scores.prompt_digest(request.task_of(json.loads(params)))}, params
            compared += 1
    assert compared > 40
