"""The statistics that claims are judged by, on lines short enough to compute by hand.

A line has a row as measured and two resamples, so its interval is from the lesser to the greater of
these two. Lines that are compared have a depth that the other has not, which must not count. Where
an extreme is taken, 1,000 resamples share their luck: paired on it, the interval has no width.
"""

import numpy as np
import pandas as pd
import pytest
from conftest import score

from replication.analysis import bootstrap, statistics
from replication.analysis.curves import Curve
from replication.analysis.depth import halves, last_is_least
from replication.figures import ablations

LUCK = np.random.default_rng(0).normal(0, 0.1, (1000, 1))


def line(fractions, *rows, floor=0.0, is_loss=False) -> Curve:
    values = np.array(rows, float)
    return Curve(
        fractions=np.array(fractions),
        values=values,
        floor=floor,
        gap=10.0,
        n=400,
        is_loss=is_loss,
    )


def of_lost(fractions, *rows, start=1.0, floor=0.0, is_loss=False) -> Curve:
    """The line that has lost these shares of what lay between its start and its floor."""
    values = start + np.array(rows, float) * (floor - start)
    return line(fractions, *values, floor=floor, is_loss=is_loss)


def with_luck(fractions, *values, floor=0.0, is_loss=False) -> Curve:
    """The line as measured, and resamples in which every depth has the same luck."""
    measured = np.array([values])
    return line(fractions, *measured, *(measured + LUCK), floor=floor, is_loss=is_loss)


def exactly(value: float, low: float, high: float):
    return pytest.approx((value, low, high), abs=1e-12)


# ---- one line ------------------------------------------------------------------------------


def test_halfway():
    """Of 1 - 0.2 = 0.8 these rows lose 0, 1/8, 3/8, 7/8; 0, 1/8, 5/8, 7/8; and never half."""
    measured = line(
        [0, 0.1, 0.2, 0.3],
        [1, 0.9, 0.7, 0.3],  # half is lost a quarter of the way from 0.2 to 0.3
        [1, 0.9, 0.5, 0.3],  # three quarters of the way from 0.1 to 0.2
        [1, 0.9, 0.8, 0.7],  # beyond 0.3
        floor=0.2,
    )
    assert statistics.halfway(measured) == exactly(0.225, 0.175, np.inf)


def test_halfway_where_it_is_never_lost():
    """It lies beyond the last depth, nobody knows how far."""
    kept = of_lost([0, 0.1, 0.2, 0.3], *[[0, 0.1, 0.2, 0.3]] * 3)
    assert statistics.halfway(kept) == (np.inf, 0.3, np.inf)


def test_width():
    measured = of_lost(
        [0, 0.1, 0.2, 0.3],
        [0, 0.25, 0.75, 1],  # from 0.1 to 0.2
        [0, 0.5, 0.5, 1],  # from 0.05 to 0.25
        [0, 1, 1, 1],  # from 0.025 to 0.075
    )
    assert statistics.width(measured) == exactly(0.1, 0.05, 0.2)


def test_width_where_three_quarters_are_never_lost():
    """A quarter is lost at 0.05, half at 0.1, three quarters beyond 0.3."""
    kept = of_lost([0, 0.1, 0.2, 0.3], *[[0, 0.5, 0.6, 0.7]] * 3)
    assert statistics.width(kept) == exactly(np.inf, 0.25, np.inf)


def test_left_beyond():
    """Each row is judged 0.15 beyond the middle of its own transition."""
    measured = of_lost(
        [0, 0.1, 0.2, 0.3, 0.4],
        [0, 0.5, 0.75, 0.75, 1],  # half at 0.1; 1/4 and 0 are left at 0.3 and 0.4
        [0, 0, 0.5, 0.6, 0.7],  # half at 0.2; 0.3 is left at 0.4
        [0, 0.625, 0.8, 0.9, 0.9],  # half at 0.08; 0.1 is left at 0.3 and at 0.4
    )
    assert statistics.left_beyond(measured) == exactly(0.125, 0.1, 0.3)


def test_least_harm():
    """0.8 falls by 0.05 and by 0.3."""
    measured = with_luck([0, 0.1, 0.2], 0.8, 0.75, 0.5)
    assert statistics.least_harm(measured) == exactly(0.05, 0.05, 0.05)


