"""Maps of distances that are made up: smooth, or with one island."""

import numpy as np

from lib.blocks import BlockDistances

L, FOLDS = 24, 16


def a_map(value, noise: float = 0.0, num_layers: int = L, folds: int = FOLDS) -> BlockDistances:
    """The map of d(l, l+n) = value(l, n), measured with `noise` in each fold."""
    start, stop = np.mgrid[: num_layers + 1, : num_layers + 1]
    size = np.maximum(stop - start, 1)
    distance = np.broadcast_to(value(start, size), start.shape)
    draws = np.random.default_rng(1).standard_normal((folds, *start.shape))
    upper = np.triu(distance + noise * draws, 1)
    parts = upper + upper.transpose(0, 2, 1)
    error = parts.std(0, ddof=1) / np.sqrt(folds)
    return BlockDistances(parts.mean(0), error, parts, 16 * folds)


def smooth(start, size):
    """The deeper the more similar, except the last layer."""
    last = start + size == L
    return 0.1 + 0.02 * size - 0.006 * start + 0.3 * last


def with_island(start, size):
    in_starts = (start >= 4) & (start <= 6)
    planted = in_starts & (size >= 2) & (size <= 5)
    lowest = (start == 5) & (size == 3)
    of_band = smooth(L - 1 - size, size)
    level = of_band + 0.003 - 0.002 * lowest
    return np.where(planted, level, smooth(start, size))
