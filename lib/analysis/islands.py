"""Islands: similar blocks apart from the deep band of a distance map (figure 4, claim 5)."""

from itertools import product

import numpy as np
import pandas as pd
from scipy import ndimage

from lib.models import registry

THRESHOLD = 0.1  # of the row-rescaled distance: what is below counts as similar
RESAMPLES = 200
STABLE = 0.95  # an island with at least this stability is called stable
FEWEST_FOLDS = 16  # of which stability is told
BAND = 1  # the label of the deep band in `regions`; islands have those above it
# A block's neighbours in (n, l): shifted by one layer, or longer or shorter by one at either end.
NEIGHBOURS = np.array([[0, 1, 1], [1, 1, 1], [1, 1, 0]])
SIDES = {  # the neighbour at (n, l), and the ends of the side between, in x and in y
    (-1, 0): ((-0.5, 0.5), (-0.5, -0.5)),
    (1, 0): ((-0.5, 0.5), (0.5, 0.5)),
    (0, -1): ((-0.5, -0.5), (-0.5, 0.5)),
    (0, 1): ((0.5, 0.5), (-0.5, 0.5)),
}
COLUMNS = [
    "island",
    "side",
    "first_start",
    "last_start",
    "smallest_size",
    "largest_size",
    "first_layer",
    "last_layer",
    "block_start",
    "block_size",
    "value",
    "standard_error",
    "area",
    "threshold",
    "stability",
]


def rescaled(rows: np.ndarray) -> np.ndarray:
    """Rows of figure 4, each shifted and rescaled to [0, 1] (all 0 if its values are equal).

    rows: (..., blocks of one size); NaN, where there is no block, stays NaN.
    """
    low = np.nanmin(rows, axis=-1, keepdims=True)
    spread = np.nanmax(rows, axis=-1, keepdims=True) - low
    return (rows - low) / np.where(spread, spread, 1)


def by_size(matrix: np.ndarray) -> np.ndarray:
    """A matrix over pairs of layer inputs (L+1, L+1) as a map over blocks (L-1, L).

    [n-1, l] is that of the block of n layers that starts at l, NaN where it would not fit.
    """
    num_layers = len(matrix) - 1
    size, start = np.mgrid[1:num_layers, :num_layers]
    fits = start + size <= num_layers
    return np.where(fits, matrix[start, np.where(fits, start + size, 0)], np.nan)


