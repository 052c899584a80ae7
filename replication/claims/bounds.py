"""What counts as a verdict: the criterion of each claim, the direction and the confidence.

The criteria are the rows of claims.csv. The bounds are ours: the paper states its claims in words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pandas as pd

from lib.models import registry
from replication.analysis.bootstrap import UNDEFINED, Interval
from replication.profiles import PAPER_TOKENS
from replication.tables import FEWEST_TEXTS

TABLE = Path(__file__).with_name("claims.csv")
LIGHTS = {
    "decided": "●",
    "points this way": "◐",
    "depends on the definition": "◇",
    "can't tell": "○",
    "not testable here": "–",
    "not run": "–",
}
SIGNS = {"agrees": "✓", "differs": "✗", "": ""}


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
        """Return the criterion as one sentence."""
        if self.least == -np.inf:
            return f"{self.statistic}: below {self.most:g}"
        if self.most == np.inf:
            return f"{self.statistic}: above {self.least:g}"
        return f"{self.statistic}: between {self.least:g} and {self.most:g}"

    def direction(self, interval: Interval) -> str:
        """Return where a whole interval lies: it "agrees", "differs", or "" if only a part does."""
        _, low, high = interval
        if self.least < low and (high < self.most or self.most == np.inf):
            return "agrees"
        return "differs" if high <= self.least + self.margin or low >= self.most else ""

    def inside(self, interval: Interval) -> tuple[float, float]:
        """Return how far the value is within its nearest bound (outside: below 0), and how far the
        interval reaches towards that bound."""
        value, low, high = interval
        above, below = value - self.least, self.most - value
        if above < below:
            return above, value - low if value > self.least else high - value
        return below, high - value if value < self.most else value - low


_rows = pd.read_csv(TABLE, dtype={"claim": str}, true_values=["yes"], false_values=["no"])
_rows = _rows.fillna({"least": -np.inf, "most": np.inf})
CRITERIA = {claim: Criterion(*row) for claim, *row in _rows.itertuples(index=False)}


@dataclass(frozen=True)
class Verdict:
    """A part of a claim judged on one model: a statistic with its 95 % interval.

    claim: a key of CRITERIA. n: how many examples of what. direction: "agrees" with the paper or
    "differs", on this model; "" if neither can be said. confidence: "decided"; "points this way"
    where more healing, another definition or other draws of the bootstrap may turn it; "depends on
    the definition" where another one decides the other way; "can't tell" where the interval lies
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
    direction: str
    confidence: str
    why: str

    @property
    def light(self) -> str:
        """Return confidence and direction as two signs."""
        return LIGHTS[self.confidence] + SIGNS[self.direction]


def numbers(interval: Interval) -> str:
    """Return value and interval as text: "0.058 [0.055, 0.060]"."""
    value, low, high = interval
    if np.isnan(value):
        return ""
    width = high - low if np.isfinite(high - low) else 1.0
    digits = 2 if width <= 0 else int(np.clip(np.ceil(1.3 - np.log10(width)), 2, 4))
    infinite = {np.inf: "∞", -np.inf: "-∞"}
    value, low, high = (infinite.get(end) or f"{half_up(end, digits)}" for end in interval)
    return value if width <= 0 else f"{value} [{low}, {high}]"


def half_up(number: float, digits: int) -> Decimal:
    """Return a number rounded from its 7 first digits: the last bits of a float do not decide."""
    return Decimal(f"{number:.7g}").quantize(Decimal(10) ** -digits, ROUND_HALF_UP)


