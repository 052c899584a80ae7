"""Every key has what changes its number, and nothing else: each field that there is, in turn."""

import inspect
import re
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import pytest
from conftest import Distances

from lib import evaluation
from lib.blocks import Block
from lib.data import prompts, sets, wheels
from lib.healing import Recipe
from lib.models import registry
from replication import paths, profiles
from replication.beyond import repair, repeat, which_block
from replication.beyond.letters import (
    depth_probe,
    jacobian_lens,
    option_ends,
    translator,
    transplant,
)
from replication.measure import cache, damage, fetching, inference_cost, request
from replication.profiles import Profile

NAME, BLOCK = "tiny-random", Block(3, 2)
PROFILE = replace(  # every field counts: the rate of healings decays, and batches differ
    profiles.get("smoke"), heal_steps=8, heal_decay=0.25, batch_tokens=64
)
RECIPE = profiles.recipe(NAME, PROFILE)


# ---- a result of each kind -------------------------------------------------------------------


def first_of(experiment):
    """Return what makes the first request of an experiment, which asks the main model."""
    return lambda name, profile: experiment(name, Distances(), replace(profile, models=(name,)))[0]


OF_MODELS = {  # of a model: (name, profile) -> Request
    "distances": request.similarity,
    "damage": first_of(damage.damage),
    "repeats": first_of(repeat.repeats),
    "states": first_of(which_block.states),
    "cost": first_of(inference_cost.cost),
    "depths": first_of(depth_probe.depths),
    "ends": first_of(option_ends.option_ends),
    "transplants": first_of(transplant.transplants),
    "lens": first_of(jacobian_lens.lens),
    "translator": first_of(translator.translated),
}
OF_BLOCKS = {  # of a model without a block: (name, profile, block, recipe) -> Request
    "healing": lambda *of: request.score(*of[:2], "c4", *of[2:]).healing,
    "healed c4": lambda *of: request.score(*of[:2], "c4", *of[2:]),
    "maps": lambda *of: request.mapped(*of[:2], "c4", of[2], "full").maps,
    "mapped c4": lambda *of: request.mapped(*of[:2], "c4", of[2], "full"),
}
TASKS = set(evaluation.TASK_SPECS)
OF_BLOCKS |= {
    task: lambda *of, task=task: request.score(*of[:2], task, of[2])
    for task in evaluation.TASK_SPECS
}
EVERY = {*OF_MODELS, *OF_BLOCKS}


def key(one: request.Request) -> str:
    return cache.key(one.kind, one.params)


def keys(name=NAME, profile=PROFILE, block=BLOCK, recipe=None) -> dict[str, str]:
    """Return the key of a result of each kind."""
    recipe = recipe or profiles.recipe(name, profile)
    by_kind = {}
    for kind, make in OF_MODELS.items():
        by_kind[kind] = key(make(name, profile))
    for kind, make in OF_BLOCKS.items():
        by_kind[kind] = key(make(name, profile, block, recipe))
    return by_kind


BEFORE = keys()


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {kind for kind in before if before[kind] != after[kind]}


# ---- what changes which of them --------------------------------------------------------------


def of(*names: str) -> set[str]:
    """Return the tasks that ask questions of some data sets."""
    return {task for task in TASKS if task.startswith(names)}


