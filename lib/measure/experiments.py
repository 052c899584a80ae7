"""What each notebook measures, written down once, as the results that it wants.

Measuring fetches them, planning costs them, the runner splits them into jobs, and the claims judge
their tables. What is asked is what is keyed: whoever gets a `Wanted` needs no profile any more.
Imports neither torch nor transformers.

`distances` is a BlockDistances, or whatever else has num_layers and best_start(size).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from lib.blocks import STRATEGIES, UNPRUNED, blocks_of
from lib.measure import wanted
from lib.measure.wanted import Wanted, score
from lib.models import registry
from lib.profiles import Profile, recipe

QA = ("mmlu", "boolq", "arc_easy")
TASKS = (*QA, "c4")
SHOTS = (0, 1, 3, 5)
ORDERS = (0, 1, 2)  # of the examples; 0: that of the data set; else the seed of a shuffle
SEEDS = (0, 1, 2)


# ---- what a notebook wants of one model -----------------------------------------------------


def unpruned(name: str, profile: Profile, tasks: Sequence[str] = TASKS, **shown) -> list[Wanted]:
    """The scores of the whole model."""
    told = {"fraction": 0.0, "strategy": "none", "treatment": "unpruned"} | shown
    return [score(name, profile, task, UNPRUNED, **told) for task in tasks]


def unhealed(name: str, distances, profile: Profile, tasks: Sequence[str] = TASKS) -> list[Wanted]:
    """Figures 2, 3, 5, 6: the unpruned model, and both strategies at every size."""
    found, sizes = unpruned(name, profile, tasks), profile.block_sizes(distances.num_layers)
    for strategy in STRATEGIES:
        for task in tasks:
            found += _cut(name, distances, profile, [task], strategy, sizes)
    return found


def healed(
    name: str,
    distances,
    profile: Profile,
    tasks: Sequence[str] = TASKS,
    strategies: Sequence[str] = STRATEGIES,
    sizes: Sequence[int] | None = None,
    shown: dict | None = None,
    **changes,
) -> list[Wanted]:
    """The healed scores of figures 1d, 2, 3, 5, 6. changes: of the recipe, as rank=2 or seed=1."""
    cure, found = recipe(name, profile, **changes), []
    sizes = profile.healed_sizes(distances.num_layers) if sizes is None else sizes
    for strategy in strategies:
        found += _cut(name, distances, profile, tasks, strategy, sizes, cure, **shown or {})
    return found


def _cut(
    name: str, distances, profile: Profile, tasks, strategy: str, sizes, cure=None, **shown
) -> list[Wanted]:
    """The scores of a strategy's blocks, one of each size, healed by `cure` if there is one."""
    told = {"strategy": strategy, "treatment": "healed" if cure else "unhealed"} | shown
    return [
        score(name, profile, task, block, cure, fraction=block.size / distances.num_layers, **told)
        for block in blocks_of(strategy, distances, sizes)
        for task in tasks
    ]


def prompts(name: str, distances, profile: Profile) -> list[Wanted]:
    """Figure 7: the number of few-shot examples, and the order of five."""
    number = {f"{k} examples": (profile.with_prompt(k), {}) for k in SHOTS}
    order = {f"order {k}": (profile.with_prompt(max(SHOTS), order=k), {}) for k in ORDERS}
    sizes = profile.healed_sizes(distances.num_layers)
    return _variants(name, distances, {"number": number, "order": order}, QA[::2], sizes)


def seeds(name: str, distances, profile: Profile) -> list[Wanted]:
    """Figure 8: the seed of healing."""
    variants = {f"seed {seed}": (profile, {"seed": seed}) for seed in SEEDS}
    sizes = profile.ablation_sizes(distances.num_layers)
    return _variants(name, distances, {"seeds": variants}, VARIED, sizes)


def ranks(name: str, distances, profile: Profile) -> list[Wanted]:
    """Figure 9: the LoRA rank, of both strategies."""
    variants = {f"rank {rank}": (profile, {"rank": rank}) for rank in profile.ablation_ranks}
    sizes = profile.ablation_sizes(distances.num_layers)
    return _variants(name, distances, dict.fromkeys(STRATEGIES, variants), VARIED, sizes)


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
            found += _cut(name, distances, profile, tasks, strategies[0], sizes, **shown)
    return found


def reasoning(name: str, distances, profile: Profile) -> list[Wanted]:
    """HellaSwag and the likelihood of GSM8K's gold solutions, at every size, unhealed."""
    sizes, found = profile.block_sizes(distances.num_layers), []
    for task in ("hellaswag", "gsm8k_bpb"):
        found += unpruned(name, profile, [task])
        found += _cut(name, distances, profile, [task], "similarity", sizes)
    return found + unpruned(name, profile, ["gsm8k"])


