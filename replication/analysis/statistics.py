"""Statistics of the lines of figures 2 to 9 that claims are judged by: (value, low, high), 95 %.

Lines that are compared are so at the depths that all of them have, and paired on the examples.
"""

import numpy as np

from replication.analysis.bootstrap import Interval, ci95, ci95_max
from replication.analysis.curves import Curve

BEYOND = 0.15  # of the layers: so far after the middle of its transition a score is to be lost
FEWEST_ON_A_LINE = 6  # depths, 0 among them, for a line to be called straight or bent
JUMP = 2  # times the even step: the largest one of a loss that jumps


def halfway(line: Curve) -> Interval:
    """The fraction where half is lost; infinite: not where measured."""
    return ci95(*_crossing_bounds(line, 0.5))


def later(first: Curve, second: Curve) -> Interval:
    """How much later `second` has lost half, of another model; both at their own depths.

    Where one of them has not lost half, how much is known from one side only.
    """
    first_least, first_most = _crossing_bounds(first, 0.5)
    least, most = _crossing_bounds(second, 0.5)
    return ci95(least - first_most, most - first_least)


def after(place: np.ndarray, line: Curve) -> Interval:
    """How much later than `place`, a fraction in each row, half is lost."""
    least, most = _crossing_bounds(line, 0.5)
    return ci95(least - place, most - place)


def width(line: Curve) -> Interval:
    """From a quarter lost to three quarters lost, in fractions of the layers."""
    start = line.crossing(0.25)
    least, most = _crossing_bounds(line, 0.75)
    return ci95(least - start, most - start)


