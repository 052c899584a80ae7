"""What counts as a verdict: the criterion of each claim, and whether an interval meets it.

The criteria are the rows of claims.csv. The bounds are ours: the paper states its claims in words.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib.models import registry

TABLE = Path(__file__).with_name("claims.csv")
HEALED_ENOUGH = 0.5  # of the paper's steps: below, no verdict rests on healing
FEWEST = 20  # examples: below, no verdict rests on them


@dataclass(frozen=True)
class Criterion:
    """A claim of the paper, and between which values a statistic must lie for it to hold.

    Values are fractions of the model's layers, accuracies, or shares of what lies between the
    unpruned model's score and that of knowing nothing ("the way to chance").
    """

    statement: str
    statistic: str  # what is measured, in words
    least: float  # -inf: no bound
    most: float  # inf: no bound
    heals: bool  # the statistic is one of healed models

    @property
    def text(self) -> str:
        """The criterion as one sentence."""
        low, high = f"{self.least:g}", f"{self.most:g}"
        between = f"above {low}" if high == "inf" else f"between {low} and {high}"
        return f"{self.statistic}: {f'below {high}' if low == '-inf' else between}"


_rows = pd.read_csv(TABLE, dtype={"claim": str}, true_values=["yes"], false_values=["no"])
_rows = _rows.fillna({"least": -np.inf, "most": np.inf})
CRITERIA = {claim: Criterion(*row) for claim, *row in _rows.itertuples(index=False)}


@dataclass(frozen=True)
class Verdict:
    """A claim judged on one model (or several): a statistic with its 95 % interval.

    claim: a key of CRITERIA. n: examples (questions, texts, turns). verdict: "holds" if the whole
    interval meets the criterion, "does not hold" if no part of it does, "undecided" otherwise, and
    where there are too few examples or too little healing; "not run" without measurements.
    """

    claim: str
    model: str
    task: str
    statement: str
    criterion: str
    statistic: float
    low: float
    high: float
    n: int
    verdict: str
    why: str

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which values the statistic must lie."""
        return CRITERIA[self.claim].least, CRITERIA[self.claim].most

    @property
    def numbers(self) -> str:
        """Value and interval, as text; empty if there are none."""
        if np.isnan(self.statistic):
            return ""
        found = (self.statistic, self.low, self.high)
        value, low, high = (f"{x:.2f}" if np.isfinite(x) else "∞" for x in found)
        return value if low == high else f"{value} [{low}, {high}]"

    @property
    def where(self) -> str:
        """What it was found on."""
        return ", ".join(filter(None, [self.model, self.task, f"n = {self.n}" if self.n else ""]))


def judged(
    claim: str,
    model: str = "",
    task: str = "",
    interval: tuple[float, float, float] = (np.nan,) * 3,
    n: int = 0,
    healed_share: float = 1.0,
    fewest: int = FEWEST,
    why: str = "",
) -> Verdict:
    """The verdict of an interval (value, low, high) on a claim, with its reason.

    healed_share: the run's healing as a share of the paper's. fewest: examples that are enough.
    why: the reason if there is nothing to judge the claim by; without a model it was not run.
    """
    asked, (_, low, high) = CRITERIA[claim], interval
    found = "undecided" if model else "not run"
    if not why and n < fewest:
        why = f"too little data: n = {n}, at least {fewest} are needed"
    elif not why and np.isnan(interval).any():
        why = "no value: the statistic is not defined at the depths measured"
    elif not why:
        found, why = "undecided", "too little data: only part of the interval meets the criterion"
        if asked.least < low and high < asked.most:
            found, why = "holds", "the whole interval meets the criterion"
        elif high <= asked.least or low >= asked.most:
            found, why = "does not hold", "no part of the interval meets the criterion"
        if asked.heals and healed_share < HEALED_ENOUGH:
            why = f"too little healing: {healed_share:.2g} of the paper's; by itself: {found}"
            found = "undecided"
    label = registry.label(model) if model else ""
    return Verdict(claim, label, task, asked.statement, asked.text, *interval, n, found, why)


def markdown(verdicts: list[Verdict]) -> str:
    """Verdicts as the table of the README."""
    lines = [
        "| | the paper says | measured, and when it holds | value (95 % interval) | verdict |",
        "|---|---|---|---|---|",
    ]
    for v in verdicts:
        value = " ".join(filter(None, [v.numbers, f"({v.where})" if v.where else ""]))
        reason = "" if v.verdict in ("holds", "does not hold") else f": {v.why}"
        cells = [v.claim, v.statement, v.criterion, value, f"**{v.verdict}**{reason}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
