"""What the experiments ask for: each variant is another measurement, like is compared with like."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import Distances, score

from lib import storage
from lib.models import registry
from lib.prune import options as prune_options
from replication import paths, profiles, tables
from replication.analysis import curves
from replication.measure import cache, experiments, request, scores
from replication.run.notebooks import NOTEBOOKS

PROFILE, PAPER = profiles.get(profiles.DRAW_ONLY_PROFILE), profiles.get("paper")
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


@pytest.mark.parametrize("name", ["quick", "evening"])
def test_a_run_is_measured_as_the_record_behind_it(name):
    """So that what is the same lies on it: weights, texts, prompts, and the depths of healing."""
    run = profiles.get(name)
    for setting in "dtype quantization source c4_tokens arc_easy_shots mmlu_shots".split():
        assert getattr(run, setting) == getattr(PROFILE, setting), setting
    for setting in "heal_fractions dose_fractions ablation_fractions ablation_ranks".split():
        assert set(getattr(run, setting)) <= set(getattr(PROFILE, setting)), setting


def test_quick_heals_until_it_shows():
    """As much as `make prune` by its example, two depths, both strategies; other seeds at one."""
    quick = profiles.get("quick")
    healing = profiles.recipe(quick.main_model, quick)
    assert healing.steps * healing.batch * healing.max_tokens >= 8 * prune_options.UNIT
    assert len(quick.curve_sizes(30, quick.main_model)) >= 2
    assert quick.healed_strategies(quick.main_model) == profiles.STRATEGIES
    # so that `more_seeds` are none, as notebook 06 says
    assert not quick.line_fractions


@pytest.mark.parametrize(
    "models, format",
    [(["smollm2-135m"], None), (["mistral-7b"], "nf4"), (["smollm2-135m", "mistral-7b"], "nf4")],
)
def test_a_file_of_4_bits_is_not_quantised_again(models, format):
    """And models of one figure have one format."""
    for name in ("quick", "a100", "paper"):
        assert profiles.get(name, models).quantization == format


def test_a_high_rate_is_of_the_model_on_which_it_was_tried():
    """32 steps of 3e-3 would harm a larger one."""
    for name, profile in profiles.PROFILES.items():
        for model in ("smollm2-135m", "mistral-7b", "qwen2.5-coder-1.5b", "some/model"):
            rate = profiles.recipe(model, profile).learning_rate
            assert rate <= (3e-3 if model == "smollm2-135m" else 1e-3), name
    assert profiles.recipe("smollm2-135m", profiles.get("quick")).learning_rate == 3e-3


def test_pages_quote_the_profiles():
    """The minutes and the recipe of `quick`, and how many C4 texts of which length are read."""
    (time,) = (row["time"] for row in storage.rows(profiles.TIMES) if row["profile"] == "quick")
    minutes = time.removesuffix(" minutes on two cores")
    readme = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\n- {minutes} minutes: `make figures`" in readme
    text = (paths.ROOT / "data" / "README.md").read_text(encoding="utf-8")
    quick = profiles.get("quick")
    recipe = profiles.recipe(quick.main_model, quick)
    said = re.search(r"`quick`: (\d+) steps of (\d+) × (\d+), rank (\d+), rate (\S+), (\d+)", text)
    assert [float(number) for number in said.groups()] == [
        *(recipe.steps, recipe.batch, recipe.max_tokens),
        *(recipe.rank, recipe.learning_rate, recipe.warmup_steps),
    ]
    for name in ("quick", "overnight", "a100", "paper"):
        profile = profiles.get(name)
        counts = f"{profile.similarity_sequences:,} and {profile.c4_sequences:,}"
        assert f"`{name}`: {counts}" in text, name
    lengths = f"{quick.similarity_tokens} for distances, {quick.c4_tokens} for the loss"
    assert f"`overnight`: {PROFILE.c4_tokens};<br>`quick`: {lengths} |" in text


OTHERS = [("a100", ["qwen3-8b"]), ("a100", ["phi-2", "mistral-7b"]), ("overnight", [NAME])]


@pytest.mark.parametrize("name, models", [*((name, None) for name in profiles.PROFILES), *OTHERS])
def test_figures_of_few_models_show_those_that_are_studied(name, models):
    """Of a model that is not healed they would have no healed line."""
    profile = profiles.get(name, models)
    few = profile.main_model, *profile.shown_models, *profile.ablation_models, *profile.rank_models
    assert {*few} <= {*profile.study_models}


NAMED = [["qwen2.5-1.5b", "olmo-2-1b"], ["smollm2-135m", "phi-2"], ["mistral-7b", "phi-2"]]
NAMED += [["smollm2-135m", "qwen2.5-coder-0.5b"]]


@pytest.mark.parametrize("models", NAMED, ids=" ".join)
@pytest.mark.parametrize("name", sorted({*profiles.PROFILES} - {profiles.DRAW_ONLY_PROFILE}))
def test_named_models_are_all_asked(name, models):
    """By each experiment of each notebook, and shown by each figure of a few models. HellaSwag and
    sums (`stories`) are asked of those that a profile itself names."""
    profile = profiles.get(name, models)
    for few in (profile.shown_models, profile.ablation_models, profile.rank_models):
        assert {*few} == {*models}
    for number in profile.notebooks or NOTEBOOKS:
        notebook = NOTEBOOKS[number]
        assert {*notebook.models(profile)} == {*models}
        for experiment in {*notebook.experiments} - {experiments.stories}:
            are_asked = [
                bool(experiment(model, Distances(num_layers=registry.num_layers(model)), profile))
                for model in models
            ]
            assert len({*are_asked}) == 1, experiment.__name__


@pytest.mark.parametrize("name", sorted({*profiles.PROFILES} - {profiles.DRAW_ONLY_PROFILE}))
def test_own_texts_name_no_models(name):
    """Each figure shows the models that it shows of C4; beside named models they change nothing."""
    for models in (None, ["mistral-7b", "phi-2"]):
        of_c4, of_texts = (profiles.get(name, models, texts=file) for file in (None, "notes.jsonl"))
        for shown in "main_model shown_models study_models ablation_models rank_models".split():
            assert getattr(of_texts, shown) == getattr(of_c4, shown), shown


def test_a_night_draws_six_models_and_heals_one():
    """The same depths and tasks as `paper`; of an accuracy the standard error is below 0.01."""
    night = profiles.get("a100")
    assert {*night.models} == {*PAPER.models} - {"llama-2-70b"}
    cuts = {(task, size) for task in experiments.TASKS for size in (0, *PAPER.block_sizes(32))}
    for name in night.models:
        swept = experiments.unhealed(name, Distances(num_layers=32), night)
        assert {(one.params["task"], one.block.size) for one in swept} >= cuts, name
    healed = [name for name in night.models if experiments.healed(name, Distances(), night)]
    assert healed == ["mistral-7b"]
    for questions in (night.mmlu_subjects * night.mmlu_questions, night.boolq_questions):
        assert 0.5 / questions**0.5 < 0.01


def test_few_ranks_are_healed_at_three_of_eight_depths_and_all_else_as_in_the_paper():
    few, distances = profiles.get("paper-few-ranks"), Distances(num_layers=32)
    for name in PAPER.models:
        assert profiles.recipe(name, few) == profiles.recipe(name, PAPER)
        ranked, of_paper = (
            {one.block.size for one in experiments.ranks(name, distances, profile)}
            for profile in (few, PAPER)
        )
        assert ranked <= of_paper and (len(ranked), len(of_paper)) in ((4, 9), (0, 0))
        for experiment in (experiments.healed, experiments.seeds):
            keys = [
                [request.params for request in experiment(name, distances, profile)]
                for profile in (few, PAPER)
            ]
            assert keys[0] == keys[1]


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
        digests_of = {}
        for row in rows[rows.value.notna()].itertuples():
            params = json.loads(row.request)
            kept = {k: v for k, v in params.items() if k not in of_cut and not k.startswith("map")}
            digests_of.setdefault(cache.canonical(kept), set()).add(row.prompt_digest)
        for params, digests in digests_of.items():
            assert digests == {scores.prompt_digest(request.load_task(json.loads(params)))}, params
            compared += 1
    assert compared > 40
