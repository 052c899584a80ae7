"""95 % intervals by resampling what was averaged: questions, texts, or folds of texts.

Row 0 of everything resampled is what was measured, the rows after it are resamples. The draws of n
examples of one set are always the same, so what is computed row by row from several measurements of
the same examples is paired on them; other sets have other draws.
"""

from functools import lru_cache
from statistics import NormalDist
from zlib import crc32

import numpy as np
import pandas as pd

from lib.evaluation import weighted_mean

RESAMPLES = 1000
LEVELS = (0.025, 0.975)
# a line of a figure, and one depth of it
LINE = ["model", "task", "treatment", "block_size", "strategy", "ablation", "length"]


class Interval(tuple):
    """A statistic and the ends of its 95 % interval: (value, low, high).

    outer: the same, each end moved out by its Monte-Carlo error, as other draws may move it.
    """

    outer: tuple[float, float, float]

    def __new__(cls, value: float, ends: tuple[float, float], outer: tuple[float, float]):
        interval = super().__new__(cls, (value, *ends))
        interval.outer = (value, *outer)
        return interval


UNDEFINED = Interval(np.nan, (np.nan, np.nan), (np.nan, np.nan))


def resampled(examples: np.ndarray, weights: np.ndarray, question_set: str = "") -> np.ndarray:
    """Weighted means of D measurements of the same n examples, as measured and resampled.

    examples: (D, n), weights: (n,). Returns (1 + RESAMPLES, D).
    """
    means = [examples @ weights / weights.sum()]
    for counts in _counts(len(weights), question_set):
        drawn = counts * weights
        means.append(examples @ drawn / drawn.sum())
    return np.array(means)


@lru_cache(maxsize=4)
def _counts(n: int, question_set: str) -> np.ndarray:
    """How often each of n examples of a set is in each resample: (RESAMPLES, n)."""
    random = np.random.default_rng(crc32(question_set.encode()))
    draws = (random.integers(n, size=n) for _ in range(RESAMPLES))
    return np.array([np.bincount(draw, minlength=n).astype(np.int32) for draw in draws])


def resampled_map(distances) -> np.ndarray:
    """A BlockDistances as measured and with its folds resampled.

    Returns (1 + RESAMPLES, L+1, L+1).
    """
    folds = distances.folds
    flat = folds.reshape(len(folds), -1)
    means = resampled(flat.T, np.ones(len(folds)))
    maps = means.reshape(-1, *folds.shape[1:])
    maps[0] = distances.matrix
    return maps


def ci95(values: np.ndarray, upper: np.ndarray | None = None) -> Interval:
    """A statistic and its 95 % interval, from its value in each row: (1 + RESAMPLES,).

    upper: where `values` only bounds the statistic from below, what bounds it from above; one that
    as measured is bounded from one side only is infinite to the other. A statistic that as measured
    is not defined (NaN) or not bounded at all, or is NaN in one of twenty resamples, has no
    interval.
    """
    upper = values if upper is None else upper
    is_open_below = np.isneginf(values[0])
    is_unbounded = is_open_below and np.isposinf(upper[0])
    is_mostly_defined = np.isnan(values).mean() <= 0.05
    if is_unbounded or np.isnan(values[0]) or not is_mostly_defined:
        return UNDEFINED
    measured = values[0] if is_open_below else upper[0]

    def ends(levels: tuple[float, float]) -> tuple[float, float]:
        return _quantile(values, levels[0]), _quantile(upper, levels[1])

    return Interval(float(measured), ends(LEVELS), ends(_outer(LEVELS)))


def _outer(levels: tuple[float, float]) -> tuple[float, float]:
    """Return levels as far out as a quantile of RESAMPLES draws is uncertain (95 %, binomial)."""
    levels = np.array(levels)
    reach = NormalDist().inv_cdf(LEVELS[1]) * np.sqrt(levels * (1 - levels) / RESAMPLES)
    low, high = levels + reach * [-1, 1]
    return max(low, 0), high


def _quantile(values: np.ndarray, level: float) -> float:
    """A quantile of the resamples in which a statistic is defined."""
    resamples = values[1:]
    defined = resamples[~np.isnan(resamples)]
    return float(np.quantile(defined, level, method="inverted_cdf"))


def ci_columns(values: np.ndarray, name: str = "value", prefix: str = "") -> dict[str, float]:
    """`ci95` as the columns name, {prefix}low and {prefix}high of a table."""
    value, low, high = ci95(values)
    return {name: value, f"{prefix}low": low, f"{prefix}high": high}


def ci95_max(values: np.ndarray, largest: bool) -> Interval:
    """The largest or least of K statistics (1 + RESAMPLES, K), by an intersection–union test.

    The extreme meets a bound if every statistic does, each by its own 95 % interval: that is one
    end. It misses the bound if one of them does after Bonferroni's correction: that is the other.
    A percentile interval of the extreme itself would be biased towards it, twice. Where K is so
    large that the corrected quantile lies beyond all resamples, a normal tail bounds it as well.
    """
    sign = 1 if largest else -1
    signed = sign * values
    measured, resamples = signed[0], signed[1:]
    if np.isnan(measured).any() or not signed.size:
        return UNDEFINED
    corrected = LEVELS[0] / values.shape[1]

    def ends(levels: tuple[float, float]) -> tuple[float, float]:
        lows, highs = np.quantile(resamples, levels, axis=0, method="inverted_cdf")
        if levels[0] * len(resamples) < 1:
            reach = NormalDist().inv_cdf(corrected) * resamples.std(axis=0)
            lows = np.minimum(lows, measured + reach)
        first = float(sign * lows.max())
        second = float(sign * highs.max())
        return min(first, second), max(first, second)

    levels = corrected, LEVELS[1]
    return Interval(float(sign * measured.max()), ends(levels), ends(_outer(levels)))


def paired(scores: pd.DataFrame, by: str, first, second) -> pd.DataFrame:
    """How far two lines of a figure are apart at each depth, paired on examples.

    by: the column that tells the lines apart, first and second two of its values. difference:
    the score of `second` minus that of `first` (c4 in nats: below 0 is better), with the standard
    error of the mean of the examples' differences.
    """
    keys = [column for column in LINE if column != by and column in scores]
    pruned = scores[(scores.block_size > 0) & scores.value.notna()]
    firsts = pruned[pruned[by] == first]
    seconds = pruned[pruned[by] == second]
    both = firsts.merge(seconds, on=keys)
    rows = []
    for row in both.itertuples():
        apart = np.subtract(row.examples_y, row.examples_x)
        weights = np.asarray(row.weights_x, float)
        rows.append(weighted_mean(apart, weights))
    differences = pd.DataFrame(rows, columns=["difference", "standard_error"])
    pair = both[keys].assign(pair=f"{second} - {first}")
    return pair.join(differences).assign(n=both.n_x)
