"""Islands: similar blocks apart from the main region of a distance map (figure 4, claim 5)."""

from functools import cache
from itertools import product

import numpy as np
import pandas as pd
from scipy import ndimage

from lib.blocks import BlockDistances

THRESHOLD = 0.1  # of the row-rescaled distance: what is below counts as similar
RESAMPLES = 200
FEWEST_FOLDS = 16  # for a stability
FEWEST_LAYERS = 2  # of a map
RIGHT_ANGLE = 0.499  # in half turns: a layer that adds an orthogonal direction turns by less
BAND = 1  # the label of the main region in `regions`; islands have those above it
# A block's neighbours in (n, l): shifted by one layer, or longer or shorter by one at either end.
NEIGHBOURS = np.array([[0, 1, 1], [1, 1, 1], [1, 1, 0]])


def rescaled(rows: np.ndarray) -> np.ndarray:
    """Rows of figure 4, each shifted and rescaled to [0, 1] (all 0 if its values are equal).

    rows: (..., blocks of one size); NaN, where there is no block, stays NaN.
    """
    low = np.nanmin(rows, axis=-1, keepdims=True)
    spread = np.nanmax(rows, axis=-1, keepdims=True) - low
    return (rows - low) / np.where(spread, spread, 1)


def by_size(matrix: np.ndarray) -> np.ndarray:
    """A matrix over pairs of layer inputs (…, L+1, L+1) as a map over blocks (…, L-1, L).

    [n-1, l] is that of the block of n layers that starts at l, NaN where it would not fit.
    """
    start, stop, fits = _blocks(matrix.shape[-1] - 1)
    return np.where(fits, matrix[..., start, stop], np.nan)