def test_least_harm_where_a_cut_helps():
    """0.8 falls by 0.3 and rises by 0.02."""
    measured = with_luck([0, 0.1, 0.2], 0.8, 0.5, 0.82)
    assert statistics.least_harm(measured) == exactly(-0.02, -0.02, -0.02)


def test_least_harm_to_a_loss():
    """2 nats rise by 0.1 and by 1."""
    measured = with_luck([0, 0.1, 0.2], 2, 2.1, 3, floor=10, is_loss=True)
    assert statistics.least_harm(measured) == exactly(*[0.1] * 3)


# ---- two lines -----------------------------------------------------------------------------


def test_later():
    """Two models have no depth in common but 0; each has its own."""
    shallow = of_lost(
        [0, 0.1, 0.2, 0.3],
        [0, 0.25, 0.75, 1],  # half at 0.15
        [0, 0, 0.5, 1],  # 0.2
        [0, 0.5, 1, 1],  # 0.1
    )
    deep = of_lost(
        [0, 0.25, 0.5, 0.75],
        [0, 0.25, 0.75, 1],  # half at 0.375, so 0.225 later
        [0, 0, 0.5, 1],  # 0.5, so 0.3 later
        [0, 0.5, 1, 1],  # 0.25, so 0.15 later
    )
    assert statistics.later(shallow, deep) == exactly(0.225, 0.15, 0.3)
    kept = of_lost([0, 0.25, 0.5, 0.75], *[[0, 0.1, 0.2, 0.3]] * 3)
    assert statistics.later(shallow, kept) == exactly(np.inf, 0.75 - 0.2, np.inf)


def test_shift():
    """At the common depths 0, 0.1, 0.2 and 0.4; the others would move both transitions."""
    first = of_lost(
        [0, 0.1, 0.2, 0.3, 0.4],
        [0, 0, 0.25, 0.75, 0.75],  # half at 0.3
        [0, 0, 0.5, 0.5, 1],  # 0.2
        [0, 0, 0, 0.5, 0.625],  # 0.36
    )
    second = of_lost(
        [0, 0.05, 0.1, 0.2, 0.4],
        [0, 0, 1, 1, 1],  # half at 0.05, so 0.25 earlier
        [0, 0, 0, 0.5, 1],  # 0.2, so at the same place
        [0, 1, 1, 1, 1],  # 0.05, so 0.31 earlier
    )
    assert statistics.shift(first, second) == exactly(-0.25, -0.31, 0)


def test_gain():
    """Of the depths 0.1 and 0.2: the unpruned score is no gain."""
    first = line(
        [0, 0.1, 0.2, 0.3],
        [0.8, 0.7, 0.4, 0.1],
        [0.9, 0.8, 0.5, 0.2],
        [0.7, 0.6, 0.3, 0.0],
    )
    second = line(
        [0, 0.1, 0.2, 0.4],
        [0.8, 0.75, 0.55, 0.9],  # gains 0.05 and 0.15
        [0.9, 0.85, 0.65, 0.9],  # the same
        [0.7, 0.65, 0.25, 0.9],  # 0.05 and -0.05
    )
    assert statistics.gain(first, second) == exactly(0.1, 0, 0.1)


def test_least_gain():
    """0.05 and 0.15; the depths that one line has alone are -0.5 and 0.5 apart."""
    first = with_luck([0, 0.1, 0.2, 0.3], 0.8, 0.7, 0.4, 0.9)
    second = with_luck([0, 0.1, 0.2, 0.4], 0.8, 0.75, 0.55, 0.4)
    assert statistics.least_gain(first, second) == exactly(*[0.05] * 3)


def test_cost():
    """A loss has ln V = 10 to rise to; each resample starts from its own unpruned loss."""
    first = line(
        [0, 0.1, 0.2, 0.3],
        [2, 4, 6, 2],  # of 8 nats a quarter and half are lost
        [3, 4.75, 6.5, 3],  # of 7 nats the same
        [1, 1, 5.5, 1],  # of 9 nats nothing and half
        floor=10,
        is_loss=True,
    )
    second = line(
        [0, 0.1, 0.2, 0.4],
        [2, 6, 18, 10],  # half, and all: 1/4 and 1/2 more
        [3, 6.5, 10, 10],  # the same
        [1, 1, 7.75, 10],  # nothing, and three quarters: 0 and 1/4 more
        floor=10,
        is_loss=True,
    )
    assert statistics.cost(first, second) == exactly(0.375, 0.125, 0.375)


