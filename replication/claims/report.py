"""The 13 claims in words."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from replication.claims.bounds import Verdict

SENTENCES = Path(__file__).with_name("sentences.csv")
WORDS = {  # a light, and the word for it; the firmest come first
    "●✓": "holds",
    "◐✓": "points to it",
    "●✗": "fails",
    "◐✗": "points against it",
    "◇": "depends on the definition",
    "○": "open",
    "–": "not testable",
}


def in_words(**runs: Sequence[Verdict]) -> str:
    """Return the 13 claims, a row each: the verdicts in words, a column a run, by its name.

    A claim has a verdict for each of its parts and models. Where they contradict, the parts that
    are decided follow.
    """
    head = ["", "the paper says", *(name.replace("_", " ") for name in runs)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for claim, sentence in pd.read_csv(SENTENCES).itertuples(index=False):
        cells = [str(claim), sentence]
        for verdicts in runs.values():
            judging = [v for v in verdicts if int(v.claim.rstrip("abcdef")) == claim]
            is_measured = any(verdict.model for verdict in judging)
            cells.append(together(judging) if is_measured else "not measured")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def together(verdicts: Sequence[Verdict]) -> str:
    """Return what several verdicts say: the firmest word of WORDS, or "mixed" if they contradict.

    A claim holds in part where some of its parts are open, not testable or not measured.
    """
    if len({verdict.direction for verdict in verdicts if verdict.direction}) == 2:
        return ". ".join(["**mixed**", *_decided(verdicts)])
    lights = [verdict.light for verdict in verdicts]
    word = next(word for light, word in WORDS.items() if light in lights)
    in_part = word == WORDS["●✓"] and not {"○", "–"}.isdisjoint(lights)
    return f"**{word}**" + " in part" * in_part


def _decided(verdicts: Sequence[Verdict]) -> list[str]:
    """Return which parts of a claim hold or fail; a single part is not named."""
    parts = {}
    for verdict in verdicts:
        parts.setdefault(verdict.statement, []).append(verdict)
    texts = []
    for part, of_part in parts.items():
        way = _way(of_part)
        texts += [way + f": *{part}*" * (len(parts) > 1)] if way else []
    return texts


def _way(verdicts: Sequence[Verdict]) -> str:
    """Return whether a part holds or fails where it is decided; empty where it is nowhere."""
    holds, fails = ({v.model for v in verdicts if v.light == light} for light in ("●✓", "●✗"))
    if holds and fails:
        where = (
            "on one task, fails on another" if holds & fails else "in one model, fails in another"
        )
        return f"Holds {where}"
    return "Holds" if holds else "Fails" if fails else ""