@cache
def _blocks(num_layers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first layer of each block by size and start, the one after its last, and if it fits."""
    size, start = np.mgrid[1:num_layers, :num_layers]
    fits = start + size <= num_layers
    return start, np.where(fits, start + size, 0), fits


def heights(matrix: np.ndarray) -> np.ndarray:
    """The row-rescaled distances of the blocks of up to L/2 layers, of one or many maps.

    matrix: distances (…, L+1, L+1). Returns (…, L//2, L), [n-1, l].
    """
    half = (matrix.shape[-1] - 1) // 2
    return rescaled(by_size(matrix)[..., :half, :])


def regions(matrix: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """The connected regions of similar blocks: a label for each block of up to L/2 layers.

    matrix: distances (L+1, L+1). Returns (L//2, L), [n-1, l]: 0 where the row-rescaled distance is
    above `threshold`, 1 in the main region, 2, 3, … in the islands, the largest first. The main
    region is the one that holds the best starts l*(n) of the most sizes n (of two equals, the
    larger one). Longer blocks are left out: all of them contain the middle of the model.
    """
    return regions_below(heights(matrix), threshold)


def regions_below(rows: np.ndarray, threshold: float) -> np.ndarray:
    """The `regions` of a map whose `heights` are known: one map has many thresholds."""
    if not 0 < threshold < 1:
        raise ValueError(f"The threshold of a rescaled distance lies in (0, 1), not {threshold}.")
    labels, count = ndimage.label(rows <= threshold, structure=NEIGHBOURS)
    best = labels[np.arange(len(rows)), (rows == 0).argmax(axis=1)]  # the label of each l*(n)
    best_starts = np.bincount(best, minlength=count + 1)
    area = np.bincount(labels.ravel(), minlength=count + 1)
    similar = range(1, count + 1)
    band = max(similar, key=lambda label: (best_starts[label], area[label]))
    others = [label for label in similar if label != band]
    others.sort(key=lambda label: -area[label])
    renamed = np.zeros(count + 1, int)  # the new label of each old one; what is not similar stays 0
    renamed[[band, *others]] = similar
    return renamed[labels]


def islands(distances, threshold: float = THRESHOLD, again=None) -> pd.DataFrame:
    """The islands of a map, the largest first: similar blocks apart from the main one (`regions`).

    distances: a BlockDistances, or a matrix as `of_matrix` takes it. A row an island: whether it is
    shallower or deeper than the band (by the mean middle of the blocks), the starts l and sizes n
    of its blocks, the layers these drop (0-indexed, last_layer included), its most similar block
    (by the row-rescaled distance) with its distance and standard error, its area (number of
    blocks), and its stability: the share of bootstraps of the folds (`again`, by default of
    `resampled_heights`) in which an island reappears that shares half of the blocks of both.
    Stability is NaN with fewer than 16 folds.
    """
    if not isinstance(distances, BlockDistances):
        distances = of_matrix(distances)
    labels = regions(distances.matrix, threshold)
    if again is None:
        again = [regions_below(rows, threshold) for rows in resampled_heights(distances.folds)]
    stability = np.full(labels.max() - BAND, np.nan)
    if len(again):
        stability = np.mean([_matches_by_iou(labels, other) for other in again], axis=0)
    rows = [_region(distances, labels, label) for label in range(BAND, labels.max() + 1)]
    table = pd.DataFrame(rows).assign(threshold=threshold, stability=[np.nan, *stability])
    return table[1:].reset_index(drop=True)  # without the band, whose row gives the columns


def of_matrix(matrix: np.ndarray) -> BlockDistances:
    """Return the map of a matrix of distances, measured by any program; without errors or folds.

    matrix: (L+1, L+1), [l, m] for l < m: how far the states turn between the inputs of layers l and
    m (m = L: the output of the last one), in half turns. What is below the diagonal is not read.
    Raises ValueError for any other.
    """
    matrix = np.asarray(matrix, dtype=float)
    if matrix.ndim != 2 or len(matrix) != matrix.shape[1] or len(matrix) < FEWEST_LAYERS + 1:
        raise ValueError(
            f"A map of L layers is a matrix (L+1, L+1), L at least {FEWEST_LAYERS}, not one of "
            f"shape {matrix.shape}."
        )
    above = matrix[np.triu_indices(len(matrix), k=1)]
    if not (np.isfinite(above).all() and above.min() >= 0 and 0 < above.max() <= 1):
        raise ValueError(
            "Distances are half turns, from 0 to 1, and not all 0: arccos(cosine) / pi. Those "
            f"above the diagonal go from {above.min():.3g} to {above.max():.3g}."
        )
    upper = np.triu(matrix, 1)
    return _without_errors(upper + upper.T)


def _without_errors(matrix: np.ndarray) -> BlockDistances:
    unknown, no_folds = np.full_like(matrix, np.nan), np.empty((0, *matrix.shape))
    return BlockDistances(matrix, unknown, no_folds, num_sequences=0)


def _region(distances, labels: np.ndarray, label: int) -> dict:
    """The row of a region in the table of `islands`."""
    heights = rescaled(by_size(distances.matrix))
    rows, starts = np.nonzero(labels == label)
    sizes = rows + 1
    lowest = np.argmin(heights[rows, starts])
    start, size = starts[lowest], sizes[lowest]
    side = "shallower" if _middle(labels, label) < _middle(labels, BAND) else "deeper"
    return {
        "island": label - BAND,
        "side": side,
        "first_start": starts.min(),
        "last_start": starts.max(),
        "smallest_size": sizes.min(),
        "largest_size": sizes.max(),
        "first_layer": starts.min(),
        "last_layer": (starts + sizes).max() - 1,
        "block_start": start,
        "block_size": size,
        "value": distances.matrix[start, start + size],
        "standard_error": distances.standard_error[start, start + size],
        "area": len(starts),
    }


def resampled_heights(folds: np.ndarray) -> np.ndarray:
    """The `heights` of RESAMPLES bootstraps of the folds (F, L+1, L+1); none of fewer than 16."""
    if len(folds) < FEWEST_FOLDS:
        return np.array([])
    random = np.random.default_rng(0)
    draws = random.integers(len(folds), size=(RESAMPLES, len(folds)))
    return heights(np.array([folds[draw].mean(0) for draw in draws]))


def shallower(matrix: np.ndarray, threshold: float = THRESHOLD) -> int:
    """How many islands of a matrix of distances (L+1, L+1) are shallower than the main region.

    Those that are there, too, in the map of `growth_only` do not count.
    """
    labels = regions(matrix, threshold)
    middles = [_middle(labels, label) for label in range(BAND + 1, labels.max() + 1)]
    is_shallower = np.array(middles) < _middle(labels, BAND)
    if not is_shallower.any():
        return 0
    return int(np.sum(is_shallower & ~by_growth(matrix, threshold)))


def islands_table(maps: dict, thresholds=(THRESHOLD,)) -> pd.DataFrame:
    """Return the `islands` of several maps, at each of some thresholds.

    by_growth: whether the island is there, too, in the map of `growth_only`.
    """
    tables = []
    for name, threshold in product(maps, thresholds):
        matrix = maps[name].matrix
        table = islands(maps[name], threshold)
        table["by_growth"] = by_growth(matrix, threshold)
        table.insert(0, "model", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


# ---- islands of nothing: a stream that only grows --------------------------------------------


def growth_only(turns: np.ndarray) -> np.ndarray:
    """Return the distances (L+1, L+1) of a stream to which each layer adds a random direction.

    turns: how far each layer alone turns the state, d(x^(l), x^(l+1)), (L,). In many dimensions
    random directions are orthogonal, so the cosines of the turns multiply.
    """
    # why this null: rows of figure 4 are rescaled, so that even such a stream, in which no layer
    # belongs to another, has patches of colour; only what it lacks can be the model's doing
    turns = np.minimum(turns, RIGHT_ANGLE)
    log_cosines = np.log(np.cos(np.pi * turns))
    depths = np.concatenate([[0], log_cosines.cumsum()])
    between = abs(depths[:, None] - depths)
    return np.arccos(np.exp(-between)) / np.pi


def twin(matrix: np.ndarray) -> BlockDistances:
    """Return the map of `growth_only` with the turns of the layers of a matrix of distances."""
    return _without_errors(growth_only(np.diagonal(matrix, 1)))


def by_growth(matrix: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """Return of each island of a matrix whether the map of `growth_only` has it, too."""
    grown = regions(twin(matrix).matrix, threshold)
    return _matches_by_iou(regions(matrix, threshold), grown)


def islands_of_noise(matrix: np.ndarray) -> np.ndarray:
    """Return how many islands RESAMPLES streams have that only grow, by a map's turns in random
    order. Layer 0, whose turn is far longer than all others, stays the first."""
    random = np.random.default_rng(0)
    first, *others = np.diagonal(matrix, 1)
    orders = [random.permutation(others) for _ in range(RESAMPLES)]
    streams = [growth_only(np.array([first, *order])) for order in orders]
    return np.array([regions(stream).max() - BAND for stream in streams])


def _middle(labels: np.ndarray, label: int) -> float:
    """The mean middle of the blocks of a region, in layers."""
    rows, starts = np.nonzero(labels == label)
    return np.mean(starts + (rows + 1) / 2)


def _matches_by_iou(labels: np.ndarray, again: np.ndarray) -> np.ndarray:
    """Whether an island of `again` shares half of all blocks of both with each of `labels`."""
    shape = (labels.max() + 1, again.max() + 1)
    shared = np.zeros(shape, int)  # how many blocks have one label here and another there
    np.add.at(shared, (labels, again), 1)
    either = shared.sum(1, keepdims=True) + shared.sum(0) - shared
    same = shared >= either / 2
    return same[BAND + 1 :, BAND + 1 :].any(axis=1)
