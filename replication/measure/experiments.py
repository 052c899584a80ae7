"""What the paper's notebooks measure, written down once, as requests for results.

Measuring fetches them, planning costs them, the runner splits them into jobs, and the claims judge
their tables. Our own questions stand in `replication/beyond`. Imports neither torch nor
transformers.

`distances` is a BlockDistances, or whatever else has num_layers and best_start(size).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from lib.blocks import UNPRUNED, Block
from lib.healing import Recipe
from replication.measure import request
from replication.measure.request import Request, score
from replication.profiles import (
    MAIN,
    MULTIPLE_CHOICE,
    ORDERS,
    QA,
    SEEDS,
    SHOT_ENDS,
    SHOTS,
    STRATEGIES,
    Profile,
    recipe,
    sizes_at,
)
from replication.profiles.strategies import CHOOSE, EXIT_AND_SIMILARITY

TASKS = (*QA, "c4")
STORY_SIZES = (1, 3, 5, 7)  # layers dropped


# ---- what a notebook wants of one model -----------------------------------------------------


def similarity(name: str, distances, profile: Profile) -> list[Request]:
    """The map of figure 4."""
    return [request.similarity(name, profile)]


def unpruned(name: str, profile: Profile, tasks: Sequence[str] = TASKS, **labels) -> list[Request]:
    """The scores of the whole model."""
    labels = {"fraction": 0.0, "strategy": "none", "treatment": "unpruned"} | labels
    return [score(name, profile, task, UNPRUNED, **labels) for task in tasks]


def unhealed(
    name: str, distances, profile: Profile, tasks=None, strategies=STRATEGIES
) -> list[Request]:
    """Figures 2, 3, 5, 6: the unpruned model, and blocks of each strategy at every size.

    Those that are healed are among them, so that each healed score has one to be compared with.
    `other_models` are asked fewer tasks.
    """
    if tasks is None:
        tasks = profile.other_tasks if name in profile.other_models else TASKS
    requests, layers = unpruned(name, profile, tasks), distances.num_layers
    sizes = sorted({*profile.block_sizes(layers), *profile.curve_sizes(layers, name)})
    sizes = [size for size in sizes if size < layers]
    for strategy in strategies:
        for task in tasks:
            requests += cuts(name, distances, profile, [task], [strategy], sizes)
    return requests


def test_split(name: str, distances, profile: Profile) -> list[Request]:
    """ARC-Easy's test split along the similarity-informed curve.

    Of the main models, of which MMLU tells: as few questions as for many prompts, at the sizes of
    the healed curve.
    """
    if not profile.arc_easy_test_questions:
        return []
    tasks, strategies = ["arc_easy_test"], ["similarity"]
    if name not in MAIN:
        return unhealed(name, distances, profile, tasks, strategies)
    count = min(profile.arc_easy_test_questions, profile.ablation_questions)
    few = replace(profile, arc_easy_test_questions=count)
    sizes = profile.curve_sizes(distances.num_layers, name)
    return unpruned(name, few, tasks) + cuts(name, distances, few, tasks, strategies, sizes)


def healed(
    name: str,
    distances,
    profile: Profile,
    tasks: Sequence[str] = TASKS,
    strategies: Sequence[str] | None = None,
    sizes: Sequence[int] | None = None,
    labels: dict | None = None,
    **changes,
) -> list[Request]:
    """The healed scores of figures 1d, 2, 3, 5, 6, of the models to study.

    changes: of the recipe, as rank=2 or seed=1.
    """
    if name not in profile.study_models:
        return []
    healing, requests = recipe(name, profile, **changes), []
    for strategy in strategies or profile.healed_strategies(name):
        of_strategy = sizes or profile.curve_sizes(distances.num_layers, name)
        requests += cuts(
            name, distances, profile, tasks, [strategy], of_strategy, healing, **labels or {}
        )
    return requests


def at_sizes(
    name: str,
    distances,
    profile: Profile,
    tasks: Sequence[str],
    sizes: Mapping[str, Sequence[int]],
    **labels,
) -> list[Request]:
    """The scores of each task whole, and after each strategy's blocks of its sizes, unhealed.

    ARC-Easy has as many solved examples as MMLU, and all questions of the profile.
    """
    few_shot, requests = replace(profile, arc_easy_shots=profile.mmlu_shots), []
    for task in tasks:
        requests += unpruned(name, few_shot, [task], **labels)
        for strategy, every in sizes.items():
            possible = [size for size in every if size < distances.num_layers - 1]
            requests += cuts(name, distances, few_shot, [task], [strategy], possible, **labels)
    return requests


def cuts(
    name: str,
    distances,
    profile: Profile,
    tasks: Sequence[str],
    strategies: Sequence[str],
    sizes: Sequence[int],
    healing: Recipe | None = None,
    **labels,
) -> list[Request]:
    """The scores of strategies' blocks, one of each size, healed by the recipe `healing` if any."""
    layers, treatment = distances.num_layers, "healed" if healing else "unhealed"
    requests = []
    for strategy in strategies:
        for block in blocks_of(strategy, distances, sizes):
            where = {"fraction": block.size / layers, "strategy": strategy, "treatment": treatment}
            of_block = where | labels
            requests += [score(name, profile, task, block, healing, **of_block) for task in tasks]
    return requests