def test_largest_cost():
    """1/4 and 1/2 more, in every resample, however much there is to lose."""
    start = 2 + LUCK[[0, *range(1000)]]
    lost_by_first = [[0, 0.25, 0.5, 0]] * 1001
    lost_by_second = [[0, 0.5, 1, 1]] * 1001
    first = of_lost([0, 0.1, 0.2, 0.3], *lost_by_first, start=start, floor=10, is_loss=True)
    second = of_lost([0, 0.1, 0.2, 0.4], *lost_by_second, start=start, floor=10, is_loss=True)
    assert statistics.largest_cost(first, second) == exactly(*[0.5] * 3)


def test_gain_where_flat():
    """Each row where the first line has kept half in that row, the unpruned model included."""
    first = line(
        [0, 0.1, 0.2, 0.3],
        [1, 0.9, 0.4, 0.9],  # half is left at 0 and at 0.1
        [1, 0.9, 0.6, 0.9],  # and at 0.2
        [1, 0.4, 0.3, 0.9],  # only at 0
    )
    second = line(
        [0, 0.1, 0.2, 0.4],
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
    assert statistics.largest_change(first, *others) == exactly(*[0.04] * 3)


def test_bend():
    """A step, 0 0 0 1 1 1, leaves a straight line 8/35 of its variance, however high it is."""
    depths = [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    zigzag = [0, 5, 0, 5, 0, 5]
    first = line(depths, zigzag, zigzag, zigzag, floor=10, is_loss=True)
    second = line(
        [0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5],
        [0, 0, 0, 9, 1, 1, 1],
        [0, 0, 0, 9, 2, 2, 2],
        [0, 1, 2, 9, 3, 4, 5],  # straight
        floor=10,
        is_loss=True,
    )
    assert statistics.bend(first, second) == exactly(8 / 35, 0, 8 / 35)


def test_lost_when_lost():
    """The first line's extra depth would move its middle, the second's what is read there."""
    first = of_lost(
        [0, 0.1, 0.15, 0.2, 0.3],
        [0, 0.25, 0.25, 0.75, 1],  # half at 0.15
        [0, 0, 0.5, 0.5, 1],  # 0.2
        [0, 0.5, 0.5, 1, 1],  # 0.1
    )
    second = of_lost(
        [0, 0.1, 0.12, 0.2, 0.3],
        [0, 0.1, 0.9, 0.3, 0.9],  # 0.2 is lost at 0.15
        [0, 0.2, 0.9, 0.4, 0.6],  # 0.4 at 0.2
        [0, 0.05, 0.9, 0.1, 0.2],  # 0.05 at 0.1
        start=2.0,
        floor=10.0,
        is_loss=True,
    )
    assert statistics.lost_when_lost(first, second) == exactly(0.2, 0.05, 0.4)


def test_not_adding_up():
    """A ratio of means: what is small at one depth does not count more."""
    first = line(
        [0, 0.1, 0.2, 0.3],
        [2, 3, 5, 9],  # rises by 1 and by 3: 2
        [3, 4, 6, 9],  # the same
        [2, 3, 3, 9],  # by 1 and by 1: 1
    )
    second = line(
        [0, 0.1, 0.2, 0.4],
        [4, 5.5, 7.5, 4],  # by 1.5 and by 3.5: 2.5, a quarter more
        [5, 6.5, 8.5, 5],  # the same
        [4, 5, 5, 4],  # by 1 and by 1: no more
    )
    assert statistics.not_adding_up(first, second) == exactly(0.25, 0, 0.25)


# ---- several statistics at once ------------------------------------------------------------


def test_an_interval_knows_how_far_other_draws_move_its_ends():
    """Of 300 bootstraps of a normal, 2.5 % have an outer end that does not reach its true end."""
    draws = np.random.default_rng(0).normal(size=(300, 1 + bootstrap.RESAMPLES))
    intervals = [bootstrap.ci95(values) for values in draws]
    _, lows, highs = np.transpose([interval.outer for interval in intervals])
    for reached in (lows <= -1.96, highs >= 1.96):
        assert reached.mean() == pytest.approx(0.975, abs=0.02)
    for largest in (True, False):  # of one statistic, the extreme is itself
        assert bootstrap.ci95_max(draws[0][:, None], largest).outer == intervals[0].outer


def test_one_of_several_misses_a_bound_only_after_bonferronis_correction():
    """Of K statistics each has a K-th of the 2.5 %; all of them meet it with 2.5 % each."""
    draw = np.random.default_rng(0)
    values = draw.normal(0, 1, (1001, 4)) + [0.0, 0.3, 0.1, 0.2]
    values[0] = [0.0, 0.3, 0.1, 0.2]
    corrected = np.quantile(values[1:], 0.025 / 4, axis=0, method="inverted_cdf").max()
    uncorrected = np.quantile(values[1:], 0.025, axis=0, method="inverted_cdf").max()
    each = np.quantile(values[1:], 0.975, axis=0, method="inverted_cdf").max()
    largest, low, high = bootstrap.ci95_max(values, largest=True)
    assert (largest, low, high) == (0.3, corrected, each)
    assert corrected < uncorrected
    assert bootstrap.ci95_max(-values, largest=False) == (-0.3, -high, -low)


def test_the_spread_of_seeds_by_hand():
    """Scores 1, 2 and 3 of three seeds; what is not healed, or not measured, does not count."""
    rows = [(seed, "healed", seed + 1.0) for seed in range(3)]
    rows += [(None, "unhealed", 9.0), (3, "healed", np.nan)]
    scores = pd.DataFrame(rows, columns=["seed", "treatment", "value"])
    scores = scores.assign(model="m", task="c4", block_size=6, steps=64, standard_error=0.5, n=10)
    (row,) = bootstrap.spread(scores).to_dict("records")
    assert (row["seeds"], row["mean"], row["sd"], row["n"]) == (3, 2.0, 1.0, 10)
    assert row["standard_error"] == 0.5 and row["steps"] == 64


def test_a_seed_that_scores_more_than_the_first_is_above_it_in_figure_8():
    cut = {"task": "arc_easy", "treatment": "healed", "steps": 64, "ablation": "seeds"}
    right = {"seed 0": np.repeat([1.0, 0.0], 50), "seed 1": np.repeat([1.0, 0.0], [60, 40])}
    rows = [score(3, 0, variant=seed, examples=of, **cut) for seed, of in right.items()]
    (apart,) = ablations._differences(pd.DataFrame(rows)).itertuples()
    assert (apart.variant, apart.difference) == ("seed 1", pytest.approx(0.1))
    assert 0 < apart.low < apart.difference < apart.high


# ---- shallow and deep ----------------------------------------------------------------------


def test_halves_leave_out_the_first_layer_the_last_one_and_what_crosses_the_middle():
    """Of 8 layers: blocks of one and two layers within [1, 4) or [4, 7), and up to 4 from below."""
    matrix = np.full((9, 9), 100.0)
    shallow = {(1, 2): 0.1, (2, 3): 0.2, (3, 4): 0.6, (1, 3): 0.4, (2, 4): 0.6}
    deep = {(4, 5): 0.3, (5, 6): 0.1, (6, 7): 0.2, (4, 6): 0.3, (5, 7): 0.5}
    for (start, stop), distance in (shallow | deep).items():
        matrix[start, stop] = distance
    # mean of the sizes' means: (0.9 / 3 + 1.0 / 2) / 2, and (0.6 / 3 + 0.8 / 2) / 2
    assert halves(matrix) == pytest.approx((0.4, 0.3))
    several = np.stack([matrix, 2 * matrix])
    np.testing.assert_allclose(halves(several), [[0.4, 0.8], [0.3, 0.6]])


def test_the_share_of_sizes_at_which_the_last_block_is_the_farthest():
    """Of 6 layers: at sizes 1 and 3, and not at size 2, where that with the first layer is."""
    matrix = np.ones((7, 7))
    matrix[5, 6], matrix[4, 6], matrix[3, 6] = 2, 2, 2
    matrix[0, 2] = 3
    assert last_is_least(matrix) == pytest.approx(2 / 3)
    assert last_is_least(matrix, 1) == 1