ARC_EASY = of("arc_easy") - {"arc_easy_test"}
# ARC-Easy by letter, with as many examples as MMLU
BY_LETTER = {"depths", "ends", "lens", "transplants"}
FEW = {"translator"}  # the fewer questions of many prompts
DAMAGE = {"damage", "repeats"}
C4, HEALED = {"c4", "healed c4", "mapped c4"}, {"healing", "healed c4"}
MAPPED, SCORES = {"maps", "mapped c4"}, TASKS | C4 | BY_LETTER | FEW
FITTED = MAPPED | {"translator"}
OF_PROFILE = {  # fields, by the results that they change
    "name folder models deepest_fraction dense_fraction more_fractions ablation_fractions "
    "prompt_fractions ablation_ranks rank_fractions "
    "notebooks needs_signal line_fractions healed_names dose_fractions dose_steps study_names "
    "other_tasks missing": set(),
    "dtype": EVERY,
    "quantization": EVERY - {"cost"},  # which has both formats
    "source": EVERY - {"cost"},
    "similarity_sequences": {"distances"},
    "similarity_tokens": {"distances", "lens"} | FITTED,  # the longer of these and heal_tokens
    "c4_sequences c4_tokens": C4,
    "arc_easy_questions": ARC_EASY | BY_LETTER,
    "ablation_questions": FEW,
    "arc_easy_shots": of("arc_easy"),
    "arc_easy_test_questions": {"arc_easy_test"},
    "mmlu_subjects mmlu_questions": of("mmlu"),
    "mmlu_shots": of("mmlu") | BY_LETTER | FEW,
    "shot_order": of("mmlu") | ARC_EASY | BY_LETTER,
    "boolq_questions": of("boolq"),
    "hellaswag_questions": {"hellaswag"},
    "gsm8k_questions": {"gsm8k_bpb"},
    "gsm8k_generated gsm8k_new_tokens": {"gsm8k"},
    "gsm8k_shots": of("gsm8k"),
    "damage_sequences damage_tokens": DAMAGE | {"states"},
    "cost_prompt_tokens cost_new_tokens cost_repeats heal_fractions": {"cost"},
    "heal_steps heal_batch heal_tokens heal_learning_rate heal_rank heal_warmup heal_decay "
    "heal_packed": HEALED,
    "map_sequences": FITTED | {"lens"},
    "batch_tokens": {"distances"} | DAMAGE | FITTED | SCORES - C4,  # maps are fitted in such
}
OF_PROFILE = {name: kinds for names, kinds in OF_PROFILE.items() for name in names.split()}
VERSIONS = [  # of code: the table or module that holds one, its name, and the results
    (request, "PROMPT_VERSION", SCORES),
    (request, "MAP_VERSION", FITTED),
    (inference_cost, "VERSION", {"cost"}),
    (cache.VERSIONS, "similarity", {"distances"}),
    (cache.VERSIONS, "scores", SCORES),
    (cache.VERSIONS, "healing", HEALED),
    (damage, "VERSION", DAMAGE),
    (repeat, "VERSION", {"repeats"}),
    (which_block, "VERSION", {"states"}),
    (depth_probe, "VERSION", {"depths"}),
    (option_ends, "VERSION", {"ends"}),
    (transplant, "VERSION", {"transplants"}),
    (jacobian_lens, "VERSION", {"lens"}),
    (translator, "VERSION", {"translator"}),
]
DATA = {name: of(name) for name in ("mmlu", "boolq", "hellaswag", "gsm8k")}
DATA |= {"arc_easy": ARC_EASY | BY_LETTER | FEW, "arc_easy_test": {"arc_easy_test"}}
DATA["winogrande"] = set()  # only to compare with lm-eval
DATA |= {"wiki": HEALED | FITTED, "c4": C4 | HEALED | FITTED | DAMAGE | {"distances", "states"}}


def other(value, name: str):
    """Return another value of a field."""
    if isinstance(value, tuple):
        return (*value, *(value or (3,)))
    if isinstance(value, float):
        return value / 2
    if isinstance(value, int):
        return not value if isinstance(value, bool) else value + 1
    return {"source": "hub"}.get(name, "nf4")


def test_everything_that_may_change_a_number_is_listed():
    of_profile = {field.name for field in fields(Profile)} - {"task_counts"}
    assert set(OF_PROFILE) == of_profile
    assert set(DATA) == set(wheels.ASSETS) - set(registry.MODELS)
    made = [
        *OF_MODELS.values(),
        *(lambda *of, m=make: m(*of, BLOCK, RECIPE) for make in OF_BLOCKS.values()),
    ]
    assert {make(NAME, PROFILE).kind for make in made} - {"maps"} == set(fetching.MEASURE)
    listed = {name for holder, name, _ in VERSIONS if isinstance(holder, dict)}
    assert listed == {*cache.VERSIONS}
    versioned = [name for name, spec in evaluation.TASK_SPECS.items() if spec.version]
    assert versioned == ["mmlu_content"]


