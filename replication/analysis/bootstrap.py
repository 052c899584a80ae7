"""95 % intervals by resampling what was averaged: questions, texts, or folds of texts.

Row 0 of everything resampled is what was measured, the rows after it are resamples. The draws of n
examples of one set are always the same, so what is computed row by row from several measurements of
the same examples is paired on them; other sets have other draws.
"""

from statistics import NormalDist
from zlib import crc32

import numpy as np
import pandas as pd

from lib.evaluation import weighted_mean

RESAMPLES = 1000
LEVELS = (0.025, 0.975)


def resampled(examples: np.ndarray, weights: np.ndarray, of: str = "") -> np.ndarray:
    """Weighted means of D measurements of the same n examples, as measured and resampled.

    examples: (D, n), weights: (n,), of: the set of the examples. Returns (1 + RESAMPLES, D).
    """
    draw = np.random.default_rng(crc32(of.encode()))
    n = len(weights)
    means = [examples @ weights / weights.sum()]
    for _ in range(RESAMPLES):
        drawn = np.bincount(draw.integers(n, size=n), minlength=n) * weights
        means.append(examples @ drawn / drawn.sum())
    return np.array(means)


def resampled_map(distances) -> np.ndarray:
    """A BlockDistances as measured and with its folds resampled.

    Returns (1 + RESAMPLES, L+1, L+1).
    """
    folds = distances.folds
    means = resampled(folds.reshape(len(folds), -1).T, np.ones(len(folds)))
    means = means.reshape(-1, *folds.shape[1:])
    means[0] = distances.matrix
    return means


def ci95(values: np.ndarray, upper: np.ndarray | None = None) -> tuple[float, float, float]:
    """A statistic and its 95 % interval, from its value in each row: (1 + RESAMPLES,).

    upper: where `values` only bounds the statistic from below, what bounds it from above. A
    statistic that is not defined (NaN) as measured, or in one of twenty resamples, has no interval.
    """
    ends = values, values if upper is None else upper
    if np.isnan(values[0]) or np.isnan(values).mean() > 0.05:
        return np.nan, np.nan, np.nan
    low, high = (
        np.quantile(end[1:][~np.isnan(end[1:])], level, method="inverted_cdf")
        for end, level in zip(ends, LEVELS, strict=True)
    )
    return float(ends[1][0]), float(low), float(high)


def ci_columns(values: np.ndarray, name: str = "value", prefix: str = "") -> dict[str, float]:
    """`interval` as the columns name, {prefix}low and {prefix}high of a table."""
    return dict(zip((name, f"{prefix}low", f"{prefix}high"), ci95(values), strict=True))


def ci95_max(values: np.ndarray, largest: bool) -> tuple[float, float, float]:
    """The largest or least of K statistics (1 + RESAMPLES, K), by an intersection–union test.

    The extreme meets a bound if every statistic does, each by its own 95 % interval: that is one
    end. It misses the bound if one of them does after Bonferroni's correction: that is the other.
    A percentile interval of the extreme itself would be biased towards it, twice. Where K is so
    large that the corrected quantile lies beyond all resamples, a normal tail bounds it as well.
    """
    sign = 1 if largest else -1
    found = sign * values
    if np.isnan(found[0]).any() or not found.size:
        return np.nan, np.nan, np.nan
    corrected = LEVELS[0] / values.shape[1]
    lows, highs = (
        np.quantile(found[1:], level, axis=0, method="inverted_cdf")
        for level in (corrected, LEVELS[1])
    )
    if corrected * (len(found) - 1) < 1:
        tail = found[0] + NormalDist().inv_cdf(corrected) * found[1:].std(axis=0)
        lows = np.minimum(lows, tail)
    low, high = sorted((sign * lows.max(), sign * highs.max()))
    return float(sign * found[0].max()), float(low), float(high)


def paired(scores: pd.DataFrame, by: str, first, second) -> pd.DataFrame:
    """How far two lines of a figure are apart at each depth, paired on examples.

    by: the column that tells the lines apart, first and second two of its values. difference:
    the score of `second` minus that of `first` (c4 in nats: below 0 is better), with the standard
    error of the mean of the examples' differences.
    """
    lines = ["model", "task", "treatment", "block_size", "strategy", "ablation"]
    lines = [column for column in lines if column != by and column in scores]
    told = scores[(scores.block_size > 0) & scores.value.notna()]
    both = told[told[by] == first].merge(told[told[by] == second], on=lines)
    pairs = zip(both.examples_x, both.examples_y, both.weights_x, strict=True)
    found = [weighted_mean(np.subtract(b, a), np.asarray(w, float)) for a, b, w in pairs]
    found = pd.DataFrame(found, columns=["difference", "standard_error"])
    return both[lines].assign(pair=f"{second} - {first}").join(found).assign(n=both.n_x)
