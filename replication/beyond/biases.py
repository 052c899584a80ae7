"""Answers by letter without their bias: what a model knows, not which letter it likes.

Not in a notebook yet: MMLU along an early exit and the similarity-informed cut, of the questions of
the other notebooks and of as many others, which confirm what was seen in the first.

A pruned model may prefer one letter whatever is asked. Its log-likelihoods still tell the options
of a question apart, if what it adds to a letter is the same for every question. Three measures see
that; each is of the stored log-likelihoods, no model is run.

- accuracy, biases removed: from each letter's log-likelihood its mean over the *other* folds of
  questions is taken. No label is used.
- AUC of a letter: how often a letter is likelier, compared with the other letters of its question,
  where it is right than where it is wrong. 0.5: it knows nothing. A bias moves nothing here.
- calibrated loss: nats of the right letter after one temperature and a bias a letter, fitted with
  labels on the other folds. Guessing: the logarithm of the number of letters.
"""

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_softmax

from lib.evaluation import accuracy_with_ties, weighted_mean
from replication.analysis.answers import auc_influences
from replication.measure.experiments import cuts, unpruned
from replication.measure.request import Request
from replication.profiles import Profile

QUESTIONS = {"recorded": "mmlu", "other": "mmlu_other"}
MOST = {"early exit": 10, "similarity": 6}  # layers dropped

FOLDS = 5  # of questions, by their number
MEASURES = ("accuracy", "accuracy, biases removed", "AUC of a letter", "calibrated loss (nats)")
GUESS = {  # what a model scores that knows nothing, of k letters
    "accuracy": lambda k: 1 / k,
    "accuracy, biases removed": lambda k: 1 / k,
    "AUC of a letter": lambda k: 0.5,
    "calibrated loss (nats)": np.log,
}


def requests(name: str, distances, profile: Profile) -> list[Request]:
    """MMLU by letter at every size up to MOST; column questions."""
    layers, wanted = distances.num_layers, []
    for questions, task in QUESTIONS.items():
        wanted += unpruned(name, profile, [task], questions=questions)
        for strategy, most in MOST.items():
            sizes = range(1, min(most, layers - 1) + 1)
            wanted += cuts(name, distances, profile, [task], [strategy], sizes, questions=questions)
    return wanted


# ---- the statistics -------------------------------------------------------------------------


def letter_measures(scores: pd.DataFrame) -> pd.DataFrame:
    """MEASURES of every score by letter, a row a score and measure.

    scores: of tasks whose choices are letters. value, standard_error and examples are those of the
    measure; chance is that of GUESS. share: of the commonest answer, before and after its bias is
    removed. Questions with another number of letters than most are left out.
    """
    rows = []
    for score in scores[scores.choices.notna()].to_dict("records"):
        letters = int(np.median([len(choices) for choices in score["choices"]]))
        kept = np.array([len(choices) == letters for choices in score["choices"]])
        loglikelihoods = np.stack([score["choices"][i] for i in np.flatnonzero(kept)])
        answers = np.array(score["answers"])[kept]
        weights = np.asarray(score["weights"], float)[kept]
        unbiased = without_bias(loglikelihoods, weights)
        of_measure = {
            "accuracy": (correct(loglikelihoods, answers), loglikelihoods),
            "accuracy, biases removed": (correct(unbiased, answers), unbiased),
            "AUC of a letter": (letter_auc(loglikelihoods, answers), loglikelihoods),
            "calibrated loss (nats)": (
                calibrated_losses(loglikelihoods, answers, weights),
                loglikelihoods,
            ),
        }
        for measure, (examples, compared) in of_measure.items():
            value, error = weighted_mean(examples, weights)
            rows.append(
                score
                | {"measure": measure, "value": value, "standard_error": error}
                | {"examples": examples, "weights": weights, "n": len(examples)}
                | {"chance": float(GUESS[measure](letters)), "floor": np.nan, "majority": np.nan}
                | {"share": commonest_share(compared, weights)}
            )
    return pd.DataFrame(rows)


def fold_of(count: int) -> np.ndarray:
    """The fold of each of `count` questions: (count,)."""
    return np.arange(count) % FOLDS


def without_bias(loglikelihoods: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Log-likelihoods (n, letters) minus each letter's mean over the questions of other folds.

    Only differences between the letters of a question count, so what all letters of a question
    have in common is taken away first.
    """
    relative = loglikelihoods - loglikelihoods.mean(axis=1, keepdims=True)
    folds, unbiased = fold_of(len(relative)), np.empty_like(relative)
    for fold in range(FOLDS):
        others = folds != fold
        bias = np.average(relative[others], axis=0, weights=weights[others])
        unbiased[~others] = relative[~others] - bias
    return unbiased


def correct(loglikelihoods: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Of each question 1 if its right letter is the likeliest, shared among equals: (n,)."""
    pairs = zip(loglikelihoods, answers, strict=True)
    return np.array([accuracy_with_ties(values, answer) for values, answer in pairs])


def commonest_share(loglikelihoods: np.ndarray, weights: np.ndarray) -> float:
    """The share of questions that get the letter which is chosen most."""
    chosen = np.bincount(loglikelihoods.argmax(axis=1), weights)
    return float(chosen.max() / weights.sum())


def letter_auc(loglikelihoods: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Influences (n,) whose mean is the area under the ROC curve, mean over letters.

    Compared is a letter's log-likelihood minus the mean of the others of its question: a bias adds
    the same to all questions, and changes no pair. As in DeLong et al., the spread of the
    influences gives the standard error.
    """
    n, letters = loglikelihoods.shape
    influences = np.zeros(n)
    for letter in range(letters):
        others = np.delete(loglikelihoods, letter, axis=1).mean(axis=1)
        lead = loglikelihoods[:, letter] - others
        influences += auc_influences(lead, answers == letter) / letters
    return influences


def calibrated_losses(
    loglikelihoods: np.ndarray, answers: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Nats of the right letter (n,) after a temperature and biases, fitted on the other folds."""
    relative = loglikelihoods - loglikelihoods.mean(axis=1, keepdims=True)
    folds, losses = fold_of(len(relative)), np.empty(len(relative))
    for fold in range(FOLDS):
        others = folds != fold
        scale, biases = _calibration(relative[others], answers[others], weights[others])
        own = _losses(relative[~others], answers[~others], scale, biases)
        losses[~others] = own
    return losses


def _losses(relative: np.ndarray, answers: np.ndarray, scale: float, biases) -> np.ndarray:
    logprobs = log_softmax(scale * relative + biases, axis=1)
    return -np.take_along_axis(logprobs, answers[:, None], axis=1)[:, 0]


def _calibration(relative: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> tuple:
    """The scale (one over the temperature, at least 0) and biases of least weighted loss."""
    letters = relative.shape[1]

    def loss(parameters: np.ndarray) -> float:
        own = _losses(relative, answers, parameters[0], parameters[1:])
        return float(np.average(own, weights=weights))

    bounds = [(0, None)] + [(None, None)] * letters
    best = minimize(loss, np.append(1.0, np.zeros(letters)), method="L-BFGS-B", bounds=bounds)
    return best.x[0], best.x[1:]
