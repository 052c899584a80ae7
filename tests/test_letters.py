"""Biases of letters on made-up answers: a known one is removed; options in other orders."""

import conftest
import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

from replication.beyond import biases, orders

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
    asked = {"questions": "recorded", "task": "mmlu", "weights": WEIGHTS, "answers": answers}
    return conftest.score(0, 50, choices=list(loglikelihoods), **asked | columns)


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
    assert value["AUC of a letter"] == pytest.approx(np.mean(areas))
    means = np.sort(loglikelihoods.mean(axis=0))
    assert value["preference"] == pytest.approx(means[-1] - means[-2])
    is_right = np.eye(LETTERS, dtype=bool)[answers]
    right, wrong = unbiased[is_right], unbiased[~is_right]
    signal = right.mean() - wrong.mean()
    assert value["signal"] == pytest.approx(signal)
    assert value["d′"] == pytest.approx(signal / np.sqrt((right.var() + wrong.var()) / 2))


def test_beside_healing_compares_on_the_same_questions():
    """Made up: healing restores the balance of the letters, and nothing else."""
    plain, answers = made_up(1.5)
    biased, _ = made_up(1.5, BIAS)
    cut = {"strategy": "early exit", "block_size": 6}
    assert biases.commonest_share(biased, WEIGHTS) > 0.9
    scores = [
        score(plain, answers),
        score(biased, answers, treatment="unhealed", **cut),
        score(plain, answers, treatment="healed", **cut),
    ]
    measured = biases.letter_measures(pd.DataFrame(scores))
    (row,) = biases.beside_healing(measured).to_dict("records")
    healed = row["healed, accuracy"]
    assert row["unhealed, accuracy"] < 0.35
    assert healed == row["unpruned"] > 0.5
    unbiased = row["unhealed, accuracy, biases removed"]
    assert row["difference"] == pytest.approx(unbiased - healed)
    assert abs(row["difference"]) < 0.02
    assert 0 < row["standard_error"] < 0.01


# ---- options in cyclic orders ---------------------------------------------------------------


def scores_in_orders(bias: np.ndarray) -> pd.DataFrame:
    """Made-up scores: what is known of an option follows it, a letter's bias stays."""
    known, answers = made_up(1.5)
    letters = np.arange(LETTERS)
    scores = []
    for task, moved in orders.ORDERS.items():
        of_options = known + bias[(letters + moved) % LETTERS]
        scores.append(score(of_options, answers, task=task))
    return pd.DataFrame(scores)


def test_a_mean_over_cyclic_orders_has_no_bias():
    known, answers = made_up(1.5)
    rows = orders.by_order(scores_in_orders(BIAS)).set_index("measure")
    value = rows.value
    assert value["mean option"] == pytest.approx(biases.correct(known, answers).mean())
    assert value["mean option"] - value["all orders"] > 0.3
    assert value["biases removed"] == pytest.approx(value["mean option"], abs=0.03)
    assert rows.same_letter.min() > 0.9
    unbiased = orders.by_order(scores_in_orders(0 * BIAS)).set_index("measure")
    assert unbiased.value["mean option"] == unbiased.value["as answered"]
    assert set(unbiased.same_option) == {1}
