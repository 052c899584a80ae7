"""What each question set asks, how it is read, and how it is scored.

A task's examples are plain dicts of text; an example becomes rows (token sequences), and a score
turns what the model says to them into one number.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lib import prompts
from lib.profiles import Profile

GSM8K_STOPS = ("Question:", "</s>", "<|im_end|>")  # where an answer ends, as in lm-eval


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
class Kind:
    """How a task is read from a profile, encoded and scored."""

    counts: Callable[[Profile], dict]  # how much of it a profile asks for
    build: Callable[[Profile], list[dict]]  # its examples, as text
    rows: Callable[[dict, object], list[Row]]
    score: Callable[[dict, list], tuple[float, float]]  # value and weight
    unit: str  # "accuracy", "nats" or "bits per byte"
    data: str | None = None  # the data set, where it is not called like the task
    generated: bool = False  # the model goes on from each row; its text is scored


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


def _prompt(example: dict, tokenizer) -> list[Row]:
    """One row to go on from."""
    return [Row(tuple(tokenizer(example["prompt"]).input_ids), (), example["group"])]


def _likeliest(example: dict, outputs: list[np.ndarray]) -> tuple[float, float]:
    """1 if the likeliest of the choices is the right one, else 0; and the example's weight."""
    likelihoods = outputs[0] if len(outputs) == 1 else [row.sum() for row in outputs]
    return float(np.argmax(likelihoods) == example["answer"]), example["weight"]


def _loss(example: dict, outputs: list[np.ndarray]) -> tuple[float, float]:
    """Mean negative log-likelihood of the text's tokens, in nats; weighted by their number."""
    return (float(-outputs[0].mean()) if len(outputs[0]) else 0.0), len(outputs[0])


def _likeliest_per_character(example: dict, outputs: list[np.ndarray]) -> tuple[float, float]:
    """The same as `_likeliest` by log-likelihood a character (acc_norm of lm-eval)."""
    lengths = [len(choice) - 1 for choice in example["choices"]]  # without the space before it
    likelihoods = [row.sum() / n for row, n in zip(outputs, lengths, strict=True)]
    return float(np.argmax(likelihoods) == example["answer"]), example["weight"]


def _bits_per_byte(example: dict, outputs: list[np.ndarray]) -> tuple[float, float]:
    """Negative log2-likelihood of the one choice over its bytes; weighted by its bytes."""
    length = len(example["choices"][0].encode())
    return float(-outputs[0].sum() / np.log(2) / length), length


def _exact_match(example: dict, outputs: list[str]) -> tuple[float, float]:
    """1 if the first "#### number" of the text is that of the gold solution (strict-match)."""
    said = re.search(r"#### (-?[0-9.,]+)", outputs[0])
    return float(said is not None and _number(said[1]) == _number(example["answer"])), 1


def _number(answer: str) -> str:
    for ignored in (",", r"\$", r"(?s).*#### ", r"\.$"):
        answer = re.sub(ignored, "", answer)
    return answer.lower()


KINDS = {
    "mmlu": Kind(
        lambda p: {
            "subjects": p.mmlu_subjects,
            "questions": p.mmlu_questions,
            "shots": p.mmlu_shots,
            "shot_order": p.shot_order,
        },
        prompts.mmlu,
        _one_token_choices,
        _likeliest,
        "accuracy",
    ),
    "boolq": Kind(
        lambda p: {"questions": p.boolq_questions, "shots": 0},
        prompts.boolq,
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
        prompts.arc_easy,
        _completions,
        _likeliest,
        "accuracy",
    ),
    "c4": Kind(
        lambda p: {"sequences": p.c4_sequences, "max_tokens": p.c4_tokens},
        prompts.c4,
        _text,
        _loss,
        "nats",
    ),
    "hellaswag": Kind(
        lambda p: {"questions": p.hellaswag_questions, "shots": 0},
        prompts.hellaswag,
        _completions,
        _likeliest_per_character,
        "accuracy",
    ),
    "gsm8k": Kind(
        lambda p: {
            "questions": p.gsm8k_generated,
            "shots": p.gsm8k_shots,
            "new_tokens": p.gsm8k_new_tokens,
        },
        lambda p: prompts.gsm8k(p, p.gsm8k_generated),
        _prompt,
        _exact_match,
        "accuracy",
        generated=True,
    ),
    "gsm8k_bpb": Kind(
        lambda p: {"questions": p.gsm8k_questions, "shots": p.gsm8k_shots},
        lambda p: prompts.gsm8k(p, p.gsm8k_questions),
        _completions,
        _bits_per_byte,
        "bits per byte",
        data="gsm8k",
    ),
}
