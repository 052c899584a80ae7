"""Statistics of the lines of figures 2 to 9 that claims are judged by: (value, low, high), 95 %.

Lines that are compared are so at the depths that all of them have, and paired on the examples.
"""

import numpy as np

from lib.analysis.bootstrap import extreme, interval
from lib.analysis.curves import Curve

BEYOND = 0.15  # of the layers: so far after the middle of its transition a score is to be lost
FEWEST_ON_A_LINE = 6  # depths, 0 among them, for a line to be called straight or bent

Interval = tuple[float, float, float]


def halfway(line: Curve) -> Interval:
    """The fraction where half is lost; infinite: not where measured."""
    return interval(line.crossing(never=line.fractions[-1]), line.crossing(never=np.inf))


def later(first: Curve, second: Curve) -> Interval:
    """How much later `second` has lost half, of another model; both at their own depths."""
    start = first.crossing()
    ends = (second.crossing(never=never) for never in (second.fractions[-1], np.inf))
    return interval(*(end - start for end in ends))


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


def gain(first: Curve, second: Curve) -> Interval:
    """The score of `second` minus that of `first`, mean over the depths of both."""
    return interval(_gain(first, second).mean(1))


def least_gain(first: Curve, second: Curve) -> Interval:
    """The least score of `second` minus that of `first` at any depth of both."""
    return extreme(_gain(first, second), largest=False)


def cost(first: Curve, second: Curve) -> Interval:
    """The share lost by `second` minus that lost by `first`, mean over the depths of both."""
    return interval(_cost(first, second).mean(1))


def largest_cost(first: Curve, second: Curve) -> Interval:
    """The largest share lost by `second` minus that lost by `first` at any depth of both."""
    return extreme(_cost(first, second), largest=True)


def gain_where_flat(first: Curve, second: Curve) -> Interval:
    """The mean gain at the depths, 0 among them, where `first` has not lost half."""
    first, second = first.at(second), second.at(first)
    return interval(_mean_where(first.lost <= 0.5, second.values - first.values))


def largest_change(first: Curve, *others: Curve) -> Interval:
    """Of several lines, the largest mean gain or loss against `first`."""
    means = np.stack([_gain(first, other).mean(1) for other in others], axis=1)
    return extreme(np.abs(means), largest=True)


def least_harm(line: Curve) -> Interval:
    """The unpruned score minus the pruned one, the least at any depth (a loss: with its sign)."""
    change = line.values[:, 1:] - line.values[:, :1]
    return extreme(change if line.is_loss else -change, largest=False)


def relative_rise(first: Curve, second: Curve) -> Interval:
    """How much more the loss `second` rises than `first`, as shares of the unpruned losses."""
    rises = [c.values[:, 1:] / c.values[:, :1] - 1 for c in (first.at(second), second.at(first))]
    return interval((rises[1] - rises[0]).mean(1))


def bend(first: Curve, second: Curve) -> Interval:
    """The share of the variance that a straight line leaves of `second`, over that of `first`."""
    lines = first.at(second), second.at(first)
    if len(lines[0].fractions) < FEWEST_ON_A_LINE:
        return np.nan, np.nan, np.nan
    design = np.stack([np.ones_like(lines[0].fractions), lines[0].fractions])
    unexplained = []
    for values in (line.values for line in lines):
        rest = values - values @ np.linalg.pinv(design) @ design
        unexplained.append(rest.var(1) / values.var(1))
    return interval(unexplained[1] / unexplained[0])


def lost_when_lost(first: Curve, second: Curve) -> Interval:
    """The share that `second` has lost where `first` has lost half."""
    first, second = first.at(second), second.at(first)
    pairs = zip(first.crossing(), second.lost, strict=True)
    return interval(np.array([np.interp(x, first.fractions, lost) for x, lost in pairs]))


def not_adding_up(first: Curve, second: Curve) -> Interval:
    """What `second` loses more than `first` by the same cuts, as a share of what `first` loses."""
    rises = [c.values[:, 1:] - c.values[:, :1] for c in (first.at(second), second.at(first))]
    return interval((rises[1] - rises[0]).mean(1) / rises[0].mean(1))


def _gain(first: Curve, second: Curve) -> np.ndarray:
    return (second.at(first).values - first.at(second).values)[:, 1:]


def _cost(first: Curve, second: Curve) -> np.ndarray:
    return (second.at(first).lost - first.at(second).lost)[:, 1:]


def _mean_where(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean over depths of the values where `mask`; NaN where there is none."""
    with np.errstate(invalid="ignore"):
        return (values * mask).sum(1) / mask.sum(1)