def blocks_of(strategy: str, distances, sizes: Sequence[int]) -> list[Block]:
    """The blocks of a strategy (a row of `strategies.CHOOSE`), one of each size."""
    return [CHOOSE[strategy](distances, size) for size in sizes]


def stacked(name: str, distances, profile: Profile) -> list[Request]:
    """Do 4 bits and dropped layers add up? The C4 loss where the profile heals; column format."""
    if name not in profile.ablation_models:
        return []
    sizes, requests = profile.healed_sizes(distances.num_layers), []
    for weights in ("16 bits", "nf4"):
        of_format = replace(profile, quantization=weights if weights == "nf4" else None)
        requests += unpruned(name, of_format, ["c4"], format=weights)
        requests += cuts(name, distances, of_format, ["c4"], ["similarity"], sizes, format=weights)
    return requests


def prompts(name: str, distances, profile: Profile) -> list[Request]:
    """Figure 7: the number of few-shot examples, its ends also on a test split; and their order."""
    if name not in profile.ablation_models:
        return []
    arc_easy = profile.arc_easy_questions if profile.ablation_questions else 0
    with_prompt = partial(profile.with_prompt, arc_easy=arc_easy)
    number = {f"{k} examples": (with_prompt(k), {}) for k in SHOTS}
    order = {f"order {k}": (with_prompt(max(SHOTS), order=k), {}) for k in ORDERS}
    sizes = profile.prompt_sizes(distances.num_layers, name)
    requests = _variants(name, distances, "number", number, MULTIPLE_CHOICE, sizes)
    requests += _variants(name, distances, "order", order, MULTIPLE_CHOICE, sizes)
    # without examples ARC-Easy is asked after every healing, for figure 1d
    more = [n for n in profile.healed_sizes(distances.num_layers, name) if n not in sizes]
    labels = {"ablation": "number", "variant": "0 examples"}
    if more:
        profile_0, strategies = with_prompt(0), ["similarity"]
        requests += healed(name, distances, profile_0, ["arc_easy"], strategies, more, labels)
    if profile.arc_easy_test_questions:
        ends = {f"{k} examples": number[f"{k} examples"] for k in SHOT_ENDS}
        requests += _variants(name, distances, "number", ends, ["arc_easy_test"], sizes)
    return requests


def seeds(name: str, distances, profile: Profile) -> list[Request]:
    """Figure 8: the seed of healing."""
    if name not in profile.ablation_models:
        return []
    variants = {f"seed {seed}": (profile, {"seed": seed}) for seed in SEEDS}
    sizes = profile.ablation_sizes(distances.num_layers)
    return _variants(name, distances, "seeds", variants, VARIED, sizes)


def more_seeds(name: str, distances, profile: Profile) -> list[Request]:
    """Figure 8's lines: the seed of shorter healings at several depths."""
    sizes = sizes_at(profile.line_fractions, distances.num_layers)
    if name not in profile.ablation_models or not sizes:
        return []
    steps = profile.line_steps
    variants = {f"seed {seed}": (profile, {"seed": seed, "steps": steps}) for seed in SEEDS}
    return _variants(name, distances, "more seeds", variants, VARIED[1:], sizes)


