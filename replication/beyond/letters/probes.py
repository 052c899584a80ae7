"""Linear probes of states, cross-fitted by question: of the right place, and of the right option.

Both are ridge regressions, solved in two ways: of the states, or of their sums.

The readout of four letters (`biases.read_out`) and the linear map (`lib/healing/linear.py`) solve
their own few lines: one has a fixed strength in squared nats, the other weighs tokens, on a GPU.
"""

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from replication.beyond.letters.biases import FOLDS, LETTERS, fold_of, with_shuffled

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
    eigenvalues. Sums of folds can be added, so each state is read once: quick where states are
    many.
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


def cross_fitted_places(
    fit: np.ndarray,
    judged: np.ndarray,
    answers: np.ndarray,
    shuffles: int = 0,
    folds_of: Callable[[np.ndarray], np.ndarray] = lambda answers: fold_of(len(answers)),
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the places that probes choose and those they were taught, each (1 + shuffles, n), and
    the median strength of the first.

    fit, judged: states (n, D) of the same questions. A probe is fitted on `fit` of four folds of
    questions, and reads `judged` of the fifth. All but the first are of shuffled answers.
    folds_of: the fold of each question, from the answers; by default by its number.
    """
    labels = with_shuffled(answers, shuffles)
    targets = np.eye(LETTERS)[labels].swapaxes(0, 1)  # (n, 1 + shuffles, letters)
    fit, judged = unit(fit), unit(judged)
    folds, strengths = folds_of(answers), []
    chosen = np.empty((len(labels), len(answers)), int)
    for fold in range(FOLDS):
        held, others = folds == fold, folds != fold
        errors = inner_errors(fit[others], targets[others], folds_of(answers[others]))
        best = errors.argmin(axis=0)
        outputs = ridge(fit[others], targets[others], judged[held])
        of_best = outputs[best, :, np.arange(len(labels))]
        chosen[:, held] = of_best.argmax(axis=2)
        strengths.append(STRENGTHS[best[0]])
    return chosen, labels, float(np.median(strengths))


def inner_errors(states: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return the squared errors on inner folds, (strengths, 1 + shuffles)."""
    errors = 0.0
    for fold in range(FOLDS):
        held = folds == fold
        outputs = ridge(states[~held], targets[~held], states[held])
        errors += np.square(outputs - targets[held]).sum(axis=(1, 3))
    return errors


def cross_fitted_options(
    states: np.ndarray, answers: np.ndarray, shuffles: int = 0, factors: Sequence[float] = ()
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Return what `cross_fitted_places` does (places chosen and taught, each (1 + shuffles, n), and
    the median strength), of the chosen strengths and of these times each of `factors`.

    states: (n, options, D). A probe is fitted on four folds of questions and reads the fifth. Its
    strength is chosen on these four: fitted on three, judged by the squared error on the other.
    """
    labels = with_shuffled(answers, shuffles)
    inputs = unit(states)
    inputs = inputs - inputs.mean(axis=1, keepdims=True)
    num_options = inputs.shape[1]
    targets = (labels[:, :, None] == np.arange(num_options)) - 1 / num_options
    targets = np.moveaxis(targets, 0, -1)  # (n, options, 1 + shuffles)
    folds = stratified(answers)
    by_fold = [(inputs[folds == fold], targets[folds == fold]) for fold in range(FOLDS)]
    products = [_products(*of_fold) for of_fold in by_fold]
    best = STRENGTHS[_errors_of_options(by_fold, products).argmin(axis=1)]
    readings = []
    for factor in (1.0, *factors):
        of_factor = labels if factor == 1.0 else labels[:1]  # the null is of the chosen strength
        chosen = np.empty(of_factor.shape, int)
        for fold, (held, _) in enumerate(by_fold):
            strengths = factor * best[fold, : len(of_factor)]
            distinct = np.unique(strengths)  # each is solved once, for all that have it
            weights = _weights_without([fold], products, distinct)
            own = weights[np.searchsorted(distinct, strengths), :, np.arange(len(of_factor))]
            outputs = np.einsum("nod,sd->sno", held, own, optimize=True)
            chosen[:, folds == fold] = outputs.argmax(axis=2)
        readings.append((chosen, of_factor, float(np.median(factor * best[:, 0]))))
    return readings


def _errors_of_options(by_fold: list[tuple], products: list[tuple]) -> np.ndarray:
    """Return the squared errors on inner folds, (folds, strengths, 1 + shuffles): of the probes
    that leave a fold out, each judged by another fold that it was not fitted on."""
    num_sets = by_fold[0][1].shape[-1]
    errors = np.zeros((FOLDS, len(STRENGTHS), num_sets))
    for pair in combinations(range(FOLDS), 2):
        weights = _weights_without(pair, products, STRENGTHS)
        for held, judged in (pair, pair[::-1]):  # the same probes, without both folds
            inputs, targets = by_fold[judged]
            outputs = np.einsum("nod,kds->knos", inputs, weights, optimize=True)
            errors[held] += np.square(outputs - targets).sum(axis=(1, 2))
    return errors


def _weights_without(held: Sequence[int], products: list[tuple], strengths) -> np.ndarray:
    """Return weights, (strengths, D, 1 + shuffles), fitted on the folds but those of `held`."""
    kept = [of_fold for fold, of_fold in enumerate(products) if fold not in held]
    grams, crosses = zip(*kept, strict=True)
    return solved(sum(grams), sum(crosses), strengths)


def _products(inputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of x x^T, (D, D), and of x t^T, (D, sets)."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    flat_targets = targets.reshape(len(flat), -1)
    gram = flat.T @ flat
    cross = flat.T @ flat_targets
    return gram, cross


def stratified(answers: np.ndarray) -> np.ndarray:
    """Return the fold of each question, (n,): the right places are spread evenly over the folds."""
    folds = np.empty(len(answers), int)
    folds[np.argsort(answers, kind="stable")] = np.arange(len(answers)) % FOLDS
    return folds
