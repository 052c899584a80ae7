"""What counts as a verdict: the criterion of each claim, and whether an interval meets it.

The criteria are the rows of claims.csv. The bounds are ours: the paper states its claims in words.
"""

import csv
from dataclasses import asdict, dataclass
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
        bounds = {
            (False, True): f"below {self.most:g}",
            (True, False): f"above {self.least:g}",
            (True, True): f"between {self.least:g} and {self.most:g}",
        }
        return f"{self.statistic}: {bounds[self.least > -np.inf, self.most < np.inf]}"


def _criterion(row: dict[str, str]) -> Criterion:
    least, most = float(row["least"] or -np.inf), float(row["most"] or np.inf)
    heals = {"yes": True, "no": False}[row["heals"]]
    return Criterion(row["statement"], row["statistic"], least, most, heals)


with TABLE.open(encoding="utf-8", newline="") as _rows:
    CRITERIA = {row["claim"]: _criterion(row) for row in csv.DictReader(_rows)}


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
    model: str,
    task: str,
    interval: tuple[float, float, float],
    n: int,
    healed_share: float,
    fewest: int = FEWEST,
) -> Verdict:
    """The verdict of an interval (value, low, high) on a claim, with its reason.

    healed_share: the run's healing as a share of the paper's. fewest: examples that are enough.
    """
    asked = CRITERIA[claim]
    found, why = _compared(asked, interval)
    if n < fewest:
        found, why = "undecided", f"too little data: n = {n}, at least {fewest} are needed"
    elif asked.heals and healed_share < HEALED_ENOUGH and not np.isnan(interval[0]):
        why = f"too little healing: {healed_share:.2g} of the paper's; by itself: {found}"
        found = "undecided"
    return _verdict(claim, model, task, interval, n, found, why)


def _compared(asked: Criterion, interval: tuple[float, float, float]) -> tuple[str, str]:
    value, low, high = interval
    if np.isnan([value, low, high]).any():
        return "undecided", "no value: the statistic is not defined at the depths measured"
    if asked.least < low and high < asked.most:
        return "holds", "the whole interval meets the criterion"
    if high <= asked.least or low >= asked.most:
        return "does not hold", "no part of the interval meets the criterion"
    return "undecided", "too little data: only part of the interval meets the criterion"


def undecided(claim: str, model: str, why: str) -> Verdict:
    """A claim on a model that shows nothing to judge it by."""
    return _verdict(claim, model, "", (np.nan,) * 3, 0, "undecided", why)


def not_run(claim: str) -> Verdict:
    """A claim whose measurements are not there."""
    return _verdict(claim, "", "", (np.nan,) * 3, 0, "not run", "not measured")


def _verdict(claim, model, task, interval, n, found, why) -> Verdict:
    asked = CRITERIA[claim]
    label = registry.label(model) if model else ""
    return Verdict(claim, label, task, asked.statement, asked.text, *interval, n, found, why)


def table(verdicts: list[Verdict]) -> pd.DataFrame:
    """Verdicts as a table, a row each."""
    return pd.DataFrame(map(asdict, verdicts))


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