def regions(matrix: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """The connected regions of similar blocks: a label for each block of up to L/2 layers.

    matrix: distances (L+1, L+1). Returns (L//2, L), [n-1, l]: 0 where the row-rescaled distance is
    above `threshold`, 1 in the deep band, 2, 3, … in the islands, the largest first. The deep band
    is the region that holds the best starts l*(n) of the most sizes n (of two equals, the larger
    region). Longer blocks are left out: all of them contain the middle of the model.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"The threshold of a rescaled distance lies in (0, 1), not {threshold}.")
    rows = rescaled(by_size(matrix)[: (len(matrix) - 1) // 2])
    labels, count = ndimage.label(rows <= threshold, structure=NEIGHBOURS)
    best = np.bincount(
        labels[np.arange(len(rows)), np.nanargmin(rows, axis=1)], minlength=count + 1
    )
    area = np.bincount(labels.ravel(), minlength=count + 1)
    band = max(range(1, count + 1), key=lambda label: (best[label], area[label]))
    others = sorted({*range(1, count + 1)} - {band}, key=lambda label: -area[label])
    return np.argsort([0, band, *others])[labels]


def islands(distances, threshold: float = THRESHOLD, resamples: int = RESAMPLES) -> pd.DataFrame:
    """The islands of a map, the largest first: similar blocks apart from the deep band (`regions`).

    distances: a similarity.BlockDistances. A row an island: whether it is shallower or deeper than
    the band (by the mean middle of the blocks), the starts l and sizes n of its blocks, the layers
    these drop (0-indexed, last_layer included), its most similar block (by the row-rescaled
    distance) with its distance and standard error, its area (number of blocks), and its
    stability: the share of `resamples` bootstraps of the folds in which an island reappears that
    shares half of the blocks of both. Stability is NaN with fewer than 16 folds. The table is
    empty if there are no islands.
    """
    found = regions(distances.matrix, threshold)
    stability = _stability(found, distances.folds, threshold, resamples)
    rows = []
    for i, share in enumerate(stability, start=1):
        mask = found == BAND + i
        side = "shallower" if _middle(mask) < _middle(found == BAND) else "deeper"
        row = {"island": i, "side": side, "threshold": threshold, "stability": share}
        rows.append(row | _extent(mask, distances))
    return pd.DataFrame(rows, columns=COLUMNS)


def shallower(matrix: np.ndarray, threshold: float = THRESHOLD) -> int:
    """How many islands of a matrix of distances (L+1, L+1) are shallower than the deep band."""
    found = regions(matrix, threshold)
    islands_ = range(BAND + 1, found.max() + 1)
    return sum(_middle(found == label) < _middle(found == BAND) for label in islands_)


def tabled(maps: dict, thresholds=(THRESHOLD,)) -> pd.DataFrame:
    """The `islands` of several maps, at each of some thresholds."""
    tables = [
        islands(distances, threshold).assign(model=registry.label(name))
        for name, distances in maps.items()
        for threshold in thresholds
    ]
    return pd.concat(tables, ignore_index=True).infer_objects()[["model", *COLUMNS]]


def counted(maps: dict, thresholds=(0.02, 0.05, 0.1, 0.2)) -> pd.DataFrame:
    """How many islands each map has at each threshold, and how many of them are STABLE."""
    table = tabled(maps, thresholds)
    rows = []
    for name, threshold in product(map(registry.label, maps), thresholds):
        found = table[(table.model == name) & (table.threshold == threshold)]
        sides = {side: int((found.side == side).sum()) for side in ("shallower", "deeper")}
        stable = int((found.stability >= STABLE).sum())
        rows.append({"model": name, "threshold": threshold} | sides | {"stable": stable})
    return pd.DataFrame(rows)


def outline(mask: np.ndarray) -> tuple[list, list]:
    """The border of the blocks of a `mask` [n-1, l], each a unit square around (l, n).

    Returns x and y of its line segments, each followed by NaN, where a line is not drawn.
    """
    x, y = [], []
    padded = np.pad(mask, 1)
    for row, start in zip(*np.nonzero(mask), strict=True):
        for (down, right), (across, along) in SIDES.items():
            if not padded[row + 1 + down, start + 1 + right]:
                x += [start + across[0], start + across[1], np.nan]
                y += [row + 1 + along[0], row + 1 + along[1], np.nan]
    return x, y


def _middle(mask: np.ndarray) -> float:
    """The mean middle of the blocks of a mask, in layers."""
    sizes, starts = np.nonzero(mask)
    return np.mean(starts + (sizes + 1) / 2)


def _extent(mask: np.ndarray, distances) -> dict:
    """Where an island lies, and its most similar block."""
    sizes, starts = np.nonzero(mask)
    sizes = sizes + 1
    rows = rescaled(by_size(distances.matrix))
    lowest = np.argmin(rows[sizes - 1, starts])
    start, size = starts[lowest], sizes[lowest]
    return {
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


def _stability(found: np.ndarray, folds: np.ndarray, threshold: float, resamples: int):
    """In what share of bootstrapped maps each island of `found` reappears."""
    if len(folds) < FEWEST_FOLDS:
        return np.full(found.max() - BAND, np.nan)
    draws = np.random.default_rng(0).integers(len(folds), size=(resamples, len(folds)))
    again = (regions(folds[draw].mean(0), threshold) for draw in draws)
    return np.mean([_reappear(found, labels) for labels in again], axis=0)


def _reappear(found: np.ndarray, again: np.ndarray) -> np.ndarray:
    """Whether an island of `again` shares half of all blocks of both with each of `found`."""
    pairs = found * (again.max() + 1) + again
    shape = (found.max() + 1, again.max() + 1)
    shared = np.bincount(pairs.ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    either = shared.sum(1, keepdims=True) + shared.sum(0) - shared
    return (shared >= either / 2)[BAND + 1 :, BAND + 1 :].any(axis=1)
