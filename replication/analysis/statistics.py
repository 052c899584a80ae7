"""Statistics of the lines of figures 2 to 9 that claims are judged by: (value, low, high), 95 %.

Lines that are compared are so at the depths that all of them have, and paired on the examples.
"""

import numpy as np

from replication.analysis.bootstrap import ci95, ci95_max
from replication.analysis.curves import Curve

BEYOND = 0.15  # of the layers: so far after the middle of its transition a score is to be lost
FEWEST_ON_A_LINE = 6  # depths, 0 among them, for a line to be called straight or bent
JUMP = 0.15  # share of its variance that a straight line leaves of a loss that jumps

Interval = tuple[float, float, float]


def halfway(line: Curve) -> Interval:
    """The fraction where half is lost; infinite: not where measured."""
    return ci95(line.crossing(never=line.fractions[-1]), line.crossing(never=np.inf))


def later(first: Curve, second: Curve) -> Interval:
    """How much later `second` has lost half, of another model; both at their own depths."""
    start = first.crossing()
    ends = (second.crossing(never=never) for never in (second.fractions[-1], np.inf))
    return ci95(*(end - start for end in ends))


def width(line: Curve) -> Interval:
    """From a quarter lost to three quarters lost, in fractions of the layers."""
    start = line.crossing(0.25)
    ends = (line.crossing(0.75, never) for never in (line.fractions[-1], np.inf))
    return ci95(*(end - start for end in ends))


def left_beyond(line: Curve) -> Interval:
    """The mean share that is left at the depths BEYOND the middle of the transition."""
    beyond = line.fractions >= line.crossing()[:, None] + BEYOND
    return ci95(_mean_where(beyond, 1 - line.fraction_lost))


def shift(first: Curve, second: Curve) -> Interval:
    """How much later `second` has lost half, in fractions of the layers."""
    return ci95(second.at(first).crossing() - first.at(second).crossing())


def gain(first: Curve, second: Curve) -> Interval:
    """The score of `second` minus that of `first`, mean over the depths of both."""
    return ci95(_gain(first, second).mean(1))


def least_gain(first: Curve, second: Curve) -> Interval:
    """The least score of `second` minus that of `first` at any depth of both.

    A depth where both are one measurement, as where two strategies choose the same block, counts
    for neither: there the difference is 0 in every resample.
    """
    gains = _gain(first, second)
    return ci95_max(gains[:, (gains != 0).any(axis=0)], largest=False)


def cost(first: Curve, second: Curve) -> Interval:
    """The share lost by `second` minus that lost by `first`, mean over the depths of both."""
    return ci95(_cost(first, second).mean(1))


def largest_cost(first: Curve, second: Curve) -> Interval:
    """The largest share lost by `second` minus that lost by `first` at any depth of both.

    Depths where both are one measurement do not count, as in `least_gain`.
    """
    costs = _cost(first, second)
    return ci95_max(costs[:, (costs != 0).any(axis=0)], largest=True)


def gain_where_flat(first: Curve, second: Curve) -> Interval:
    """The mean gain at the depths, 0 among them, where `first` has not lost half."""
    first, second = first.at(second), second.at(first)
    return ci95(_mean_where(first.fraction_lost <= 0.5, second.values - first.values))


def largest_change(first: Curve, *others: Curve) -> Interval:
    """Of several lines, the largest mean gain or loss against `first`."""
    means = np.stack([_gain(first, other).mean(1) for other in others], axis=1)
    return ci95_max(np.abs(means), largest=True)


def least_harm(line: Curve) -> Interval:
    """The unpruned score minus the pruned one, the least at any depth (a loss: with its sign)."""
    change = line.values[:, 1:] - line.values[:, :1]
    return ci95_max(change if line.is_loss else -change, largest=False)


def relative_rise(first: Curve, second: Curve) -> Interval:
    """How much more the loss `second` rises than `first`, as shares of the unpruned losses."""
    rises = [c.values[:, 1:] / c.values[:, :1] - 1 for c in (first.at(second), second.at(first))]
    return ci95((rises[1] - rises[0]).mean(1))


def bend(first: Curve, second: Curve) -> Interval:
    """The share of the variance of `second` that a straight line leaves, at the depths of both."""
    return ci95(_unexplained(second.at(first)))


def no_jump(first: Curve, second: Curve) -> str:
    """Why `second` cannot be said to have no jump: `first` has none either; "" if it has one."""
    share = _unexplained(first.at(second))[0]
    if np.isnan(share) or share >= JUMP:
        return ""
    return f"unhealed, the loss does not jump: a straight line leaves {share:.2f} of its variance"


def _unexplained(line: Curve) -> np.ndarray:
    """The share of the variance over depths that a straight line leaves, in each row.

    NaN where there are too few depths to tell a bend.
    """
    if len(line.fractions) < FEWEST_ON_A_LINE:
        return np.full(len(line.values), np.nan)
    design = np.stack([np.ones_like(line.fractions), line.fractions])
    rest = line.values - line.values @ np.linalg.pinv(design) @ design
    return rest.var(1) / line.values.var(1)


def lost_when_lost(first: Curve, second: Curve) -> Interval:
    """The share that `second` has lost where `first` has lost half."""
    first, second = first.at(second), second.at(first)
    pairs = zip(first.crossing(), second.fraction_lost, strict=True)
    return ci95(np.array([np.interp(x, first.fractions, lost) for x, lost in pairs]))


def not_adding_up(first: Curve, second: Curve) -> Interval:
    """What `second` loses more than `first` by the same cuts, as a share of what `first` loses."""
    rises = [c.values[:, 1:] - c.values[:, :1] for c in (first.at(second), second.at(first))]
    return ci95((rises[1] - rises[0]).mean(1) / rises[0].mean(1))


def _gain(first: Curve, second: Curve) -> np.ndarray:
    return (second.at(first).values - first.at(second).values)[:, 1:]


def _cost(first: Curve, second: Curve) -> np.ndarray:
    return (second.at(first).fraction_lost - first.at(second).fraction_lost)[:, 1:]


def _mean_where(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean over depths of the values where `mask`; NaN where there is none."""
    with np.errstate(invalid="ignore"):
        return (values * mask).sum(1) / mask.sum(1)
