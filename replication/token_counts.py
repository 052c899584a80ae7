"""How many tokens a model reads of texts and tasks, by data/token_counts.json.

`python -m scripts.lengths` has counted them once, so that a plan needs neither data nor tokenizer.
"""

import json
from functools import cache
from math import sqrt
from statistics import fmean, pstdev
from typing import NamedTuple

from replication import paths

LIKE = {"mmlu_other": "mmlu"}  # tasks whose questions are as long as another's
LIKE |= {f"arc_easy_letters_{moved}": "arc_easy_letters" for moved in (1, 2, 3)}
TOKENS = json.loads((paths.DATA / "token_counts.json").read_text(encoding="utf-8"))


class Reading(NamedTuple):
    """What a model reads, in tokens."""

    tokens: float
    context: float  # mean number of tokens that a token attends to
    scored: float  # positions that lm_head runs on
    prefix: float = 0  # tokens of shared prefixes before a batch, per token of it


@cache
def read_texts(sequences: int, max_tokens: int, packed: bool = False) -> Reading:
    """C4 texts, truncated to `max_tokens`, or joined and cut into full sequences."""
    lengths = [max_tokens if packed else min(length, max_tokens) for length in TOKENS["c4"]]
    context = sum(length**2 for length in lengths) / sum(lengths) / 2
    tokens = sequences * fmean(lengths)
    return Reading(tokens, context, tokens - sequences)


def longest_row(sequences: int, max_tokens: int, packed: bool) -> float:
    """Tokens of the longest of a healing's rows: four standard deviations above the mean."""
    most = sequences * max_tokens
    lengths = [min(length, max_tokens) for length in TOKENS["c4"]]
    row = sequences * fmean(lengths) + 4 * sqrt(sequences) * pstdev(lengths)
    return most if packed else min(most, row)


def read_task(params: dict) -> Reading:
    """A task, as the parameters of a score's key describe it."""
    if params["task"] == "c4":
        return read_texts(params["sequences"], params["max_tokens"])
    counts = TOKENS[LIKE.get(params["task"], params["task"])][str(params["shots"])]
    groups, most, own = counts["groups"], counts["questions"], counts["own"]
    prefix = counts["prefix"] / groups if groups else 0
    questions = min(params["questions"], most)
    if "subjects" in params:  # each a group with its own examples
        questions = params["subjects"] * min(params["questions"], most / groups)
        groups = params["subjects"]
    elif groups == most:  # the answers to a question share it
        groups = questions
    tokens, scored = groups * prefix + questions * own, questions * counts["scored"]
    return Reading(tokens, prefix + own / 2, scored, counts["repeated"])


def read_problems(params: dict) -> tuple[int, float]:
    """Problems of GSM8K that a model answers itself, and the tokens of a prompt."""
    counts = TOKENS["gsm8k_bpb"][str(params["shots"])]
    question = counts["own"] - counts["scored"]
    return min(params["questions"], counts["questions"]), counts["prefix"] + question
