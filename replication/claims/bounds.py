"""What counts as a verdict: the criterion of each claim, which way an interval points, how firmly.

The criteria are the rows of claims.csv. The bounds are ours: the paper states its claims in words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib.models import registry
from replication.analysis.dose import PAPER_TOKENS

TABLE = Path(__file__).with_name("claims.csv")
FEWEST = 20  # examples: below, no verdict rests on them
LIGHTS = {
    "decided": "●",
    "points this way": "◐",
    "can't tell": "○",
    "not testable here": "–",
    "not run": "–",
}
WAYS = {"agrees": "✓", "differs": "✗", "": ""}
Interval = tuple[float, float, float]  # value, low, high
NOTHING: Interval = (np.nan,) * 3


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
    margin: float  # it differs where the interval is below least + margin
    heals: bool  # the statistic is one of healed models

    @property
    def text(self) -> str:
        """The criterion as one sentence."""
        low, high = f"{self.least:g}", f"{self.most:g}"
        between = f"above {low}" if high == "inf" else f"between {low} and {high}"
        return f"{self.statistic}: {f'below {high}' if low == '-inf' else between}"

    def way(self, interval: Interval) -> str:
        """Which way a whole interval points: "agrees", "differs", or "" if only a part does."""
        _, low, high = interval
        if self.least < low and (high < self.most or self.most == np.inf):
            return "agrees"
        return "differs" if high <= self.least + self.margin or low >= self.most else ""

    def inside(self, interval: Interval) -> tuple[float, float]:
        """How far the value is within its nearest bound (outside: below 0), and how far the
        interval reaches towards that bound."""
        value, low, high = interval
        if value - self.least < self.most - value:
            return value - self.least, value - low if value > self.least else high - value
        return self.most - value, high - value if value < self.most else value - low


_rows = pd.read_csv(TABLE, dtype={"claim": str}, true_values=["yes"], false_values=["no"])
_rows = _rows.fillna({"least": -np.inf, "most": np.inf})
CRITERIA = {claim: Criterion(*row) for claim, *row in _rows.itertuples(index=False)}


@dataclass(frozen=True)
class Verdict:
    """A part of a claim judged on one model: a statistic with its 95 % interval.

    claim: a key of CRITERIA. n: how many examples of what. way: "agrees" with the paper or
    "differs", on this model; "" if neither can be said. confidence: "decided"; "points this way"
    where more healing or another definition may turn it; "can't tell" where the interval lies
    across a bound; "not testable here"; "not run". why: the reason, and what would decide it.
    """

    claim: str
    model: str
    task: str
    statement: str
    criterion: str
    statistic: float
    low: float
    high: float
    n: str
    way: str
    confidence: str
    why: str

    @property
    def verdict(self) -> str:
        """Way and confidence in words: "agrees (points this way)"."""
        if not self.direction:
            return self.confidence
        return self.direction + (f" ({self.confidence})" if self.confidence != "decided" else "")

    @property
    def light(self) -> str:
        """The same as two signs."""
        return LIGHTS[self.confidence] + WAYS[self.direction]

    @property
    def numbers(self) -> str:
        """Value and interval, with as many digits as the interval is wide; empty without them."""
        return numbers((self.statistic, self.low, self.high))

    @property
    def position(self) -> float:
        """How far the value lies within its nearest bound, in reaches of the interval towards it.

        Beyond 1 (-1) the whole interval agrees (differs); NaN without an interval.
        """
        if np.isinf(self.statistic):
            return {"agrees": np.inf, "differs": -np.inf}.get(self.direction, 0.0)
        inside, reach = CRITERIA[self.claim].inside((self.statistic, self.low, self.high))
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.float64(inside) / reach)

    @property
    def where(self) -> str:
        """What it was found on."""
        task = "" if self.task in self.n else self.task
        return ", ".join(filter(None, [self.model, task, self.n]))


def numbers(interval: Interval) -> str:
    """Value and interval as text: "0.058 [0.055, 0.060]"."""
    value, low, high = interval
    if np.isnan(value):
        return ""
    width = high - low if np.isfinite(high - low) else 1.0
    digits = 2 if width <= 0 else int(np.clip(np.ceil(1.3 - np.log10(width)), 2, 4))
    told = [f"{x:.{digits}f}" if np.isfinite(x) else "∞" for x in interval]
    return told[0] if width <= 0 else f"{told[0]} [{told[1]}, {told[2]}]"


def judged(
    claim: str,
    model: str = "",
    task: str = "",
    interval: Interval = NOTHING,
    n: Mapping[str, int] | None = None,
    *,
    untestable: str = "",
    unclear: str = "",
    variants: Mapping[str, Interval] | None = None,
    healed_tokens: float = 0,
    hours: float = 0.0,
    fewest: int = FEWEST,
) -> Verdict:
    """The verdict of an interval on a part of a claim; without a model it was not run.

    n: examples by what they are of. untestable, unclear: why nothing can be said of it on this
    model, or by these data. variants: the same by other definitions. healed_tokens: of each healing
    (a claim on healing is decided only with as many as the paper's). hours: that measuring took.
    fewest: examples that are enough.
    """
    asked, counts = CRITERIA[claim], dict(n or {})
    way, confidence, why = "", "can't tell", unclear
    if not model:
        confidence, why = "not run", "not measured"
    elif untestable:
        confidence, why = "not testable here", untestable
    elif unclear:
        pass
    elif min(counts.values(), default=0) < fewest:
        why = f"too few examples: at least {fewest} are needed"
    elif np.isnan(interval).any():
        why = "not defined at the depths measured: too few, or too little is lost there"
    elif not (way := asked.direction(interval)):
        why = _wanting(asked, interval, counts, hours)
    else:
        why = _turns(asked, way, variants or {})
        if asked.heals and not why:
            why = _less_healing(healed_tokens)
        confidence = "points this way" if why else "decided"
    label = registry.label(model) if model else ""
    told = ", ".join(f"{of} n = {count}" for of, count in counts.items())
    head = (claim, label, task, asked.statement, asked.text)
    return Verdict(*head, *interval, told, way, confidence, why)


def _wanting(asked: Criterion, interval: Interval, counts: dict, hours: float) -> str:
    """How many examples would take an interval off a bound, if the value stayed."""
    inside, half = asked.inside(interval)
    if not np.isfinite(half):
        return "part of the interval lies beyond the depths measured"
    times = max((half / inside) ** 2, 1.1) if inside else np.inf
    if times > 100:
        return "the value lies on the bound: no number of examples would decide it"
    most = [f"{of} n = {float(f'{count * times:.2g}'):,.0f}" for of, count in counts.items()]
    took = f", {float(f'{hours * times:.1g}'):g} hours of scoring here" if hours else ""
    return f"the interval lies across a bound: {' and '.join(most)} would decide it{took}"


def _turns(asked: Criterion, way: str, variants: Mapping[str, Interval]) -> str:
    """By which other definitions it does not point the same way, as text."""
    known = {name: i for name, i in variants.items() if not np.isnan(i).any()}
    found = "; ".join(f"{name}: {numbers(i)}" for name, i in known.items() if asked.direction(i) != way)
    return f"turns with the definition ({found})" if found else ""


def _less_healing(tokens: float) -> str:
    """Why more healing might turn a verdict; "" if there were as many tokens as in the paper."""
    if tokens >= PAPER_TOKENS:
        return ""
    return f"healed for {tokens / 1e6:.3g} M tokens; the paper: {PAPER_TOKENS / 1e6:.3g} M"
