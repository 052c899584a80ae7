"""What is lost as layers go: the lines of figures 2, 3 and 6, and their statistics.

A line is a Curve. Lines that are compared are so at the depths that all of them have, and paired on
the examples; each statistic comes with its 95 % interval, (value, low, high). The floor of a task
is what the best answer scores that does not read the question.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from lib.analysis.bootstrap import interval, resampled
from lib.models import registry

SIGNAL = 4  # standard errors above its floor that an unpruned score needs to have something to lose
LOSSES = ("c4", "gsm8k_bpb", "squad", "squad_closed")  # tasks where less is better
BEYOND = 0.15  # of the layers: so far after the middle of its transition a score is to be lost
FEWEST_DEPTHS = 4  # for the steps of a line to be compared with its slope

Interval = tuple[float, float, float]


def floor(score) -> float:
    """What the best answer without reading scores; of an older score chance or majority."""
    given = getattr(score, "floor", np.nan)
    if pd.notna(given):
        return float(given)
    return float(np.fmax(*np.array([score.chance, score.majority], float)))


def gap(score) -> float:
    """How far a score is above its floor (a loss: below), in standard errors."""
    above = floor(score) - score.value if score.task in LOSSES else score.value - floor(score)
    with np.errstate(divide="ignore"):
        return float(np.float64(above) / score.standard_error) if above else 0.0


def no_signal(score) -> bool:
    """Whether a measured score is less than SIGNAL standard errors above a floor that is known."""
    return pd.notna(score.value) and pd.notna(floor(score)) and not gap(score) >= SIGNAL


@dataclass(frozen=True)
class Curve:
    """The scores of a model with more and more layers dropped.

    fractions: (D,), of the layers dropped, from 0 on (unpruned). values: (1 + RESAMPLES, D), row 0
    as measured. floor: what no reading scores. gap: how far above it the unpruned model is
    (for a loss: below), in standard errors. n: examples, the same at every depth.
    """

    fractions: np.ndarray
    values: np.ndarray
    floor: float
    gap: float
    n: int
    is_loss: bool  # less is better

    @property
    def lost(self) -> np.ndarray:
        """The share of what lay between the unpruned score and the floor that is lost."""
        start = self.values[:, :1]
        with np.errstate(invalid="ignore", divide="ignore"):
            return (start - self.values) / (start - self.floor)

    def at(self, other: "Curve") -> "Curve":
        """The same at the depths that `other` has too."""
        both = np.isin(self.fractions, other.fractions)
        return replace(self, fractions=self.fractions[both], values=self.values[:, both])

    def crossing(self, share: float = 0.5, never: float = np.nan) -> np.ndarray:
        """The first fraction where more than `share` is lost, in each row; else `never`."""
        beyond = self.lost > share
        return np.where(beyond.any(1), self.fractions[beyond.argmax(1)], never)


def curve(unpruned: pd.Series, points: pd.DataFrame) -> Curve:
    """The curve through an unpruned score and those of the same model and task at some depths."""
    points = points.sort_values("fraction")
    examples = np.stack([np.asarray(e, float) for e in (unpruned.examples, *points.examples)])
    return Curve(
        np.array([0.0, *points.fraction]),
        resampled(examples, np.asarray(unpruned.weights, float)),
        floor(unpruned),
        gap(unpruned),
        int(unpruned.n),
        unpruned.task in LOSSES,
    )


def transitions(scores: pd.DataFrame) -> pd.DataFrame:
    """Claim 1: where does each score fall half way to what knowing nothing scores?

    A row per model, task, strategy and treatment. block_size, fraction: the first depth at which
    more than half of what lay between the unpruned score and the floor (the best answer that reads
    no question) is lost; low, high: its 95 % interval over resampled questions. gap is that
    distance in standard errors of the unpruned score. Missing where no depth has lost half, or
    where the gap is below SIGNAL: nothing to lose. An infinite `high` lies beyond the depths
    measured.
    """
    rows = []
    unpruned = scores[scores.treatment == "unpruned"].set_index(["model", "task"], drop=False)
    pruned = scores[(scores.treatment != "unpruned") & scores.value.notna()]
    lines = ["model", "task", "strategy", "treatment"]
    for key, points in pruned.groupby(lines, sort=False):
        start = unpruned.loc[key[:2]]
        line = curve(start, points)
        value, low, high = halfway(line) if line.gap >= SIGNAL else (np.nan,) * 3
        size = points.block_size[np.isclose(points.fraction, value)]
        rows.append(
            dict(zip(lines, (registry.label(key[0]), *key[1:]), strict=True))
            | {"unpruned": start.value, "floor": line.floor, "gap": line.gap}
            | {"block_size": size.iloc[0] if len(size) else None}
            | {"fraction": value if np.isfinite(value) else None, "low": low, "high": high}
        )
    return pd.DataFrame(rows)


def halfway(line: Curve) -> Interval:
    """The first fraction where half is lost, and its interval; infinite: not where measured."""
    return interval(line.crossing(never=line.fractions[-1]), line.crossing(never=np.inf))


def width(line: Curve) -> Interval:
    """From a quarter lost to three quarters lost, in fractions of the layers."""
    start = line.crossing(0.25)
    ends = (line.crossing(0.75, never) for never in (line.fractions[-1], np.inf))
    return interval(*(end - start for end in ends))


def left_beyond(line: Curve) -> Interval:
    """The mean share that is left at the depths BEYOND the middle of the transition."""
    beyond = line.fractions >= line.crossing()[:, None] + BEYOND
    return interval(_mean_where(beyond, 1 - line.lost))


def shift(first: Curve, second: Curve) -> Interval:
    """How much later `second` has lost half, in fractions of the layers."""
    return interval(second.at(first).crossing() - first.at(second).crossing())


def gain(first: Curve, second: Curve, over: Callable = np.mean) -> Interval:
    """The score of `second` less that of `first`, mean (or least) `over` the depths of both."""
    return interval(over(_gain(first, second), axis=1))


def cost(first: Curve, second: Curve, over: Callable = np.mean) -> Interval:
    """The share lost by `second` less that lost by `first`, mean (or largest) `over` the depths."""
    return interval(over((second.at(first).lost - first.at(second).lost)[:, 1:], axis=1))


def gain_where_flat(first: Curve, second: Curve) -> Interval:
    """The mean gain at the depths, 0 among them, where `first` has not lost half."""
    first, second = first.at(second), second.at(first)
    return interval(_mean_where(first.lost <= 0.5, second.values - first.values))


def largest_change(first: Curve, *others: Curve) -> Interval:
    """Of several lines, the largest mean gain or loss against `first`."""
    means = [np.abs(_gain(first, other).mean(1)) for other in others]
    return interval(np.max(means, axis=0))


def least_harm(line: Curve) -> Interval:
    """The unpruned score less the best pruned one (of a loss: the other way round)."""
    change = line.values[:, 1:] - line.values[:, :1]
    return interval((change if line.is_loss else -change).min(1))


def steepness(line: Curve) -> Interval:
    """The steepest step between neighbouring depths over the slope from end to end; a line: 1."""
    rise, run = np.diff(line.values), np.diff(line.fractions)
    slope = rise.sum(1) / run.sum()
    enough = (len(line.fractions) >= FEWEST_DEPTHS) & (slope > 0)
    return interval(np.where(enough, (rise / run).max(1) / np.where(slope, slope, 1), np.nan))


def lost_when_lost(first: Curve, second: Curve) -> Interval:
    """The share that `second` has lost at the depth where `first` has lost half."""
    first, second = first.at(second), second.at(first)
    there = first.fractions == first.crossing()[:, None]
    return interval(_mean_where(there, second.lost))


def order(ranks: Sequence[float], *lines: Curve) -> Interval:
    """Kendall's correlation of `ranks` with where each line has lost half; 0 if all are equal."""
    fallen = np.stack([line.crossing(never=1.0) for line in lines], axis=1)
    found = [kendalltau(ranks, row).statistic for row in fallen]
    return interval(np.nan_to_num(np.array(found)))


def _gain(first: Curve, second: Curve) -> np.ndarray:
    return (second.at(first).values - first.at(second).values)[:, 1:]


def _mean_where(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean over depths of the values where `mask`; NaN where there is none."""
    with np.errstate(invalid="ignore"):
        return (values * mask).sum(1) / mask.sum(1)
