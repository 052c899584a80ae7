"""The 13 claims in words."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from replication.claims.bounds import Verdict

SENTENCES = Path(__file__).with_name("sentences.csv")
WORDS = {  # a light, and the word for it; the firmest come first
    "●✓": "agrees",
    "◐✓": "points to it",
    "●✗": "differs",
    "◐✗": "points against it",
    "○": "open",
    "–": "not testable",
}
DECIDED = {"●✓": "for it", "●✗": "against it"}


def in_words(**runs: Sequence[Verdict]) -> str:
    """Return the 13 claims, a row each: the verdicts in words, a column a run, by its name.

    A claim has a verdict for each of its parts and models. Where they contradict, those that are
    decided follow.
    """
    head = ["", "the paper says", *(name.replace("_", " ") for name in runs)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for claim, sentence in pd.read_csv(SENTENCES).itertuples(index=False):
        cells = [str(claim), sentence]
        for verdicts in runs.values():
            judging = [v for v in verdicts if v.model and int(v.claim.rstrip("abcdef")) == claim]
            cells.append(together(judging) if judging else "not measured")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def together(verdicts: Sequence[Verdict]) -> str:
    """Return what several verdicts say: the firmest word of WORDS, or "mixed" if they
    contradict."""
    if len({verdict.direction for verdict in verdicts if verdict.direction}) == 2:
        return ". ".join(["**mixed**", *_decided(verdicts)])
    lights = [verdict.light for verdict in verdicts]
    word = next(word for light, word in WORDS.items() if light in lights)
    return f"**{word}**" + " in part" * (word == WORDS["●✓"] and "–" in lights)


def _decided(verdicts: Sequence[Verdict]) -> list[str]:
    """Return which parts of a claim are decided, and which way; a single part is not named."""
    lights = {}
    for verdict in verdicts:
        lights.setdefault(verdict.statement, set()).add(verdict.light)
    texts = []
    for part, part_lights in lights.items():
        ways = [way for light, way in DECIDED.items() if light in part_lights]
        way = "both ways" if len(ways) == 2 else "".join(ways)
        texts += [f"Decided {way}" + f": *{part}*" * (len(lights) > 1)] if way else []
    return texts