def test_every_file_with_a_version_is_listed_here_and_in_contributing():
    holds = re.compile(r"^[A-Z_]*VERSIONS? = .*# bumped by hand", re.MULTILINE)
    files = [*(paths.ROOT / "replication").rglob("*.py"), *(paths.ROOT / "lib").rglob("*.py")]
    versioned = {file for file in files if holds.search(file.read_text(encoding="utf-8"))}
    modules = [cache, prompts, *(of[0] for of in VERSIONS if isinstance(of[0], ModuleType))]
    assert versioned == {Path(inspect.getfile(module)) for module in modules}
    page = (paths.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^- versions, .*", page, re.MULTILINE)
    named = set(re.findall(r"`([a-z_]+)(?:\.py|\.[A-Z_]*VERSIONS?)`", line))
    assert named == {file.stem for file in versioned}


FIELDS = [("profile", PROFILE, *of_field) for of_field in OF_PROFILE.items()]
FIELDS += [("recipe", RECIPE, field.name, HEALED) for field in fields(Recipe)]


@pytest.mark.parametrize(
    "holds, holder, name, kinds", FIELDS, ids=[f"{of[0]} {of[2]}" for of in FIELDS]
)
def test_a_field_of_a_profile_or_a_recipe(holds, holder, name, kinds):
    value = other(getattr(holder, name), name)
    with_other = replace(holder, **{name: value})
    assert changed(BEFORE, keys(**{holds: with_other})) == kinds


@pytest.mark.parametrize("holder, name, kinds", VERSIONS, ids=[of[1] for of in VERSIONS])
def test_a_version_of_code(holder, name, kinds, monkeypatch):
    change = monkeypatch.setitem if isinstance(holder, dict) else monkeypatch.setattr
    change(holder, name, 99)
    assert changed(BEFORE, keys()) == kinds


@pytest.mark.parametrize("name", DATA)
def test_a_version_of_data(name, monkeypatch):
    other_asset = replace(wheels.ASSETS[name], sha256="0" * 64)
    monkeypatch.setitem(wheels.ASSETS, name, other_asset)
    assert changed(BEFORE, keys()) == DATA[name]
    if name in sets.HUB:
        on_the_hub = replace(PROFILE, source="hub")
        before = keys(profile=on_the_hub)
        monkeypatch.setitem(sets.HUB, name, replace(sets.HUB[name], revision="another"))
        assert changed(before, keys(profile=on_the_hub)) == DATA[name]


def test_models_blocks_and_kinds():
    assert len(set(BEFORE.values())) == len(EVERY)
    assert changed(BEFORE, keys(name="smollm2-135m")) == EVERY
    assert changed(BEFORE, keys(block=Block(2, 2))) == set(OF_BLOCKS)
    assert changed(BEFORE, keys(block=Block(3, 1))) == set(OF_BLOCKS)
    chunks = damage.damage(NAME, Distances(), replace(PROFILE, damage_sequences=20))
    assert len({key(chunk) for chunk in chunks}) == 3


def test_linear_maps_are_one_result_whatever_judges_them():
    scores = []
    for task in repair.TASKS:
        for kind in repair.KINDS:
            scores.append(request.mapped(NAME, PROFILE, task, BLOCK, kind))
    assert len({key(score) for score in scores}) == len(scores)
    assert len({key(score.maps) for score in scores}) == 1


def test_a_healing_of_fewer_steps_decays_for_the_same_share_of_them():
    profile = replace(PROFILE, heal_steps=40)
    assert profiles.recipe(NAME, profile, steps=20).decay_steps == 5
