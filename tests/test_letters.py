"""Biases of letters on made-up answers: a known one is removed; what a readout sees."""

import conftest
import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

from replication.beyond.letters import biases

N, LETTERS = 1000, 4
BIAS = np.array([0.0, 6.0, -3.0, 1.0])
WEIGHTS = np.ones(N)


def made_up(knowledge: float, bias=0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihoods of N questions, the right letter `knowledge` nats higher, and answers."""
    draw = np.random.default_rng(seed)
    answers = draw.integers(LETTERS, size=N)
    loglikelihoods = draw.normal(size=(N, LETTERS)) + bias
    loglikelihoods[np.arange(N), answers] += knowledge
    shared = draw.normal(size=(N, 1))
    return loglikelihoods + shared, answers


def score(loglikelihoods: np.ndarray, answers: np.ndarray, **columns) -> dict:
    """A score as tables have it; by default of the unpruned model."""
    defaults = {"questions": "recorded", "task": "mmlu", "weights": WEIGHTS, "answers": answers}
    return conftest.score(0, 50, choices=list(loglikelihoods), **defaults | columns)


# ---- biases --------------------------------------------------------------------------------


def biases_removed(loglikelihoods: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Minus each letter's mean over the questions whose number has another remainder by five."""
    relative = loglikelihoods - loglikelihoods.mean(axis=1, keepdims=True)
    remainder = np.arange(N) % 5
    unbiased = []
    for question in range(N):
        others = remainder != remainder[question]
        bias = np.average(relative[others], axis=0, weights=weights[others])
        unbiased.append(relative[question] - bias)
    return np.array(unbiased)


def test_a_bias_is_that_of_the_other_folds_by_the_weights_of_the_score():
    loglikelihoods, _ = made_up(0.0, BIAS)
    weights = np.linspace(1, 3, N)
    unbiased = biases.without_bias(loglikelihoods, weights)
    np.testing.assert_allclose(unbiased, biases_removed(loglikelihoods, weights))


def test_measures_are_those_of_their_definitions():
    loglikelihoods, answers = made_up(1.0, BIAS)
    measured = biases.letter_measures(pd.DataFrame([score(loglikelihoods, answers)]))
    value = measured.set_index("measure").value
    unbiased = biases_removed(loglikelihoods, WEIGHTS)
    correct = [np.mean(read.argmax(axis=1) == answers) for read in (loglikelihoods, unbiased)]
    assert value["accuracy"] == pytest.approx(correct[0])
    assert value["accuracy, biases removed"] == pytest.approx(correct[1])
    areas = []
    for letter in range(LETTERS):
        others = np.delete(loglikelihoods, letter, axis=1)
        lead = loglikelihoods[:, letter] - others.mean(axis=1)
        right, wrong = lead[answers == letter], lead[answers != letter]
        areas.append(mannwhitneyu(right, wrong).statistic / len(right) / len(wrong))
    assert biases.letter_aucs(loglikelihoods, answers) == pytest.approx(areas)


# ---- a readout from another set -------------------------------------------------------------


def test_a_readout_sees_what_removing_biases_does_not():
    """Made up: the right letter is pushed down, on both sets of questions."""
    scores = []
    for seed, questions in enumerate(("recorded", "other")):
        loglikelihoods, answers = made_up(-2.0, BIAS, seed=seed)
        scores.append(score(loglikelihoods, answers, questions=questions))
    rows = biases.readouts(pd.DataFrame(scores), ["model", "block_size"])
    assert rows.fitted_on.tolist() == ["recorded", "other"] == rows.judged_on.tolist()[::-1]
    for row in rows.itertuples():
        assert row.unbiased < 0.1 and row.auc_1 < 0.2
        assert row.value > 0.7 and 0.25 < row.null < 0.6
        assert row.spread == pytest.approx(BIAS.std(), abs=0.1)


def test_nothing_is_read_out_where_nothing_is():
    loglikelihoods, answers = made_up(0.0, BIAS)
    other, right = made_up(0.0, BIAS, seed=1)
    chosen, shuffled = biases.read_out(loglikelihoods, answers, other)
    nulls = (shuffled == right).mean(axis=1)
    assert abs((chosen == right).mean() - nulls.mean()) < 4 * nulls.std()
