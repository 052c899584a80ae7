"""The statistics that claims are judged by, on lines short enough to compute by hand.

A line has a row as measured and two resamples, so its interval is from the lesser to the greater of
these two; one row stands for all three. Lines that are compared have a depth that the other has
not, which must not count. Where an extreme is taken, 1,000 resamples share their luck: paired on
it, the interval has no width.
"""

import numpy as np
import pytest

from replication.analysis import bootstrap, statistics
from replication.analysis.curves import Curve

DEPTHS, OTHERS = [0, 0.1, 0.2, 0.3], [0, 0.1, 0.2, 0.4]
LUCK = np.random.default_rng(0).normal(0, 0.1, (1000, 1))


def line(fractions, *rows, floor=0.0, is_loss=False) -> Curve:
    values = np.array(rows, float)
    if len(rows) == 1:
        values = np.repeat(values, 3, axis=0)
    return Curve(np.array(fractions), values, floor, gap=10.0, n=400, is_loss=is_loss)


def of_lost(fractions, *shares, start=1.0, floor=0.0, is_loss=False) -> Curve:
    """The line that has lost these shares of what lay between its start and its floor."""
    values = start + np.array(shares) * (floor - start)
    return line(fractions, *values, floor=floor, is_loss=is_loss)


def with_luck(fractions, *values, floor=0.0, is_loss=False) -> Curve:
    """The line as measured, and resamples in which every depth has the same luck."""
    measured = np.array([values])
    return line(fractions, *measured, *(measured + LUCK), floor=floor, is_loss=is_loss)


def exactly(value: float, low: float, high: float):
    return pytest.approx((value, low, high), abs=1e-12)


def always(value: float):
    """Return that of a statistic which is the same in every resample."""
    return exactly(value, value, value)


# ---- one line ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, is_loss, least",
    [
        ((0.8, 0.75, 0.5), False, 0.05),
        ((0.8, 0.5, 0.82), False, -0.02),
        ((2, 2.1, 3), True, 0.1),
    ],
)
def test_least_harm(values, is_loss, least):
    """A cut may help; a loss rises where a score falls."""
    floor = 10.0 if is_loss else 0.0
    measured = with_luck([0, 0.1, 0.2], *values, floor=floor, is_loss=is_loss)
    assert statistics.least_harm(measured) == always(least)


# ---- two lines -----------------------------------------------------------------------------


def test_later():
    """Two models have no depth in common but 0; each has its own."""
    depths = [0, 0.25, 0.5, 0.75]
    shallow = of_lost(DEPTHS, [0, 0.25, 0.75, 1])  # half at 0.15
    deep = of_lost(depths, [0, 0.25, 0.75, 1])  # half at 0.375, so 0.225 later
    kept = of_lost(depths, DEPTHS)
    assert statistics.later(shallow, deep) == always(0.225)
    assert statistics.later(shallow, kept) == exactly(np.inf, 0.75 - 0.15, np.inf)


NEVER, EARLY, LATE = DEPTHS, [0, 0.25, 0.75, 1], [0, 0.25, 0.25, 0.75]  # half at 0.15, at 0.25
INF = np.inf


@pytest.mark.parametrize(
    "first, second, interval",
    [
        ([EARLY] * 3, [LATE] * 3, (0.1, 0.1, 0.1)),
        ([EARLY] * 3, [NEVER] * 3, (INF, 0.15, INF)),  # at 0.3 or deeper
        ([NEVER] * 3, [EARLY] * 3, (-INF, -INF, -0.15)),
        ([EARLY] * 3, [LATE, LATE, NEVER], (0.1, 0.1, INF)),
        ([LATE, NEVER, LATE], [EARLY] * 3, (-0.1, -INF, -0.1)),
        ([LATE, NEVER, LATE], [EARLY, NEVER, EARLY], (-0.1, -INF, INF)),
        ([NEVER] * 3, [NEVER] * 3, (np.nan,) * 3),
    ],
)
@pytest.mark.parametrize("of", [statistics.later, statistics.shift], ids=lambda of: of.__name__)
def test_of_a_line_that_keeps_half_one_side_is_known(of, first, second, interval):
    """Claims 2d, 3a, 7e, 8 and 9b: what is beyond the depths measured bounds them all the same."""
    pair = of_lost(DEPTHS, *first), of_lost(DEPTHS, *second)
    assert of(*pair) == pytest.approx(interval, abs=1e-12, nan_ok=True)


def test_gains():
    """0.05 and 0.15; the depths that one line has alone are -0.5 and 0.5 apart."""
    first = with_luck(DEPTHS, 0.8, 0.7, 0.4, 0.9)
    second = with_luck(OTHERS, 0.8, 0.75, 0.55, 0.4)
    assert statistics.gain(first, second) == always(0.1)
    assert statistics.least_gain(first, second) == always(0.05)


def test_costs():
    """A loss has ln V = 10 to rise to, and no further; each line starts from its own loss."""
    loss = {"floor": 10, "is_loss": True}
    first = line(DEPTHS, [2, 4, 6, 2], **loss)  # of 8 nats a quarter and half are lost
    second = line(OTHERS, [3, 6.5, 18, 3], **loss)  # of 7 nats half, and all
    assert statistics.cost(first, second) == always(0.375)
    assert statistics.largest_cost(first, second) == always(0.5)


