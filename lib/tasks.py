"""The tasks, a row each: what is asked of which data, how it is read and scored, what it is called.

Adding a task takes a row here; its prompt is a function of `data/prompts.py`, or one beside its
row. A set of questions that has no row in `data/hub.csv` or `data/assets.csv` stands in the row of
its task, as a `Hub` or a `File`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np

from .data import encoding, prompts, scoring, sets
from .data.encoding import Row

LM_EVAL = "lm_eval:"  # before the name of a task of lm-eval, or its file
CHOICES, TEXTS = encoding.one_token_choices, encoding.completions
SHOTS = ("questions", "shots")
ORDERED = (*SHOTS, "shot_order")


@dataclass(frozen=True)
class TaskSpec:
    """A row of the table: what builds, encodes and scores a task, and what it is called."""

    build: Callable[..., list[dict]]  # its examples as text, given the source and the counts
    data: sets.DataSet  # its set of questions: the name of one that has a row, or a Hub or File
    label: str
    counts: tuple[str, ...] = ("questions",)  # that `build` takes, named as in a result's key
    rows: Callable[[dict, object], list[Row]] = TEXTS
    unit: str = "accuracy"  # or "nats" or "bits per byte"
    score: Callable[[dict, list], tuple[float, float]] | None = None  # value, weight; None: choices
    correct: Callable[[dict, np.ndarray], float] | None = None  # of choices; None: the likeliest
    per_character: bool = False  # their log-likelihoods are compared so (acc_norm of lm-eval)
    has_places: bool = True  # of choices: the best answer at always one place is a baseline
    reads_likeliest: bool = False  # `score` is also given whether a row's tokens are the likeliest
    same_choices: bool = False  # of every question, so that always one of them is a baseline
    generated: bool = False  # the model continues each row; its text is scored
    signal_task: str = ""  # the other task, if any, that tells whether a model can answer this
    version: int = 0  # bumped by hand when this task alone changes

    @property
    def completes(self) -> bool:
        """Whether the choices are texts of their own, not names of what stands in the prompt."""
        return self.rows is encoding.completions or not self.has_places


def multiple_choice(
    data: sets.DataSet,
    read: Callable[[dict], dict],
    label: str,
    form: prompts.Form = prompts.by_content,
    counts: tuple[str, ...] = TaskSpec.counts,
) -> TaskSpec:
    """Return the row of a task of questions and options, as `prompts.multiple_choice` asks them.

    form: `prompts.by_content` compares the texts of the options, `prompts.by_letter` lists them and
    compares letters. counts: ORDERED with solved examples.
    """
    build = partial(
        prompts.multiple_choice,
        data=data,
        read=read,
        form=form,
        most_shots=prompts.MOST_SHOTS if "shots" in counts else 0,
    )
    rows = CHOICES if form is prompts.by_letter else TEXTS
    return TaskSpec(build, data, label, counts, rows)


_specs = {
    "mmlu": TaskSpec(
        prompts.mmlu,
        data="mmlu",
        label="MMLU by letter",
        counts=("subjects", *ORDERED),
        rows=CHOICES,
    ),
    "boolq": TaskSpec(prompts.boolq, data="boolq", label="BoolQ", rows=CHOICES, same_choices=True),
    "arc_easy": TaskSpec(
        prompts.arc_easy, data="arc_easy", label="ARC-Easy by content", counts=ORDERED
    ),
    "arc_easy_test": TaskSpec(
        prompts.arc_easy_test,
        data="arc_easy_test",
        label="ARC-Easy (test) by content",
        counts=SHOTS,
    ),
    "c4": TaskSpec(
        prompts.c4,
        data="c4",
        label="C4 loss in nats",
        counts=("sequences", "max_tokens"),
        rows=encoding.text,
        unit="nats",
        score=scoring.loss,
    ),
    "hellaswag": TaskSpec(
        prompts.hellaswag, data="hellaswag", label="HellaSwag", per_character=True
    ),
    "gsm8k": TaskSpec(
        prompts.gsm8k,
        data="gsm8k",
        label="GSM8K, written",
        counts=(*SHOTS, "new_tokens"),
        rows=encoding.prompt,
        score=scoring.exact_match,
        generated=True,
    ),
    "gsm8k_bpb": TaskSpec(
        prompts.gsm8k,
        data="gsm8k",
        label="GSM8K, gold",
        counts=SHOTS,
        unit="bits per byte",
        score=scoring.bits_per_byte,
    ),
}
TASK_SPECS = MappingProxyType(_specs)  # read only


def register(tasks: Mapping[str, TaskSpec]) -> None:
    """Add tasks to TASK_SPECS, all or none. Raises ValueError if another has the name."""
    for name, spec in tasks.items():
        if _fields(_specs.get(name, spec)) != _fields(spec):
            raise ValueError(f"There is a task {name!r} already: choose another name.")
    _specs.update(tasks)


def _fields(spec: TaskSpec) -> dict:
    """Return the fields of a row. Partial functions, which Python tells apart, by their parts."""
    values = dict(vars(spec))
    if isinstance(spec.build, partial):
        values["build"] = spec.build.func, spec.build.args, spec.build.keywords
    return values


def question_set(name: str) -> str:
    """The set that a task's questions are of, by the start of its name: of mmlu_x mmlu."""
    beginnings = (task for task in TASK_SPECS if f"{name}_".startswith(f"{task}_"))
    known = max(beginnings, key=len, default="")
    if not known:
        return name
    data = TASK_SPECS[known].data
    return data if isinstance(data, str) else known
