"""The paper's evaluations as log-probabilities of wanted tokens at the last positions read.

A task has examples; an example becomes rows (token sequences with the tokens asked for at their
last positions); a score turns the log-probabilities of an example's rows into one number.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lib import data
from lib.profiles import Profile

PROMPT_VERSION = 1  # bumped by hand when a prompt changes
MOST_SHOTS = 5


@dataclass(frozen=True)
class Row:
    """One token sequence. Rows of a group may start alike; what they share is computed once.

    wanted: for each of the last len(wanted) positions, the tokens whose log-probability there is
    asked for.
    """

    tokens: tuple[int, ...]
    wanted: tuple[tuple[int, ...], ...]
    group: int | str | None = None


@dataclass(frozen=True)
class Task:
    """The examples of one data set, of the kind `name` (a key of KINDS)."""

    name: str
    examples: tuple[dict, ...]

    def rows(self, tokenizer) -> list[list[Row]]:
        """The rows of each example."""
        encode = KINDS[self.name].rows
        return [encode(example, tokenizer) for example in self.examples]

    def scores(self, outputs: list[list[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        """Value and weight of each example, from the log-probabilities of its rows.

        The weights make the mean over examples the mean over MMLU's subjects, or C4's tokens.
        """
        score = KINDS[self.name].score
        pairs = [score(*pair) for pair in zip(self.examples, outputs, strict=True)]
        values, weights = np.array(pairs, dtype=float).T
        return values, weights

    def chance(self, vocab_size: int) -> float:
        """What guessing scores: the mean of one in the number of choices; ln V for the loss."""
        if KINDS[self.name].unit == "nats":
            return float(np.log(vocab_size))
        guesses = [1 / len(example["choices"]) for example in self.examples]
        return float(np.average(guesses, weights=[e["weight"] for e in self.examples]))

    @property
    def majority(self) -> float | None:
        """What always giving the commonest answer scores, where answers mean the same (BoolQ)."""
        if self.name != "boolq":
            return None
        return float(np.bincount([e["answer"] for e in self.examples]).max() / len(self.examples))


@dataclass(frozen=True)
class Kind:
    """How a task is read from a profile, encoded and scored."""

    counts: Callable[[Profile], dict]  # how much of it a profile asks for
    build: Callable[[Profile], list[dict]]  # its examples, as text
    rows: Callable[[dict, object], list[Row]]
    score: Callable[[dict, list[np.ndarray]], tuple[float, float]]  # value and weight
    unit: str  # "accuracy" or "nats"


def task(name: str, profile: Profile) -> Task:
    """The task `name` (a key of KINDS) with as many examples as `profile` says."""
    return Task(name, tuple(_kind(name).build(profile)))


def params(name: str, profile: Profile) -> dict:
    """What a result's key says of a task; reads no data."""
    described = {"task": name, "prompt_version": PROMPT_VERSION}
    return described | _kind(name).counts(profile) | data.identity(name, profile.source)


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise ValueError(f"Unknown task {name!r}: choose one of {', '.join(KINDS)}.")
    return KINDS[name]


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error (of a ratio estimator; for equal weights the usual one)."""
    share = weights / weights.sum()
    mean = float(share @ values)
    n = len(values)
    spread = n / (n - 1) * (share**2 @ (values - mean) ** 2) if n > 1 else np.nan
    return mean, float(np.sqrt(spread))


# ---- what each task asks, as text ----------------------------------------------------------


def _mmlu(profile: Profile) -> list[dict]:
    """The prompt of Hendrycks et al.: header, `shots` solved examples, the question."""
    subjects, shots = profile.mmlu_subjects, profile.mmlu_shots
    examples = []
    for subject, rows in data.mmlu(profile.source, subjects, profile.mmlu_questions).items():
        prefix = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
        prefix = prefix.replace("_", " ")
        for shot in _ordered(rows["dev"][:shots], profile.shot_order):
            prefix += f"{_lettered(shot)} {'ABCD'[shot['answer']]}\n\n"
        examples += [
            {
                "prompt": prefix + _lettered(row),
                "choices": [" A", " B", " C", " D"],
                "answer": row["answer"],
                "group": subject,
                "weight": 1 / len(rows["test"]),
            }
            for row in rows["test"]
        ]
    return examples


def _lettered(row: dict) -> str:
    choices = "".join(
        f"{letter}. {text}\n" for letter, text in zip("ABCD", row["choices"], strict=True)
    )
    return f"{row['question'].strip()}\n{choices}Answer:"


def _boolq(profile: Profile) -> list[dict]:
    rows = data.boolq(profile.source, profile.boolq_questions)
    return [
        {
            "prompt": f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:",
            "choices": [" No", " Yes"],
            "answer": int(row["answer"]),
            "group": None,
            "weight": 1,
        }
        for row in rows
    ]


def _arc_easy(profile: Profile) -> list[dict]:
    """Question and answer; the solved examples before them, if any, are never scored."""
    shots, scored = data.arc_easy(profile.source, profile.arc_easy_questions, MOST_SHOTS)
    prefix = ""
    for row in _ordered(shots[: profile.arc_easy_shots], profile.shot_order):
        answer = row["choices"]["text"][row["choices"]["label"].index(row["answerKey"])]
        prefix += f"Question: {row['question']}\nAnswer: {answer}\n\n"
    return [
        {
            "prompt": f"{prefix}Question: {row['question']}\nAnswer:",
            "choices": [f" {text}" for text in row["choices"]["text"]],
            "answer": row["choices"]["label"].index(row["answerKey"]),
            "group": "all" if prefix else row["id"],
            "weight": 1,
        }
        for row in scored
    ]


def _ordered(shots: list[dict], order: int) -> list[dict]:
    """The solved examples in the order of the data set (0), or shuffled by the seed `order`."""
    return random.Random(order).sample(shots, len(shots)) if order else shots


def _c4(profile: Profile) -> list[dict]:
    texts = data.c4("validation", profile.source, profile.c4_sequences)
    return [{"text": text, "max_tokens": profile.c4_tokens} for text in texts]


# ---- how each task is read and scored ------------------------------------------------------


def _one_token_choices(example: dict, tokenizer) -> list[Row]:
    """One row: the prompt, asked at its last position for each choice's single token."""
    prompt, *wholes = _encoded(example, tokenizer)
    answers = [whole[len(prompt) :] for whole in wholes]
    if any(len(answer) != 1 for answer in answers):
        raise ValueError(
            f"The tokenizer does not read each of {example['choices']} as one token after the "
            "prompt, so they cannot be compared at one position."
        )
    return [Row(tuple(prompt), (tuple(token for (token,) in answers),), example["group"])]


