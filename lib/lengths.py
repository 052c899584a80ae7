"""How many tokens the data sets have, as measured with the embedded model's tokenizer.

A sample of 584 C4 documents stands for C4; other tokenizers differ by some ten percent.
"""

import json
from dataclasses import dataclass
from functools import cache

from lib import paths


@cache
def _measured() -> dict:
    return json.loads((paths.DATA / "token_counts.json").read_text(encoding="utf-8"))


@cache
def mean(max_tokens: int, alike: int = 1) -> float:
    """Mean tokens of a C4 document truncated to `max_tokens`.

    alike: documents that are padded to the longest of so many.
    """
    lengths = [min(n, max_tokens) for n in _measured()["c4"]]
    count = len(lengths)
    shares = (((i + 1) / count) ** alike - (i / count) ** alike for i in range(count))
    return sum(n * share for n, share in zip(lengths, shares, strict=True))


@cache
def context(max_tokens: int) -> float:
    """Mean number of tokens that a token of such a document attends to."""
    lengths = [min(n, max_tokens) for n in _measured()["c4"]]
    return sum(n * n for n in lengths) / 2 / sum(lengths)


@dataclass(frozen=True)
class Reading:
    """What the unpruned model reads of a task, in tokens; a pruned version the same."""

    tokens: float
    scored: float  # positions that lm_head runs on
    context: float  # mean number of tokens that a token attends to
    held: float = 0  # tokens of shared prefixes whose keys and values are held for every version
    repeated: float = 0  # the same, repeated for the rows of one batch, per token of the batch


def reading(asked: dict) -> Reading:
    """What is read of a task; `asked` is what a result's key says of it (`evaluation.params`)."""
    task = asked["task"]
    if task == "c4":
        length = mean(asked["max_tokens"])
        tokens = asked["sequences"] * length
        return Reading(tokens, tokens - asked["sequences"], context(asked["max_tokens"]))
    found = _measured()[task][str(asked["shots"])]
    groups, most = found["groups"], found["questions"]
    if "subjects" in asked:  # each a group with its own examples
        questions = asked["subjects"] * min(asked["questions"], most / groups)
        groups = asked["subjects"]
    else:
        questions = min(asked["questions"], most)
        groups = questions if groups == most else groups  # the answers to a question share it
    shared = found["prefix"] / found["groups"] if groups else 0
    return Reading(
        tokens=groups * shared + questions * found["own"],
        scored=questions * found["scored"],
        context=shared + found["own"] / 2,
        held=found["held"],
        repeated=found["repeated"],
    )