def verdict_of(
    claim: str,
    model: str = "",
    task: str = "",
    interval: Interval = UNDEFINED,
    n: Mapping[str, int] | None = None,
    *,
    unjudged: tuple[str, str] | None = None,
    variants: Mapping[str, Interval] | None = None,
    reservation: str = "",
    fewest: int = FEWEST_TEXTS,
) -> Verdict:
    """Return the verdict of an interval on a part of a claim; without a model it was not run.

    n: examples by what they are of. unjudged: the confidence, and why nothing can be said of it on
    this model, or by these data. variants: the same by other definitions. reservation: why it is
    not decided all the same. fewest: examples that are enough.
    """
    criterion, counts = CRITERIA[claim], dict(n or {})
    direction = ""
    if not model:
        unjudged = "not run", "not measured"
    elif not unjudged:
        unjudged = _unjudged(criterion, interval, counts, fewest)
    if unjudged:
        confidence, why = unjudged
    else:
        direction = criterion.direction(interval)
        definitions = {"as defined": interval} | dict(variants or {})
        why = _turns(criterion, direction, definitions) or reservation
        confidence = "points this way" if why else "decided"
        if {criterion.direction(values) for values in definitions.values()} >= {
            "agrees",
            "differs",
        }:
            confidence, direction = "depends on the definition", ""
        undefined = [name for name, values in definitions.items() if np.isnan(values).any()]
        undefined = f"not defined: {', '.join(undefined)}" if undefined else ""
        why = "; ".join(filter(None, [why, undefined]))
    value, low, high = interval
    return Verdict(
        claim=claim,
        model=registry.label(model) if model else "",
        task=task,
        statement=criterion.statement,
        criterion=criterion.text,
        statistic=value,
        low=low,
        high=high,
        n=", ".join(f"{kind} n = {count}" for kind, count in counts.items()),
        direction=direction,
        confidence=confidence,
        why=why,
    )


def _unjudged(
    criterion: Criterion, interval: Interval, counts: dict[str, int], fewest: int
) -> tuple[str, str] | None:
    """Return the confidence and the reason of an interval that has no direction."""
    if min(counts.values(), default=0) < fewest:
        return "can't tell", f"too few examples: at least {fewest} are needed"
    if np.isnan(interval).any():
        why = "not defined at the depths measured: too few, or too little is lost there"
        return "can't tell", why
    if not criterion.direction(interval):
        return "can't tell", _what_would_decide(criterion, interval, counts)
    return None


def rounded(count: float) -> str:
    """Return a number of examples with two digits."""
    return f"{float(f'{count:.2g}'):,.0f}"


def _what_would_decide(criterion: Criterion, interval: Interval, counts: dict[str, int]) -> str:
    """Return how many examples would take an interval off a bound, if the value stayed."""
    inside, reach = criterion.inside(interval)
    if not np.isfinite(reach):
        return "part of the interval lies beyond the depths measured"
    times = max((reach / inside) ** 2, 1.1) if inside else np.inf
    if times > 100:
        return "the value lies on the bound: no number of examples would decide it"
    enough = [f"{kind} n = {rounded(count * times)}" for kind, count in counts.items()]
    return f"the interval lies across a bound: {' and '.join(enough)} would decide it"


def _turns(criterion: Criterion, direction: str, definitions: Mapping[str, Interval]) -> str:
    """Return which definitions do not point the same way, or might not with other draws."""
    turned, uncertain = [], []
    for name, interval in definitions.items():
        outer = getattr(interval, "outer", interval)
        if np.isnan(interval).any():
            continue
        if criterion.direction(interval) != direction:
            turned.append(f"{name}: {numbers(interval)}")
        elif criterion.direction(outer) != direction:
            uncertain.append(f"{name}: up to {numbers(outer)}")
    reasons = {
        "turns with the definition": turned,
        "may turn with other draws of the bootstrap": uncertain,
    }
    return "; ".join(f"{why} ({'; '.join(of)})" for why, of in reasons.items() if of)


def less_healing(tokens: float) -> str:
    """Return why more healing might turn a verdict; "" of as many tokens as in the paper."""
    if tokens >= PAPER_TOKENS:
        return ""
    return f"healed for {tokens / 1e6:.3g} M tokens; the paper: {PAPER_TOKENS / 1e6:.3g} M"
