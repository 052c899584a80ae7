"""Islands in synthetic maps: what was planted, and nothing else."""

import numpy as np
import pytest
from synthetic_maps import L, a_map, smooth, with_island

from lib.blocks import BlockDistances
from replication.analysis.islands import (
    growth_only,
    islands,
    islands_of_noise,
    islands_table,
    regions,
)


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
