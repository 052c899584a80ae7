"""A question as rows: token sequences, with the tokens to score at their last positions."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from . import chats

MOST_TOKENS = 2048  # of a prompt, as in Hendrycks et al.: it has fewer examples if it is longer
WRITTEN_TOGETHER = 32  # answers to GSM8K at once, at least, where memory allows
GSM8K_STOPS = ("Question:", "</s>", "<|im_end|>")  # where an answer ends, as in lm-eval


@dataclass(frozen=True)
class Row:
    """One token sequence. Rows of a group may start alike; what they share is computed once.

    target_ids: for each of the last len(target_ids) positions, the tokens whose log-probability
    there is scored, as many at each. Of a text both are arrays, (T,) and (T, 1).
    num_shots_dropped: solved examples that the prompt would have, but for its length.
    """

    tokens: Sequence[int] | np.ndarray
    target_ids: Sequence[Sequence[int]] | np.ndarray
    group: Hashable = None
    num_shots_dropped: int = 0


def one_token_choices(example: dict, tokenizer) -> list[Row]:
    """One row: the prompt, with each choice's single token as targets at its last position."""
    prompt, num_shots_dropped = prompt_within_limit(example, tokenizer)
    tokens, answers = _continued(prompt, example["choices"], tokenizer)
    if any(len(answer) != 1 for answer in answers):
        raise ValueError(
            f"The tokenizer does not read each of {example['choices']} as one token after the "
            "prompt, so they cannot be compared at one position."
        )
    group = None if example["group"] is None else (example["group"], num_shots_dropped)
    choices = tuple(token for (token,) in answers)
    return [Row(tuple(tokens), (choices,), group, num_shots_dropped)]


def prompt_within_limit(example: dict, tokenizer) -> tuple[str, int]:
    """The prompt, without as many of its last solved examples as make it fit; and their number.

    An example that has `parts` (header, solved examples, question, choices) is fitted by them. If
    it has those of another form, too (`other_parts`), both forms leave out as many as the longer
    one needs. A question that does not fit without any example is read whole.
    """
    if "parts" not in example:
        return example["prompt"], 0
    forms = [example[key] for key in ("parts", "other_parts") if key in example]
    num_shots_dropped = max(_num_shots_over_limit(*parts, tokenizer) for parts in forms)
    header, shots, question, _ = example["parts"]
    return "".join([header, *shots[: len(shots) - num_shots_dropped], question]), num_shots_dropped


def _num_shots_over_limit(
    header: str, shots: tuple, question: str, choices: list[str], tokenizer
) -> int:
    """The number of solved examples that make a prompt with its longest choice too long."""
    longest = max(choices, key=lambda choice: len(tokenizer(choice).input_ids))
    for num_shots_dropped in range(len(shots)):
        whole = "".join([header, *shots[: len(shots) - num_shots_dropped], question, longest])
        if len(tokenizer(whole).input_ids) - 1 <= MOST_TOKENS:  # a choice's last is not read
            return num_shots_dropped
    return len(shots)


def completions(example: dict, tokenizer) -> list[Row]:
    """A row per choice: prompt and choice, of which the last token is not read, only a target."""
    prompt, num_shots_dropped = prompt_within_limit(example, tokenizer)
    start, answers = _continued(prompt, example["choices"], tokenizer)
    group = (example["group"], num_shots_dropped) if num_shots_dropped else example["group"]
    rows = []
    for answer in answers:
        target_ids = tuple((token,) for token in answer)
        rows.append(Row((*start, *answer[:-1]), target_ids, group, num_shots_dropped))
    return rows


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


def text(example: dict, tokenizer) -> list[Row]:
    """One row: a text truncated to max_tokens; targets are all tokens but the first `skipped` (1).

    Of a chat a row for each answer, since only answers count. A text without a target has one row
    without a token.
    """
    ids, spans = chats.tokens(example["text"], tokenizer, example["max_tokens"])
    tokens, first, rows = np.array(ids, np.int64), example.get("skipped", 1), []
    group = example["text"] if len(spans) > 1 else None
    for start, stop in spans:
        targets = tokens[max(start, first) : stop]
        if len(targets):
            read = tokens[: stop - 1]
            read = tuple(read.tolist()) if group else read  # rows of a group are compared
            rows.append(Row(read, targets[:, None], group))
    return rows or [Row(tokens[:0], tokens[:0, None])]


def prompt(example: dict, tokenizer) -> list[Row]:
    """One row to continue."""
    return [Row(tuple(tokenizer(example["prompt"]).input_ids), (), example["group"])]
