"""Statistics of one line of a figure or several, each with its 95 % interval.

Lines are transitions.Curve; those that are compared are so at the depths that all of them have, and
paired on the examples. Every function returns (value, low, high).
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import kendalltau

from lib.intervals import interval
from lib.transitions import Curve

BEYOND = 0.15  # of the layers: so far after the middle of its transition a score is to be lost
FEWEST_DEPTHS = 4  # for the steps of a line to be compared with its slope

Interval = tuple[float, float, float]


def width(line: Curve) -> Interval:
    """From a quarter lost to three quarters lost, in fractions of the layers."""
    start = line.crossing(0.25)
    ends = (line.crossing(0.75, never) for never in (line.deepest, np.inf))
    return interval(*(end - start for end in ends))


def left_beyond(line: Curve) -> Interval:
    """The mean share that is left at the depths BEYOND the middle of the transition."""
    beyond = line.fractions >= line.crossing()[:, None] + BEYOND
    return interval(_mean_where(beyond, 1 - line.lost))


def shift(first: Curve, second: Curve) -> Interval:
    """How much later `second` has lost half, in fractions of the layers."""
    return interval(second.at(first).crossing() - first.at(second).crossing())


def mean_gain(first: Curve, second: Curve) -> Interval:
    """The score of `second` less that of `first`, mean over depths."""
    return interval(_gain(first, second).mean(1))


def least_gain(first: Curve, second: Curve) -> Interval:
    """The smallest of these differences."""
    return interval(_gain(first, second).min(1))


def mean_cost(first: Curve, second: Curve) -> Interval:
    """The share lost by `second` less that lost by `first`, mean over depths."""
    return interval(_cost(first, second).mean(1))


def largest_cost(first: Curve, second: Curve) -> Interval:
    """The largest of these differences."""
    return interval(_cost(first, second).max(1))


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


def _cost(first: Curve, second: Curve) -> np.ndarray:
    return (second.at(first).lost - first.at(second).lost)[:, 1:]


def _mean_where(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean over depths of the values where `mask`; NaN where there is none."""
    with np.errstate(invalid="ignore"):
        return (values * mask).sum(1) / mask.sum(1)
