"""What counts as a verdict: the criterion of each claim, and whether an interval meets it."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from lib import catalog
from lib.criteria import CRITERIA, Criterion

HEALED_ENOUGH = 0.5  # of the paper's steps: below, no verdict rests on healing
FEWEST = 20  # examples: below, no verdict rests on them
COLOURS = {
    "holds": "tab:green",
    "does not hold": "tab:red",
    "undecided": "tab:orange",
    "not run": "lightgrey",
}


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
        return "undecided", "the statistic is not defined at the depths measured"
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
    label = catalog.label(model) if model else ""
    return Verdict(claim, label, task, asked.statement, asked.text, *interval, n, found, why)


def table(verdicts: list[Verdict]) -> pd.DataFrame:
    """Verdicts as a table, a row each."""
    return pd.DataFrame(map(asdict, verdicts))