def test_gain_where_flat():
    """Each row where the first line has kept half in that row, the unpruned model included."""
    first = line(
        DEPTHS,
        [1, 0.9, 0.4, 0.9],  # half is left at 0 and at 0.1
        [1, 0.9, 0.6, 0.9],  # and at 0.2
        [1, 0.4, 0.3, 0.9],  # only at 0
    )
    second = line(
        OTHERS,
        [1.1, 0.95, 0.9, 0.1],  # gains 0.1 and 0.05
        [1.1, 0.95, 0.9, 0.1],  # 0.1, 0.05 and 0.3
        [1.02, 0.95, 0.9, 0.1],  # 0.02
    )
    assert statistics.gain_where_flat(first, second) == exactly(0.075, 0.02, 0.15)


def test_largest_change():
    """Mean gains of 0.03, -0.03 and -0.04: the largest is 0.04, whichever way it goes."""
    depths = [0, 0.1, 0.2]
    first = with_luck([*depths, 0.3], 0.8, 0.7, 0.4, 0.9)
    others = (
        with_luck([*depths, 0.4], 0.8, 0.71, 0.45, 0.1),
        with_luck([*depths, 0.4], 0.8, 0.62, 0.42, 0.1),
        with_luck([*depths, 0.4], 0.8, 0.65, 0.37, 0.1),
    )
    assert statistics.largest_change(first, *others) == always(0.04)


def test_bend():
    """A step, 0 0 0 1 1 1, leaves a straight line 8/35 of its variance, however high it is.

    The slope is (3/4) / (35/12) = 9/35, so the line explains (9/35)² · 35/12 = 27/140 of 1/4.
    """
    depths = [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    first = line(depths, [0, 5, 0, 5, 0, 5])
    second = line(
        [0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5],
        [0, 0, 0, 9, 1, 1, 1],
        [0, 0, 0, 9, 2, 2, 2],
        [0, 1, 2, 9, 3, 4, 5],  # straight
    )
    assert statistics.bend(first, second) == exactly(8 / 35, 0, 8 / 35)


def test_lost_when_lost():
    """The first line's extra depth would move its middle, the second's what is read there."""
    first = of_lost([0, 0.1, 0.15, 0.2, 0.3], [0, 0.25, 0.25, 0.75, 1])  # half at 0.15
    lost = [0, 0.1, 0.9, 0.3, 0.9]  # 0.2 is lost at 0.15
    second = of_lost([0, 0.1, 0.12, 0.2, 0.3], lost, start=2.0, floor=10.0, is_loss=True)
    assert statistics.lost_when_lost(first, second) == always(0.2)


def test_interaction():
    """A ratio of means: what is small at one depth does not count more."""
    first = line(DEPTHS, [2, 3, 5, 9])  # rises by 1 and by 3: 2
    second = line(OTHERS, [4, 5.5, 7.5, 4])  # by 1.5 and 3.5: 2.5, a quarter more
    assert statistics.interaction(first, second) == always(0.25)


def test_a_loss_jumps_if_its_largest_step_is_twice_the_even_one():
    """3 / (7 / 5) is 2.1; the last step may be growth."""
    jumps = line(range(6), [3, 3.1, 3.1, 6, 9, 10], floor=20.0, is_loss=True)
    grows = line(range(6), [0, 0.1, 0.2, 0.4, 0.8, 2], floor=20.0, is_loss=True)
    assert not statistics.no_jump(jumps, jumps)
    assert "1.0 times" in statistics.no_jump(grows, grows)


# ---- several statistics at once ------------------------------------------------------------


def test_outer_ends_allow_for_other_draws():
    """Of 300 bootstraps of a normal, 2.5 % have an outer end that does not reach its true end."""
    draws = np.random.default_rng(0).normal(size=(300, 1 + bootstrap.RESAMPLES))
    outer = np.array([bootstrap.ci95(values).outer for values in draws])
    assert np.mean(outer[:, 1] <= -1.96) == pytest.approx(0.975, abs=0.02)
    assert np.mean(outer[:, 2] >= 1.96) == pytest.approx(0.975, abs=0.02)


def test_one_of_several_misses_a_bound_only_after_bonferronis_correction():
    """Of K statistics each has a K-th of the 2.5 %; all of them meet it with 2.5 % each."""
    measured = np.array([0.0, 0.3, 0.1, 0.2])
    resamples = measured + np.random.default_rng(0).normal(size=(1000, 4))

    def largest(level: float) -> float:
        return np.quantile(resamples, level, axis=0, method="inverted_cdf").max()

    values = np.vstack([measured, resamples])
    low, high = largest(0.025 / 4), largest(0.975)
    assert low < largest(0.025)
    assert bootstrap.ci95_max(values, largest=True) == (0.3, low, high)
    assert bootstrap.ci95_max(-values, largest=False) == (-0.3, -high, -low)
