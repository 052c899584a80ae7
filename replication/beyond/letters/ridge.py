"""Ridge regressions for probes, solved in two ways: of the states, or of their sums.

The readout of four letters (`biases.read_out`) and the linear map (`lib/healing/linear.py`) solve
their own few lines: one has a fixed strength in squared nats, the other weighs tokens, on a GPU.
"""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve

STRENGTHS = 10.0 ** np.arange(-4, 2)  # of a ridge, times the mean eigenvalue


def ridge(states: np.ndarray, targets: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Return the outputs of ridge regressions for judged states: (strengths, m, sets, letters).

    states: (n, D); targets: (n, sets, letters). Solved by the eigenvectors of the n x n products,
    of which all strengths share the work: quick where states are fewer than their numbers.
    """
    mean, mean_target = states.mean(axis=0), targets.mean(axis=0)
    inputs = states - mean
    flat = (targets - mean_target).reshape(len(states), -1)
    eigenvalues, vectors = np.linalg.eigh(inputs @ inputs.T)
    projected = vectors.T @ flat
    across = (judged - mean) @ inputs.T @ vectors
    outputs = []
    for strength in STRENGTHS:
        scaled = projected / (eigenvalues + strength * eigenvalues.mean())[:, None]
        outputs.append((across @ scaled).reshape(len(judged), *targets.shape[1:]) + mean_target)
    return np.array(outputs)


def solved(gram: np.ndarray, cross: np.ndarray, strengths: Sequence[float]) -> np.ndarray:
    """Return ridge weights, (strengths, D, sets).

    gram, cross: the sums of x x^T, (D, D), and of x t^T, (D, sets). A strength counts in mean
    eigenvalues.
    Sums of folds can be added, so each state is read once: quick where states are many.
    """
    identity = np.eye(len(gram))
    mean = np.trace(gram) / len(gram)
    return np.array(
        [cho_solve(cho_factor(gram + strength * mean * identity), cross) for strength in strengths]
    )


def unit(states: np.ndarray) -> np.ndarray:
    """Return states of length 1, in fp64; one of length 0 stays."""
    states = states.astype(float)
    lengths = np.linalg.norm(states, axis=-1, keepdims=True)
    return states / np.where(lengths > 0, lengths, 1)