def _crossing_bounds(line: Curve, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Where `share` is lost, at least and at most: not where measured is anywhere beyond."""
    deepest = line.fractions[-1]
    return line.crossing(share, never=deepest), line.crossing(share, never=np.inf)


def left_beyond(line: Curve) -> Interval:
    """The mean share that is left at the depths BEYOND the middle of the transition."""
    middle = line.crossing()[:, None]
    beyond = line.fractions >= middle + BEYOND
    return ci95(_mean_where(beyond, 1 - line.fraction_lost))


def shift(first: Curve, second: Curve) -> Interval:
    """How much later `second` has lost half, in fractions of the layers: `later` at the depths of
    both."""
    return later(*_shared(first, second))


def gain(first: Curve, second: Curve) -> Interval:
    """The score of `second` minus that of `first`, mean over the depths of both."""
    return ci95(_gains(first, second).mean(1))


def least_gain(first: Curve, second: Curve) -> Interval:
    """The least score of `second` minus that of `first` at any depth of both.

    A depth where both are one measurement, as where two strategies choose the same block, counts
    for neither: there the difference is 0 in every resample.
    """
    return ci95_max(_differing_depths(_gains(first, second)), largest=False)


def cost(first: Curve, second: Curve) -> Interval:
    """The share lost by `second` minus that lost by `first`, mean over the depths of both."""
    return ci95(_costs(first, second).mean(1))


def cost_apart(*lines: Curve) -> Interval:
    """`cost` of the first two lines minus that of two lines of another task."""
    one, other = (_costs(*pair).mean(1) for pair in (lines[:2], lines[2:]))
    return ci95(one - other)


def largest_cost(first: Curve, second: Curve) -> Interval:
    """The largest share lost by `second` minus that lost by `first` at any depth of both.

    Depths where both are one measurement do not count, as in `least_gain`.
    """
    return ci95_max(_differing_depths(_costs(first, second)), largest=True)


def gain_where_flat(first: Curve, second: Curve) -> Interval:
    """The mean gain at the depths, 0 among them, where `first` has not lost half."""
    first, second = _shared(first, second)
    flat = first.fraction_lost <= 0.5
    return ci95(_mean_where(flat, second.values - first.values))


def largest_change(first: Curve, *others: Curve) -> Interval:
    """Of several lines, the largest mean gain or loss against `first`."""
    means = [_gains(first, other).mean(1) for other in others]
    changes = np.abs(np.stack(means, axis=1))
    return ci95_max(changes, largest=True)


def least_harm(line: Curve) -> Interval:
    """The unpruned score minus the pruned one, the least at any depth (a loss: with its sign)."""
    rises = _rises(line)
    return ci95_max(rises if line.is_loss else -rises, largest=False)


def bend(first: Curve, second: Curve) -> Interval:
    """The share of the variance of `second` that a straight line leaves, at the depths of both."""
    return ci95(_unexplained(second.at(first)))


def no_jump(first: Curve, second: Curve) -> str:
    """Why `second` cannot be said to have no jump: `first` has none either; "" if it has one.

    Steps are per layer, and the even one is that of a line over the whole range. The last step does
    not count: only deeper cuts would tell a jump there from growth.
    """
    line = first.at(second)
    if len(line.fractions) < FEWEST_ON_A_LINE:
        return ""
    steps = np.diff(line.values[0]) / np.diff(line.fractions)
    even = np.ptp(line.values[0]) / np.ptp(line.fractions)
    largest = steps[:-1].max() / even
    if largest >= JUMP:
        return ""
    return f"unhealed, the loss does not jump: its largest step is {largest:.1f} times the even one"


def unchanged(first: Curve, second: Curve) -> str:
    """Why nothing can be said of `second`: its scores may be those of `first`; "" if not."""
    value, low, high = gain(first, second)
    if not low <= 0 <= high:
        return ""
    score = "C4 loss" if first.is_loss else "accuracy"
    return f"healing changed nothing for certain: {score} by {value:.3f} [{low:.3f}, {high:.3f}]"


def _unexplained(line: Curve) -> np.ndarray:
    """The share of the variance over depths that a straight line leaves, in each row.

    NaN where there are too few depths to tell a bend.
    """
    if len(line.fractions) < FEWEST_ON_A_LINE:
        return np.full(len(line.values), np.nan)
    design = np.stack([np.ones_like(line.fractions), line.fractions])
    fitted = line.values @ np.linalg.pinv(design) @ design
    rest = line.values - fitted
    return rest.var(1) / line.values.var(1)


def lost_when_lost(first: Curve, second: Curve) -> Interval:
    """The share that `second` has lost where `first` has lost half."""
    first, second = _shared(first, second)
    rows = zip(first.crossing(), second.fraction_lost, strict=True)
    shares = [np.interp(middle, first.fractions, lost) for middle, lost in rows]
    return ci95(np.array(shares))


def interaction(first: Curve, second: Curve) -> Interval:
    """What `second` loses more than `first` by the same cuts, as a share of what `first` loses."""
    first, second = map(_rises, _shared(first, second))
    return ci95((second - first).mean(1) / first.mean(1))


# ---- by row and depth, from the first depth beyond 0 on -------------------------------------


def _shared(first: Curve, second: Curve) -> tuple[Curve, Curve]:
    """Both at the depths of both."""
    return first.at(second), second.at(first)


def _rises(line: Curve) -> np.ndarray:
    """The pruned scores minus the unpruned one."""
    return line.values[:, 1:] - line.values[:, :1]


def _gains(first: Curve, second: Curve) -> np.ndarray:
    """The scores of `second` minus those of `first`."""
    first, second = _shared(first, second)
    return (second.values - first.values)[:, 1:]


def _costs(first: Curve, second: Curve) -> np.ndarray:
    """The shares lost by `second` minus those lost by `first`."""
    first, second = _shared(first, second)
    return (second.fraction_lost - first.fraction_lost)[:, 1:]


def _differing_depths(differences: np.ndarray) -> np.ndarray:
    """Return those of the depths where two lines are not one measurement."""
    differ = (differences != 0).any(axis=0)
    return differences[:, differ]


def _mean_where(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean over depths of the values where `mask`; NaN where there is none."""
    with np.errstate(invalid="ignore"):
        return (values * mask).sum(1) / mask.sum(1)
