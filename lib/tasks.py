"""What each question set asks, how it is read, and how it is scored.

A task's examples are plain dicts of text; an example becomes rows (token sequences), and a score
turns what the model says to them into one number.
"""

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

from lib import prompts

MOST_TOKENS = 2048  # of a prompt, as in Hendrycks et al.: it has fewer examples if it is longer
GSM8K_STOPS = ("Question:", "</s>", "<|im_end|>")  # where an answer ends, as in lm-eval


@dataclass(frozen=True)
class Row:
    """One token sequence. Rows of a group may start alike; what they share is computed once.

    wanted: for each of the last len(wanted) positions, the tokens whose log-probability there is
    asked for. left_out: solved examples that the prompt would have, but for its length.
    """

    tokens: tuple[int, ...]
    wanted: tuple[tuple[int, ...], ...]
    group: Hashable = None
    left_out: int = 0


@dataclass(frozen=True)
class Kind:
    """How a task is built, encoded and scored."""

    build: Callable[..., list[dict]]  # its examples as text, given the source and the counts
    rows: Callable[[dict, object], list[Row]]
    unit: str  # "accuracy", "nats" or "bits per byte"
    score: Callable[[dict, list], tuple[float, float]] | None = None  # value and weight
    compared: Callable[[dict, np.ndarray], np.ndarray] | None = None  # or what decides the choice
    generated: bool = False  # the model goes on from each row; its text is scored

    @property
    def completes(self) -> bool:
        """Whether the choices are texts of their own, not names of what stands in the prompt."""
        return self.rows is _completions


# ---- how each task is read and scored ------------------------------------------------------


def _one_token_choices(example: dict, tokenizer) -> list[Row]:
    """One row: the prompt, asked at its last position for each choice's single token.

    Each choice is read after the prompt's last line only, which is all that bears on its token;
    after the whole prompt where the tokenizer reads the end of that line otherwise by itself.
    """
    tokens, left_out = _fitted(example, tokenizer)
    for cue in (example["prompt"].rpartition("\n")[2], example["prompt"]):
        start, answers = _continued(cue, example["choices"], tokenizer)
        if tokens[-1:] == start[-1:]:
            break
    if tokens[-1:] != start[-1:] or any(len(answer) != 1 for answer in answers):
        raise ValueError(
            f"The tokenizer does not read each of {example['choices']} as one token after the "
            "prompt, so they cannot be compared at one position."
        )
    group = None if example["group"] is None else (example["group"], left_out)
    return [Row(tuple(tokens), (tuple(token for (token,) in answers),), group, left_out)]


def _fitted(example: dict, tokenizer) -> tuple[list[int], int]:
    """Tokens of the prompt, without as many of its solved examples as make it fit, from the last.

    A question that does not fit without any is read whole.
    """
    tokens, left_out = tokenizer(example["prompt"]).input_ids, 0
    header, shots, question = example.get("parts", ("", (), ""))
    while len(tokens) > MOST_TOKENS and left_out < len(shots):
        left_out += 1
        kept = "".join(shots[: len(shots) - left_out])
        tokens = tokenizer(header + kept + question).input_ids
    return tokens, left_out


def _completions(example: dict, tokenizer) -> list[Row]:
    """A row a choice: prompt and choice, asked for the choice's tokens (its last is not read)."""
    prompt, answers = _continued(example["prompt"], example["choices"], tokenizer)
    return [
        Row((*prompt, *answer[:-1]), tuple((token,) for token in answer), example["group"])
        for answer in answers
    ]


def _continued(prompt: str, choices: list[str], tokenizer) -> tuple[list[int], list[list[int]]]:
    """The tokens of the prompt, and those of each choice after it."""
    start, *wholes = tokenizer([prompt, *(prompt + choice for choice in choices)]).input_ids
    for choice, whole in zip(choices, wholes, strict=True):
        if whole[: len(start)] != start or len(whole) == len(start):
            raise ValueError(
                f"The tokenizer reads the end of the prompt otherwise where {choice!r} follows it, "
                "so that the choice has no tokens of its own to be scored."
            )
    return start, [whole[len(start) :] for whole in wholes]


def _text(example: dict, tokenizer) -> list[Row]:
    """One row: a text truncated to max_tokens, asked for each token but the first."""
    ids = tokenizer(example["text"], truncation=True, max_length=example["max_tokens"]).input_ids
    return [Row(tuple(ids[:-1]), tuple((t,) for t in ids[1:]))]


def _prompt(example: dict, tokenizer) -> list[Row]:
    """One row to go on from."""
    return [Row(tuple(tokenizer(example["prompt"]).input_ids), (), example["group"])]


def likelihoods(outputs: list[np.ndarray]) -> np.ndarray:
    """The log-likelihood of each choice in nats: tokens of one position, or a row a choice."""
    return np.array(outputs[0] if len(outputs) == 1 else [row.sum() for row in outputs], float)


def _whole(example: dict, found: np.ndarray) -> np.ndarray:
    """Choices are compared by their log-likelihood."""
    return found


def _per_character(example: dict, found: np.ndarray) -> np.ndarray:
    """By log-likelihood a character, without the space before the choice (acc_norm of lm-eval)."""
    return found / [len(choice) - 1 for choice in example["choices"]]


def _loss(example: dict, outputs: list[np.ndarray]) -> tuple[float, float]:
    """Mean negative log-likelihood of the text's tokens, in nats; weighted by their number."""
    return (float(-outputs[0].mean()) if len(outputs[0]) else 0.0), len(outputs[0])


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
    "mmlu": Kind(prompts.mmlu, _one_token_choices, "accuracy", compared=_whole),
    "boolq": Kind(prompts.boolq, _one_token_choices, "accuracy", compared=_whole),
    "arc_easy": Kind(prompts.arc_easy, _completions, "accuracy", compared=_whole),
    "c4": Kind(prompts.c4, _text, "nats", _loss),
    "hellaswag": Kind(prompts.hellaswag, _completions, "accuracy", compared=_per_character),
    "gsm8k": Kind(prompts.gsm8k, _prompt, "accuracy", _exact_match, generated=True),
    "gsm8k_bpb": Kind(prompts.gsm8k, _completions, "bits per byte", _bits_per_byte),
}
