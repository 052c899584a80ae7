"""What each notebook measures, written down once, as the results that it wants (11, 12: `studies`).

Measuring fetches them, planning costs them, the runner splits them into jobs, and the claims judge
their tables. What is asked is what is keyed: whoever gets a `Wanted` needs no profile any more.
Imports neither torch nor transformers.

`distances` is a BlockDistances, or whatever else has num_layers and best_start(size).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from lib.blocks import STRATEGIES, UNPRUNED, WITH_EXIT, blocks_of
from replication.measure.wanted import Wanted, score
from replication.profiles import Profile, recipe

QA = ("mmlu", "boolq", "arc_easy")
TASKS = (*QA, "c4")
SHOTS = (0, 1, 3, 5)
ENDS = (0, 5)  # of them, which claim 9 compares
ORDERS = (0, 1, 2)  # of the examples; 0: that of the data set; else the seed of a shuffle
SEEDS = (0, 1, 2)


# ---- what a notebook wants of one model -----------------------------------------------------


def unpruned(name: str, profile: Profile, tasks: Sequence[str] = TASKS, **shown) -> list[Wanted]:
    """The scores of the whole model."""
    told = {"fraction": 0.0, "strategy": "none", "treatment": "unpruned"} | shown
    return [score(name, profile, task, UNPRUNED, **told) for task in tasks]


def unhealed(
    name: str, distances, profile: Profile, tasks=TASKS, strategies=STRATEGIES
) -> list[Wanted]:
    """Figures 2, 3, 5, 6: the unpruned model, and blocks of each strategy at every size."""
    found, sizes = unpruned(name, profile, tasks), profile.block_sizes(distances.num_layers)
    for strategy in strategies:
        for task in tasks:
            found += _cut(name, distances, profile, [task], [strategy], sizes)
    return found


def test_split(name: str, distances, profile: Profile) -> list[Wanted]:
    """ARC-Easy's test split along the similarity-informed curve, unless MMLU tells of the model."""
    if not profile.arc_easy_test_questions or name in profile.main_names:
        return []
    return unhealed(name, distances, profile, ["arc_easy_test"], ["similarity"])


def healed(
    name: str,
    distances,
    profile: Profile,
    tasks: Sequence[str] = TASKS,
    strategies: Sequence[str] | None = None,
    sizes: Sequence[int] | None = None,
    shown: dict | None = None,
    **changes,
) -> list[Wanted]:
    """The healed scores of figures 1d, 2, 3, 5, 6. changes: of the recipe, as rank=2 or seed=1."""
    strategies = profile.healed_strategies(name) if strategies is None else strategies
    sizes = profile.curve_sizes(distances.num_layers, name) if sizes is None else sizes
    how = (strategies, sizes, recipe(name, profile, **changes))
    return _cut(name, distances, profile, tasks, *how, **shown or {})


def _cut(
    name: str, distances, profile: Profile, tasks, strategies, sizes, cure=None, **shown
) -> list[Wanted]:
    """The scores of strategies' blocks, one of each size, healed by `cure` if there is one."""
    told, layers = {"treatment": "healed" if cure else "unhealed"} | shown, distances.num_layers
    return [
        score(name, profile, task, b, cure, fraction=b.size / layers, strategy=strategy, **told)
        for strategy in strategies
        for b in blocks_of(strategy, distances, sizes)
        for task in tasks
    ]


DOSED = ("arc_easy", "c4")


def dose(name: str, distances, profile: Profile) -> list[Wanted]:
    """Dose and response: healed for ever more steps, also a model that was not cut.

    That control (treatment "control") tells how much of healing is adaptation to the text. The
    unpruned and unhealed scores begin each line, at 0 steps. Columns steps and tokens.
    """
    if name not in profile.ablation_models:
        return []
    sizes, begin = profile.dose_sizes(distances.num_layers), {"steps": 0, "tokens": 0}
    found = unpruned(name, profile, DOSED, **begin)
    found += _cut(name, distances, profile, DOSED, STRATEGIES, sizes, **begin)
    for steps in profile.dose_steps if sizes else ():
        cure = recipe(name, profile, steps=steps)
        told = {"steps": steps, "tokens": steps * cure.batch * cure.max_tokens}
        found += _cut(name, distances, profile, DOSED, STRATEGIES, sizes, cure, **told)
        told |= {"fraction": 0.0, "strategy": "none", "treatment": "control"}
        found += [score(name, profile, task, UNPRUNED, cure, **told) for task in DOSED]
    return found


def stacked(name: str, distances, profile: Profile) -> list[Wanted]:
    """Do 4 bits and dropped layers add up? The C4 loss where the profile heals; column format."""
    if name not in profile.ablation_models:
        return []
    sizes, found = profile.healed_sizes(distances.num_layers), []
    for told in ("16 bits", "nf4"):
        how = replace(profile, quantization=told if told == "nf4" else None)
        found += unpruned(name, how, ["c4"], format=told)
        found += _cut(name, distances, how, ["c4"], ["similarity"], sizes, format=told)
    return found


def prompts(name: str, distances, profile: Profile) -> list[Wanted]:
    """Figure 7: the number of few-shot examples, its ENDS also on a test split; and their order."""
    if name not in profile.ablation_models:
        return []
    with_prompt = partial(profile.with_prompt, arc_easy=profile.ablation_arc_easy)
    number = {f"{k} examples": (with_prompt(k), {}) for k in SHOTS}
    order = {f"order {k}": (with_prompt(max(SHOTS), order=k), {}) for k in ORDERS}
    sizes = profile.healed_sizes(distances.num_layers, name)
    asked = _variants(name, distances, {"number": number, "order": order}, QA[::2], sizes)
    if profile.arc_easy_test_questions:
        ends = {f"{k} examples": number[f"{k} examples"] for k in ENDS}
        asked += _variants(name, distances, {"number": ends}, ["arc_easy_test"], sizes)
    return asked


