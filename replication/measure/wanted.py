"""One result that is wanted: what it is keyed by. What is asked is the key, apart from the machine.

Whoever gets a `Wanted` needs no profile any more. Imports neither torch nor transformers.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import asdict, dataclass, field, replace

from lib.blocks import Block
from lib.data import sets
from lib.data.prompts import VERSION as PROMPT_VERSION
from lib.evaluation import question_set
from lib.healing.recipe import Recipe
from replication.profiles import Profile
from replication.results import VERSIONS

BLOCK = ("block_start", "block_size")
HEALING = ("model", "revision", "dtype", "quantization", "device", *BLOCK)
HEALING += ("recipe", "healing_version", "healing_data")
MAPS = ("model", "revision", "dtype", "quantization", "device", *BLOCK, "healing_data")
MAPS += ("map_sequences", "map_tokens", "map_batch_tokens", "map_version")
MAP_VERSION = 3  # bumped by hand when the numbers of healing.linear change
LATER = ("decay_steps",)  # fields of a recipe that older keys do not have


@dataclass(frozen=True)
class Wanted:
    """One result: its kind, what it is keyed by apart from the machine, and what its row shows."""

    kind: str
    params: dict
    shown: dict = field(default_factory=dict)

    @property
    def block(self) -> Block:
        """The block that it is of."""
        return Block(self.params.get("block_start", 0), self.params.get("block_size", 0))

    @property
    def recipe(self) -> Recipe | None:
        """The healing that it needs, or is."""
        return Recipe(**self.params["recipe"]) if "recipe" in self.params else None

    @property
    def healing(self) -> "Wanted":
        """The healing that a healed score needs."""
        return Wanted("healing", {k: v for k, v in self.params.items() if k in HEALING})

    @property
    def shorter(self) -> list["Wanted"]:
        """Healings of a half of the steps, a quarter, …: the same until their rates decay."""
        cure, found = self.recipe, []
        while cure and cure.decay_steps > 1:
            steps, decay = cure.steps // 2, cure.decay_steps // 2
            cure = replace(cure, steps=steps, decay_steps=decay)
            found.append(Wanted("healing", self.healing.params | {"recipe": _told(cure)}))
        return found

    @property
    def maps(self) -> "Wanted":
        """The maps that a score with one of them needs."""
        return Wanted("maps", {k: v for k, v in self.params.items() if k in MAPS})


def similarity(name: str, profile: Profile) -> Wanted:
    """A model's angular distances."""
    params = {"model": name, **profile.weights, **sets.identity("c4", profile.source)}
    params |= {"sequences": profile.similarity_sequences, "max_tokens": profile.similarity_tokens}
    params |= {"batch_tokens": profile.batch_tokens, "version": VERSIONS["similarity"]}
    return Wanted("similarity", params)


def score(
    name: str, profile: Profile, task: str, block: Block, cure: Recipe | None = None, **shown
) -> Wanted:
    """The score of one block on one task, healed by `cure` if that is given."""
    params = _of(name, profile, block, cure) | of_task(task, profile)
    tokens = profile.c4_batch_tokens if task == "c4" else profile.batch_tokens
    params |= {"batch_tokens": tokens, "version": VERSIONS["scores"]}
    return Wanted("scores", params, {"profile": profile.name} | shown)


def healing(name: str, profile: Profile, block: Block, cure: Recipe, **shown) -> Wanted:
    """One healing."""
    return Wanted("healing", _of(name, profile, block, cure), shown)


def mapped(name: str, profile: Profile, task: str, block: Block, linear: str, **shown) -> Wanted:
    """The score of one block with the linear map `linear` in its place."""
    params = score(name, profile, task, block).params | sets.healing_identity(profile.source)
    counts = {key: getattr(profile, key) for key in ("map_sequences", "map_tokens")}
    params |= counts | {"map_batch_tokens": profile.batch_tokens}
    params |= {"map": linear, "map_version": MAP_VERSION}
    return Wanted("repair", params, {"profile": profile.name} | shown)


def _of(name: str, profile: Profile, block: Block, cure: Recipe | None) -> dict:
    """What keys a pruned model, healed or not, apart from the machine."""
    told = {"model": name, **profile.weights, "block_start": block.start, "block_size": block.size}
    if cure is None:
        return told
    how = {"recipe": _told(cure), "healing_version": VERSIONS["healing"]}
    return told | how | sets.healing_identity(cure.source)


def _told(cure: Recipe) -> dict:
    """A recipe in a key: without what was added to recipes later, where it is not used."""
    return {name: value for name, value in asdict(cure).items() if value or name not in LATER}


def of_task(name: str, profile: Profile) -> dict:
    """How much is asked of a task, and which data: all that `evaluation.task` needs."""
    set_ = name if name in COUNTS else question_set(name)
    if set_ not in COUNTS:
        raise ValueError(f"Unknown task {name!r}: choose one of {', '.join(COUNTS)}.")
    told = {"task": name, "prompt_version": PROMPT_VERSION} | COUNTS[set_](profile)
    return told | sets.identity(question_set(name), profile.source)


COUNTS = {
    "mmlu": lambda p: _ask(p.mmlu_questions, p.mmlu_shots, p.shot_order, subjects=p.mmlu_subjects),
    "mmlu_other": lambda p: COUNTS["mmlu"](p) | {"other_than": p.mmlu_questions},
    "boolq": lambda p: _ask(p.boolq_questions),
    "arc_easy": lambda p: _ask(p.arc_easy_questions, p.arc_easy_shots, p.shot_order),
    "arc_easy_test": lambda p: _ask(p.arc_easy_test_questions, p.arc_easy_shots),
    "c4": lambda p: {"sequences": p.c4_sequences, "max_tokens": p.c4_tokens},
    "hellaswag": lambda p: _ask(p.hellaswag_questions),
    "gsm8k": lambda p: _ask(p.gsm8k_generated, p.gsm8k_shots, new_tokens=p.gsm8k_new_tokens),
    "sciq": lambda p: _ask(p.book_questions),
    "squad": lambda p: _ask(p.book_questions),
    "gsm8k_bpb": lambda p: _ask(p.gsm8k_questions, p.gsm8k_shots),
}


def _ask(questions: int, shots: int = 0, order: int | None = None, **more) -> dict:
    told = {"questions": questions, "shots": shots} | more
    return told if order is None else told | {"shot_order": order}


def grouped(items: Iterable, key: Callable[..., Hashable]) -> dict:
    """The items by their key, each group and all of them in order."""
    found = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found