FORMS = {  # a question set, and the tasks that ask it by letter and by content
    "mmlu": {"letters": "mmlu", "content": "mmlu_content"},
    "arc_easy": {"letters": "arc_easy_letters", "content": "arc_easy"},
}


def forms(name: str, distances, profile: Profile) -> list[Wanted]:
    """Letters or content: the same questions asked both ways, after as many solved examples.

    At every second size, and at every second depth where the profile heals, there healed, too;
    columns questions and form.
    """
    profile, layers, found = profile.with_prompt(profile.mmlu_shots), distances.num_layers, []
    sizes, depths = profile.block_sizes(layers)[::2], profile.healed_sizes(layers)
    depths = depths[1::2] or depths
    sizes = sorted({*sizes, *depths})
    for questions, tasks in FORMS.items():
        for form, task in tasks.items():
            shown = {"questions": questions, "form": form}
            found += unpruned(name, profile, [task], **shown)
            for strategy in STRATEGIES:
                found += _cut(name, distances, profile, [task], strategy, sizes, **shown)
            found += healed(name, distances, profile, [task], sizes=depths, shown=shown)
    return found


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
            found += _cut(name, distances, profile, [task], "similarity", sizes, **shown)
    return found


def written(name: str, distances, profile: Profile) -> list[Wanted]:
    """What pruned models write to GSM8K's problems, where the profile heals."""
    sizes = profile.healed_sizes(distances.num_layers)
    return _cut(name, distances, profile, ["gsm8k"], "similarity", sizes)


# ---- by notebook ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What a notebook measures of a model, as jobs: the `results` for each of `models`.

    wave: it builds on the parts of earlier waves. depths: block sizes that are jobs of their own.
    """

    wave: int
    results: Callable[..., list[Wanted]]
    models: Callable[[Profile], Sequence[str]] = lambda profile: profile.models
    depths: Callable[[Profile], Callable[[int], list[int]]] | None = None


def _all_healed(name: str, distances, profile: Profile) -> list[Wanted]:
    return unhealed(name, distances, profile) + healed(name, distances, profile)


PARTS = {
    "01": Part(0, lambda *args: []),
    "02": Part(1, unhealed),
    "03": Part(2, _all_healed, depths=lambda p: p.healed_sizes),
    "05": Part(3, prompts, lambda p: p.ablation_models, lambda p: p.healed_sizes),
    "06": Part(3, seeds, lambda p: p.ablation_models, lambda p: p.ablation_sizes),
    "07": Part(3, ranks, lambda p: p.rank_models, lambda p: p.ablation_sizes),
}
DRAWN = {*PARTS, "04", "13"}  # 04 and 13 measure nothing that others have not measured


@dataclass(frozen=True)
class Job:
    """One notebook for one model, at one number of dropped layers (None: at all it heals)."""

    notebook: str
    model: str
    size: int | None = None

    @property
    def wave(self) -> int:
        """A job builds on those of the same model and an earlier wave."""
        return PARTS[self.notebook].wave

    @property
    def parameters(self) -> dict:
        """What it changes of the notebook's parameters."""
        sizes = {} if self.size is None else {"SIZES": [self.size]}
        return {"MODELS": [self.model]} | sizes

    def wanted(self, distances, profile: Profile) -> list[Wanted]:
        """The results that it must leave, each healing before the first score that needs it."""
        mine = replace(profile, sizes=() if self.size is None else (self.size,))
        found = [wanted.similarity(self.model, profile)]
        for asked in PARTS[self.notebook].results(self.model, distances, mine):
            found += [asked.healing, asked] if asked.recipe else [asked]
        return found


def jobs(profile: Profile, notebooks: Iterable[str]) -> list[Job]:
    """The jobs of `notebooks` (numbers) in the order in which each finds what it builds on.

    A notebook that only draws what others measure has none.
    """
    found = []
    for number in notebooks:
        part = PARTS.get(number)
        for model in part.models(profile) if part else ():
            layers = registry.num_layers(model) if part.depths else None
            sizes = [None] if layers is None else part.depths(profile)(layers)
            found += [Job(number, model, size) for size in sizes]
    return found


def by_model(found: Iterable[Job]) -> list[Job]:
    """The same work in fewer jobs: all depths of a model in one."""
    return list(dict.fromkeys(replace(job, size=None) for job in found))
