"""Blocks of layers, the distances between their ends, and the paper's two ways to choose one.

A block is 0-indexed and half-open: Block(start, size) is `range(start, start + size)` in the
numbering of the unpruned model. The input of layer `start` goes to layer `start + size` instead.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, order=True)
class Block:
    """The consecutive layers start, …, start + size - 1 that are dropped; size 0 drops nothing."""

    start: int
    size: int

    def __post_init__(self):
        if self.start < 0 or self.size < 0:
            raise ValueError(f"A block needs a start and a size of at least 0, not {self}.")

    @property
    def stop(self) -> int:
        """The first layer after the cut."""
        return self.start + self.size

    def kept(self, num_layers: int) -> list[int]:
        """The layers that stay, of a model of `num_layers`. Raises ValueError if none would."""
        if self.stop > num_layers or (self.size and self.size >= num_layers):
            raise ValueError(
                f"Cannot drop layers {self.start} to {self.stop - 1} of a model with "
                f"{num_layers} layers (0 to {num_layers - 1}): a block may not run past the end, "
                "and at least one layer must stay."
            )
        return [l for l in range(num_layers) if not self.start <= l < self.stop]

    def input_after_cut(self, state):
        """Return what layer `stop` reads for x^(start), (B, T, D).

        A plain cut hands the state on; `healing.linear.Mapped` puts a linear map there. It is a
        method so that a sweep runs both without knowing which it has.
        """
        return state


UNPRUNED = Block(0, 0)


@dataclass(frozen=True)
class BlockDistances:
    """d(x^(l), x^(m)) for all 0 <= l, m <= L, as fractions of a half turn (0 to 1).

    matrix, standard_error: (L+1, L+1), fp64. folds: (F, L+1, L+1), the means over F disjoint
    parts of the sequences, for resampling (F = 16, fewer only for fewer sequences).
    """

    matrix: np.ndarray
    standard_error: np.ndarray
    folds: np.ndarray
    num_sequences: int

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self.matrix) - 1

    def of(self, block: Block) -> float:
        """The distance between the input of `block` and its output."""
        return float(self.matrix[block.start, block.stop])

    def row(self, size: int) -> np.ndarray:
        """d(x^(l), x^(l+size)), l = 0 … L - size: a curve of figure 1c, a row of figure 4."""
        if not 1 <= size < self.num_layers:
            raise ValueError(
                f"A block size must lie between 1 and {self.num_layers - 1}, not {size}: the "
                f"model has {self.num_layers} layers and one must stay."
            )
        return np.diagonal(self.matrix, size)

    def best_start(self, size: int) -> int:
        """l*(n) = argmin over l of d(x^(l), x^(l+n)), n = size."""
        return int(np.nanargmin(self.row(size)))


def similarity_block(distances, size: int) -> Block:
    """The paper's choice: start l*(n) = argmin over l of d(x^(l), x^(l+n))."""
    return Block(distances.best_start(size), size)


def simple_block(num_layers: int, size: int) -> Block:
    """The paper's simple strategy: the `size` deepest layers except the last one."""
    block = Block(num_layers - 1 - size, size) if size < num_layers else Block(0, size)
    block.kept(num_layers)
    return block