def seeds(name: str, distances, profile: Profile) -> list[Wanted]:
    """Figure 8: the seed of healing."""
    if name not in profile.ablation_models:
        return []
    variants = {f"seed {seed}": (profile, {"seed": seed}) for seed in SEEDS}
    sizes = profile.ablation_sizes(distances.num_layers)
    return _variants(name, distances, {"seeds": variants}, VARIED, sizes)


def ranks(name: str, distances, profile: Profile) -> list[Wanted]:
    """Figure 9: the LoRA rank, of both strategies; also on ARC-Easy's test split."""
    if name not in profile.rank_models:
        return []
    variants = {f"rank {rank}": (profile, {"rank": rank}) for rank in profile.ablation_ranks}
    sizes = profile.ablation_sizes(distances.num_layers)
    asked = _variants(name, distances, dict.fromkeys(STRATEGIES, variants), VARIED, sizes)
    if profile.arc_easy_test_questions:  # of one strategy, whose unhealed score `test_split` has
        asked += _variants(name, distances, {"similarity": variants}, ["arc_easy_test"], sizes)
    return asked


VARIED = ("mmlu", "arc_easy", "c4")


def _variants(name: str, distances, ablations: dict, tasks, sizes) -> list[Wanted]:
    """Healed scores of variants of a measurement, each from its own unpruned score on.

    ablations: ablation -> variant -> (profile, changes of the recipe). An ablation that is called
    like a strategy uses it, others the similarity-informed one.
    """
    found = []
    for ablation, variants in ablations.items():
        strategies = [ablation] if ablation in STRATEGIES else ["similarity"]
        for variant, (profile, changes) in variants.items():
            shown = {"ablation": ablation, "variant": variant}
            found += unpruned(name, profile, tasks, **shown)
            how = (tasks, strategies, sizes, shown)
            found += healed(name, distances, profile, *how, **changes)
        if changes:  # of the recipe: the same cuts unhealed, too
            shown = {"ablation": ablation, "variant": "unhealed"}
            found += _cut(name, distances, profile, tasks, strategies, sizes, **shown)
    return found


def reasoning(name: str, distances, profile: Profile) -> list[Wanted]:
    """HellaSwag and the likelihood of GSM8K's gold solutions, at every size, unhealed."""
    found = unhealed(name, distances, profile, ["hellaswag", "gsm8k_bpb"], ["similarity"])
    return found + unpruned(name, profile, ["gsm8k"])


FORMS = {  # a question set, and the tasks that ask it by letter and by content
    "mmlu": {"letters": "mmlu", "content": "mmlu_content"},
    "arc_easy": {"letters": "arc_easy_letters", "content": "arc_easy"},
}


def forms(name: str, distances, profile: Profile) -> list[Wanted]:
    """Letters or content: the same questions asked both ways, after as many solved examples.

    At every second size, also with an early exit; at every second depth where the profile heals,
    there healed, too. Columns questions and form.
    """
    profile, layers, found = profile.with_prompt(profile.mmlu_shots), distances.num_layers, []
    depths = profile.healed_sizes(layers, name)
    depths = depths[1::2] if len(depths) > 2 else depths
    sizes = sorted({*profile.block_sizes(layers)[::2], *depths})
    for questions, tasks in FORMS.items():
        for form, task in tasks.items():
            shown = {"questions": questions, "form": form}
            found += unpruned(name, profile, [task], **shown)
            found += _cut(name, distances, profile, [task], WITH_EXIT, sizes, **shown)
            found += healed(name, distances, profile, [task], sizes=depths, shown=shown)
    return found


def exits(name: str, distances, profile: Profile) -> list[Wanted]:
    """MMLU and ARC-Easy at every size, also with an early exit, where no layer runs twice."""
    return unhealed(name, distances, profile, QA[::2], WITH_EXIT)


EXITED, SIMILAR = 10, 6  # most layers dropped, by an early exit and by similarity


def biases(name: str, distances, profile: Profile) -> list[Wanted]:
    """MMLU by letter along an early exit and the similarity-informed cut, whose biases are removed.

    Asked are the questions of the other notebooks, and as many others, which confirm what was seen
    in the first. Column questions.
    """
    layers, wanted = distances.num_layers, []
    most = {"early exit": EXITED, "similarity": SIMILAR}
    for questions, task in {"recorded": "mmlu", "other": "mmlu_other"}.items():
        wanted += unpruned(name, profile, [task], questions=questions)
        for strategy, size in most.items():
            sizes = range(1, min(size, layers - 1) + 1)
            wanted += _cut(name, distances, profile, [task], [strategy], sizes, questions=questions)
    return wanted


BOOKS = {"sciq": "sciq_closed", "boolq": "boolq_closed", "squad": "squad_closed"}


def books(name: str, distances, profile: Profile) -> list[Wanted]:
    """Open or closed book: the same questions with and without the passage that answers them.

    Unhealed, similarity-informed, at every second size; columns questions and book.
    """
    sizes, found = profile.block_sizes(distances.num_layers)[::2], []
    for questions, closed in BOOKS.items():
        for book, task in {"open": questions, "closed": closed}.items():
            shown = {"questions": questions, "book": book}
            found += unpruned(name, profile, [task], **shown)
            found += _cut(name, distances, profile, [task], ["similarity"], sizes, **shown)
    return found


def written(name: str, distances, profile: Profile) -> list[Wanted]:
    """What pruned models write to GSM8K's problems, where the profile heals."""
    sizes = profile.healed_sizes(distances.num_layers, name)
    return _cut(name, distances, profile, ["gsm8k"], ["similarity"], sizes)