def ranks(name: str, distances, profile: Profile) -> list[Request]:
    """Figure 9: the LoRA rank, of its strategies; also on ARC-Easy's test split. Of a strategy with
    one rank only where figure 5 has that healing."""
    if name not in profile.rank_models or not profile.ablation_ranks:
        return []
    variants = {f"rank {rank}": (profile, {"rank": rank}) for rank in profile.ablation_ranks}
    sizes = profile.rank_sizes(distances.num_layers)
    requests = []
    for strategy in STRATEGIES:
        ranked, at = variants, sizes
        if strategy not in profile.rank_strategies(name):  # what figure 5 heals anyway
            rank = recipe(name, profile).rank
            ranked = {f"rank {rank}": (profile, {"rank": rank})}
            healed_at = profile.curve_sizes(distances.num_layers, name)
            at = [size for size in sizes if size in healed_at]
        if at and strategy in profile.healed_strategies(name):
            requests += _variants(name, distances, strategy, ranked, VARIED, at)
    if profile.arc_easy_test_questions:  # of one strategy, whose unhealed score `test_split` has
        requests += _variants(name, distances, "similarity", variants, ["arc_easy_test"], sizes)
    return requests


def more_ranks(name: str, distances, profile: Profile) -> list[Request]:
    """Figure 9's lines: the LoRA rank of shorter healings at several depths, of both strategies."""
    sizes = sizes_at(profile.line_fractions, distances.num_layers)
    if name not in profile.rank_models or not sizes:
        return []
    steps, ranks = profile.line_steps, profile.ablation_ranks
    variants = {f"rank {rank}": (profile, {"rank": rank, "steps": steps}) for rank in ranks}
    requests = []
    for strategy in STRATEGIES:
        requests += _variants(name, distances, strategy, variants, VARIED[1:], sizes)
    return requests


VARIED = ("mmlu", "arc_easy", "c4")


def _variants(
    name: str, distances, ablation: str, variants: dict, tasks: Sequence[str], sizes: Sequence[int]
) -> list[Request]:
    """Healed scores of variants of a measurement, each from its own unpruned score on.

    variants: variant -> (profile, changes of the recipe). An ablation that is called like a
    strategy uses it, others the similarity-informed one.
    """
    strategies, requests = [ablation] if ablation in STRATEGIES else ["similarity"], []
    for variant, (varied, changes) in variants.items():
        labels = {"ablation": ablation, "variant": variant}
        requests += unpruned(name, varied, tasks, **labels)
        requests += healed(name, distances, varied, tasks, strategies, sizes, labels, **changes)
    profile, changes = next(iter(variants.values()))
    if changes:  # of the recipe alone, so that all have one profile: the same cuts unhealed, too
        labels = {"ablation": ablation, "variant": "unhealed"}
        requests += cuts(name, distances, profile, tasks, strategies, sizes, **labels)
    return requests


def reasoning(name: str, distances, profile: Profile) -> list[Request]:
    """The likelihood of GSM8K's gold solutions, at every size, unhealed.

    And what models write to its problems, after one layer and at the depths of healings.
    HellaSwag of the models of the ablations only: it takes longer than all else.
    """
    tasks = ["hellaswag", "gsm8k_bpb"] if name in profile.ablation_models else ["gsm8k_bpb"]
    requests = unhealed(name, distances, profile, tasks, ["similarity"])
    requests += unpruned(name, profile, ["gsm8k"])
    sizes = sorted({1, *profile.healed_sizes(distances.num_layers, name)})
    return requests + cuts(name, distances, profile, ["gsm8k"], ["similarity"], sizes)


def stories(name: str, distances, profile: Profile) -> list[Request]:
    """MMLU, HellaSwag and GSM8K's gold solutions of the `question_models`, also with an exit.

    After few layers, and on few questions of HellaSwag. Only in a profile that names the models to
    study: in others it would take more time than it tells.
    """
    if name not in profile.question_models or name not in profile.study_names:
        return []
    count = min(profile.hellaswag_questions, profile.ablation_questions)
    few, tasks = replace(profile, hellaswag_questions=count), ["mmlu", "hellaswag", "gsm8k_bpb"]
    sizes = [size for size in STORY_SIZES if size < distances.num_layers]  # of a small copy, few
    cut = cuts(name, distances, few, tasks, EXIT_AND_SIMILARITY, sizes)
    return unpruned(name, few, tasks) + cut
