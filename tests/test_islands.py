"""Islands in synthetic maps: what was planted, and nothing else."""

import numpy as np
import pytest

from lib.blocks import BlockDistances
from replication.analysis.islands import (
    growth_only,
    islands,
    islands_of_noise,
    islands_table,
    regions,
)

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


def test_a_planted_island_is_the_only_one():
    planted = a_map(with_island, noise=1e-4)
    (row,) = islands(planted).itertuples()
    starts = row.first_start, row.last_start
    sizes = row.smallest_size, row.largest_size
    layers = row.first_layer, row.last_layer
    assert (starts, sizes, layers) == ((4, 6), (2, 5), (4, 10))
    assert (row.block_start, row.block_size) == (5, 3)
    assert row.area == 12
    assert row.value == pytest.approx(0.041, abs=1e-3)
    assert row.standard_error == planted.standard_error[5, 8]
    assert row.side == "shallower"
    assert row.stability == 1


def test_a_smooth_map_has_none():
    assert islands(a_map(smooth)).empty
    assert islands(a_map(lambda l, n: 0.02 * n)).empty
    band = a_map(lambda l, n: (2 * l + n - L) ** 2 + n)  # narrow, and moves one layer a size
    assert islands(band, threshold=0.01).empty


def test_noise_is_not_stable():
    """In a flat map islands are accidents of the noise, and seldom come back."""
    stability = islands(a_map(lambda l, n: 0.3 + 0 * l, noise=0.1)).stability
    assert len(stability) > 3
    assert stability.max() < 0.7 and stability.median() < 0.5


@pytest.mark.parametrize("start, count", [(3, 1), (4, 1), (5, 2)])
def test_blocks_that_share_an_end_are_neighbours(start, count):
    """Layer 4 alone, and layers 3 and 4, or 4 and 5: one island. Layer 4, and 5 and 6: two."""

    def two_blocks(l, n):
        alone = (l == 4) & (n == 1)
        pair = (l == start) & (n == 2)
        band = l + n > 20
        return np.where(alone | pair | band, 0.0, 1.0)

    assert len(islands(a_map(two_blocks))) == count


def test_the_band_is_where_most_best_starts_lie():
    """A larger region that holds fewer of them is an island, though it lies deeper."""

    def two(start, size):
        band = np.abs(start - 3) <= 1 - (size % 2)
        patch = (start >= 8) & (start + size <= 18) & (size <= 8)
        beside = np.where(patch, 0.05, 1.0)
        return np.where(band, 0.0, beside)

    labels = regions(a_map(two).matrix)
    assert (labels[:, 3] == 1).all()
    assert labels[0, 10] == 2
    assert islands(a_map(two)).side.tolist() == ["deeper"]


def test_the_map_of_a_stream_that_only_grows():
    """Random directions in many dimensions, each as long as turns the state so far."""
    draw = np.random.default_rng(0)
    turns = np.array([0.4, 0.1, 0.2, 0.05])
    states = [draw.standard_normal(100_000)]
    for turn in turns:
        state, step = states[-1], draw.standard_normal(100_000)
        length = np.tan(np.pi * turn) * np.linalg.norm(state)
        states.append(state + length * step / np.linalg.norm(step))
    units = np.array([state / np.linalg.norm(state) for state in states])
    angles = np.arccos(np.clip(units @ units.T, -1, 1)) / np.pi
    np.testing.assert_allclose(growth_only(turns), angles, atol=5e-3)


def test_growth_alone_has_an_island_and_its_null_keeps_layer_0():
    """Alike layers after a far turn: in any order the same stream, with no island."""
    turns = np.array([0.2, *[0.02] * 6, *[0.1] * 3, *[0.01] * 14])
    grown = growth_only(turns)
    maps = {"planted": a_map(with_island), "grown": BlockDistances(grown, grown, grown[None], 2)}
    assert islands_table(maps).groupby("model").by_growth.agg(list).to_dict() == {
        "planted": [False],
        "grown": [True],
    }
    alike = growth_only(np.array([0.3, *[0.02] * 15]))
    assert set(islands_of_noise(alike)) == {0}