def _completions(example: dict, tokenizer) -> list[Row]:
    """A row a choice: prompt and choice, asked for the choice's tokens (its last is not read)."""
    prompt, *wholes = _encoded(example, tokenizer)
    return [
        Row(tuple(whole[:-1]), tuple((t,) for t in whole[len(prompt) :]), example["group"])
        for whole in wholes
    ]


def _encoded(example: dict, tokenizer) -> list[list[int]]:
    """The tokens of the prompt, and of the prompt followed by each choice."""
    prompt = example["prompt"]
    return tokenizer([prompt, *(prompt + choice for choice in example["choices"])]).input_ids


def _text(example: dict, tokenizer) -> list[Row]:
    """One row: a text truncated to max_tokens, asked for each token but the first."""
    ids = tokenizer(example["text"], truncation=True, max_length=example["max_tokens"]).input_ids
    return [Row(tuple(ids[:-1]), tuple((t,) for t in ids[1:]))]


def _likeliest(example: dict, outputs: list[np.ndarray]) -> tuple[float, float]:
    """1 if the likeliest of the choices is the right one, else 0; and the example's weight."""
    likelihoods = outputs[0] if len(outputs) == 1 else [row.sum() for row in outputs]
    return float(np.argmax(likelihoods) == example["answer"]), example["weight"]


def _loss(example: dict, outputs: list[np.ndarray]) -> tuple[float, float]:
    """Mean negative log-likelihood of the text's tokens, in nats; weighted by their number."""
    return (float(-outputs[0].mean()) if len(outputs[0]) else 0.0), len(outputs[0])


KINDS = {
    "mmlu": Kind(
        lambda p: {
            "subjects": p.mmlu_subjects,
            "questions": p.mmlu_questions,
            "shots": p.mmlu_shots,
            "shot_order": p.shot_order,
        },
        _mmlu,
        _one_token_choices,
        _likeliest,
        "accuracy",
    ),
    "boolq": Kind(
        lambda p: {"questions": p.boolq_questions, "shots": 0},
        _boolq,
        _one_token_choices,
        _likeliest,
        "accuracy",
    ),
    "arc_easy": Kind(
        lambda p: {
            "questions": p.arc_easy_questions,
            "shots": p.arc_easy_shots,
            "shot_order": p.shot_order,
        },
        _arc_easy,
        _completions,
        _likeliest,
        "accuracy",
    ),
    "c4": Kind(
        lambda p: {"sequences": p.c4_sequences, "max_tokens": p.c4_tokens},
        _c4,
        _text,
        _loss,
        "nats",
    ),
}
