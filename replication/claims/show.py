"""Verdicts as tables: every one, and the 13 claims in words."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from replication.claims.bounds import Verdict

SENTENCES = Path(__file__).with_name("sentences.csv")
COUNTED = {  # a light, and the word for it; the firmest come first
    "●✓": "agrees",
    "◐✓": "points to it",
    "●✗": "differs",
    "◐✗": "points against it",
    "○": "open",
    "–": "not testable",
}
SIDES = {"for": ("●✓", "◐✓"), "against": ("●✗", "◐✗")}  # decided, pointing there
SIDES |= {"open": ("○",), "not testable": ("–",)}


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Return every verdict as a row of a table."""
    lines = [
        "| | the paper says | measured, and when it holds | value (95 % interval) | verdict |",
        "|---|---|---|---|---|",
    ]
    for verdict in verdicts:
        judged_on = f"({verdict.judged_on})" if verdict.judged_on else ""
        reason = f": {verdict.why}" if verdict.why else ""
        cells = [
            verdict.claim,
            verdict.statement,
            verdict.criterion,
            " ".join(filter(None, [verdict.numbers, judged_on])),
            f"{verdict.light} **{verdict.verdict}**{reason}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def in_words(verdicts: Sequence[Verdict]) -> str:
    """Return the 13 claims, a row each: the verdict in words.

    Verdicts are counted: a claim has one for each of its parts and models.
    """
    lines = ["| | the paper says | here |", "|---|---|---|"]
    for claim, sentence in pd.read_csv(SENTENCES).itertuples(index=False):
        of_claim = [v for v in verdicts if v.model and int(v.claim.rstrip("abcde")) == claim]
        here = f"**{together(of_claim)}**: {_counts(of_claim)}" if of_claim else "not measured"
        lines.append(f"| {claim} | {sentence} | {here} |")
    return "\n".join(lines) + "\n"


def _counts(verdicts: Sequence[Verdict]) -> str:
    """Return how many verdicts are on each of SIDES, and how many of them are decided."""
    lights = [verdict.light for verdict in verdicts]
    counts = []
    for side, of_side in SIDES.items():
        count = sum(light in of_side for light in lights)
        decided = lights.count(of_side[0]) if len(of_side) > 1 else 0
        text = f"{count} {side}" + (f" ({decided} decided)" if decided else "")
        counts += [text] if count else []
    return ", ".join(counts)


def together(verdicts: Sequence[Verdict]) -> str:
    """Return what several verdicts say: the firmest word of COUNTED, or "mixed" if they
    contradict."""
    if len({verdict.direction for verdict in verdicts if verdict.direction}) == 2:
        return "mixed"
    lights = {verdict.light for verdict in verdicts}
    return next(word for light, word in COUNTED.items() if light in lights)
