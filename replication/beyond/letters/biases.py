"""Answers by letter without their bias: what a model knows, not which letter it likes.

Notebook 10. MMLU along an early exit and the similarity-informed cut, of the questions of the other
notebooks and of as many others, which confirm what was seen in the first.

A pruned model may prefer one letter whatever is asked. Its log-likelihoods still tell the options
of a question apart, if what it adds to a letter is the same for every question. All that follows is
of the stored log-likelihoods, each relative to the mean of its question; no model is run.

- accuracy, biases removed: from each letter's log-likelihood its mean over the *other* folds of
  questions is taken. No label is used.
- readout: which letter is right, by a linear map of the four log-likelihoods, fitted with the
  labels of *another* set of questions. It sees answers that four means do not, as where the right
  letter is pushed down. It says what is there, not what can be had without labels.
- spread: the standard deviation of the letters' means over questions, in nats. It sees a letter
  that is avoided as well as one that is preferred.
- AUC of each letter: how often it is likelier where it is right than where it is wrong. 0.5: its
  own log-likelihood says nothing. Their mean may hide that one is far below, one far above.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd

from lib.data import prompts, sets
from lib.evaluation import TASK_SPECS, weighted_mean
from replication.analysis.answers import auc_influences
from replication.analysis.curves import transitions
from replication.beyond.letters.formats import FORMS
from replication.measure.experiments import at_sizes, cuts, unpruned
from replication.measure.question import Question
from replication.measure.request import Request
from replication.profiles import Profile
from replication.tables import grouped

QUESTIONS = {"recorded": "mmlu", "other": "mmlu_other"}


def mmlu_other(
    source: str, subjects: int, questions: int, *, other_than: int, **options
) -> list[dict]:
    """Return MMLU's questions but those that a count of `other_than` questions gives.

    options: others of `prompts.mmlu`.
    """
    every = prompts.mmlu(source, subjects, questions=10**6, **options)
    others = []
    for of_subject in grouped(every, lambda example: example["group"]).values():
        taken = sets.evenly_spaced(of_subject, other_than)
        rest = [example for example in of_subject if example not in taken]
        chosen = sets.evenly_spaced(rest, questions)
        others += [example | {"weight": 1 / len(chosen)} for example in chosen]
    return others


MMLU = TASK_SPECS["mmlu"]
OTHER = replace(
    MMLU,
    build=mmlu_other,
    counts=(*MMLU.counts, "other_than"),
    signal_task="mmlu",
    label="MMLU (other questions) by letter",
)
OWN_TASKS = {"mmlu_other": OTHER}

IN_A_SUBJECT = 100  # questions of MMLU's test split at least
MOST = {"early exit": 10, "similarity": 6}  # layers dropped

FOLDS = 5  # of questions, by their number
LETTERS = 4  # options of a question
ACCURACY, UNBIASED = "accuracy", "accuracy, biases removed"
CHANCE = 1 / LETTERS  # the accuracy of knowing nothing
RIDGE, SHUFFLES = 1.0, 1000  # of a readout: in squared nats; of the answers, for its null
QUANTILE = 0.975  # of the null


def letter_biases(name: str, distances, profile: Profile) -> list[Request]:
    """Return MMLU by letter at every size up to MOST; column questions.

    Others are asked only where every subject has as many again.
    """
    layers, requested = distances.num_layers, []
    sets = QUESTIONS if 2 * profile.mmlu_questions <= IN_A_SUBJECT else {"recorded": "mmlu"}
    for questions, task in sets.items():
        requested += unpruned(name, profile, [task], questions=questions)
        for strategy, most in MOST.items():
            sizes = range(1, min(most, layers - 1) + 1)
            requested += cuts(
                name, distances, profile, [task], [strategy], sizes, questions=questions
            )
    return requested


def second_model(name: str, distances, profile: Profile) -> list[Request]:
    """Return ARC-Easy by letter and by content, all questions, at the sizes of MOST.

    After as many examples as MMLU has, of each of `other_models`; whether its answers as given have
    a signal or not. Columns questions and form.
    """
    if name not in profile.other_models:
        return []
    sizes, requested = {strategy: range(1, most + 1) for strategy, most in MOST.items()}, []
    for form in ("letters", "content"):
        labels = {"questions": "ARC-Easy, all", "form": form, "asked_anyway": True}
        tasks = [FORMS["arc_easy"][form]]
        requested += at_sizes(name, distances, profile, tasks, sizes, **labels)
    return requested


# ---- the statistics -------------------------------------------------------------------------


def answers_by_letter(score: Mapping) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return log-likelihoods (n, LETTERS), right letters (n,) and weights (n,) of a score.

    Questions with another number of options are left out.
    """
    kept = [i for i, choices in enumerate(score["choices"]) if len(choices) == LETTERS]
    loglikelihoods = np.stack([score["choices"][i] for i in kept])
    answers = np.array(score["answers"])[kept]
    weights = np.array(score["weights"], float)[kept]
    return loglikelihoods, answers, weights


def letter_measures(scores: pd.DataFrame) -> pd.DataFrame:
    """Return every score by letter as answered and with biases removed, a row a score and measure.

    scores: of tasks whose choices are letters. value, standard_error and examples are those of the
    measure. Where nothing is measured, the scores themselves, of no measure.
    """
    rows = []
    for score in scores[scores.choices.notna()].to_dict("records"):
        loglikelihoods, answers, weights = answers_by_letter(score)
        unbiased = without_bias(loglikelihoods, weights)
        for measure, read in ((ACCURACY, loglikelihoods), (UNBIASED, unbiased)):
            examples = correct(read, answers)
            row = score | {"measure": measure, "examples": examples, "weights": weights}
            row["value"], row["standard_error"] = weighted_mean(examples, weights)
            row |= {"n": len(examples), "chance": CHANCE, "floor": np.nan, "majority": np.nan}
            rows.append(row)
    return pd.DataFrame(rows) if rows else scores.assign(measure=None)


def readouts(scores: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return what a linear readout, fitted on one set of questions, answers on another.

    A row a pair of sets.

    scores: by letter; column questions names the set. by: the columns in which scores of a pair are
    the same (model, cut, symbols). value, standard_error: the accuracy of the readout. null: what
    readouts of shuffled answers reach, 97.5 %. answered, unbiased, spread, auc_1 … auc_4: of the
    set that is judged.
    """
    rows = []
    measured = scores[scores.choices.notna()]
    for key, group in measured.groupby(list(by), sort=False, dropna=False):
        of_set = group.drop_duplicates("questions").set_index("questions").to_dict("index")
        answered = {questions: answers_by_letter(score) for questions, score in of_set.items()}
        for fitted_on, judged_on in permutations(answered, 2):
            loglikelihoods, answers, weights = answered[judged_on]
            fit, fit_answers, _ = answered[fitted_on]
            chosen, shuffled = read_out(fit, fit_answers, loglikelihoods)
            is_right = (chosen == answers).astype(float)
            value, error = weighted_mean(is_right, weights)
            nulls = np.average(shuffled == answers, axis=1, weights=weights)
            row = dict(zip(by, key, strict=True))
            row |= {"judged_on": judged_on, "fitted_on": fitted_on, "n": len(answers)}
            row |= {"value": value, "standard_error": error}
            row["null"] = np.quantile(nulls, QUANTILE)
            unbiased = without_bias(loglikelihoods, weights)
            row["answered"] = np.average(correct(loglikelihoods, answers), weights=weights)
            row["unbiased"] = np.average(correct(unbiased, answers), weights=weights)
            row["spread"] = letter_means(loglikelihoods, weights).std()
            areas = letter_aucs(loglikelihoods, answers)
            rows.append(row | {f"auc_{i}": area for i, area in enumerate(areas, start=1)})
    return pd.DataFrame(rows, columns=None if rows else [*by, "judged_on", "fitted_on", "value"])


def read_out(
    fit: np.ndarray, answers: np.ndarray, judged: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the letters that a ridge readout gives to judged questions, (m,), and what SHUFFLES
    readouts give that were fitted to shuffled answers, (SHUFFLES, m).

    fit, judged: log-likelihoods, (n, letters) and (m, letters).
    """
    targets = np.eye(LETTERS)[with_shuffled(answers, SHUFFLES)]  # (1 + SHUFFLES, n, letters)
    mean_target = targets[0].mean(axis=0)  # that of shuffled answers, too
    relative = relative_to_question(fit)
    mean = relative.mean(axis=0)
    inputs = relative - mean
    matrix = inputs.T @ inputs + RIDGE * np.eye(LETTERS)
    weights = np.linalg.solve(matrix, inputs.T @ (targets - mean_target))
    outputs = (relative_to_question(judged) - mean) @ weights + mean_target
    chosen = outputs.argmax(axis=2)
    return chosen[0], chosen[1:]


def with_shuffled(answers: np.ndarray, shuffles: int) -> np.ndarray:
    """Return answers, and so many times shuffled ones, for a null: (1 + shuffles, n)."""
    draw = np.random.default_rng(0)
    return np.array([answers, *(draw.permutation(answers) for _ in range(shuffles))])


def by_letter_and_content(second: pd.DataFrame, letter_biases: pd.DataFrame) -> pd.DataFrame:
    """Return a row a cut of `second_model`: by letter as answered, with biases removed, and read
    out by the recorded questions of MMLU; and by content."""
    cut = ["model", "strategy", "block_size"]
    measured = second[second.value.notna()]
    letters = measured[measured.form == "letters"]
    is_fitted_on = letter_biases.questions.eq("recorded")
    fit = letter_biases[is_fitted_on & letter_biases.model.isin(letters.model)]
    read = readouts(pd.concat([letters, fit]), cut)
    read = read[read.fitted_on == "recorded"]
    read = read.reindex(columns=[*cut, "n", "answered", "unbiased", "value", "null"])
    read = read.rename(columns={"value": "read out"})
    content = measured[measured.form == "content"].set_index(cut)
    return read.join(content.value.rename("content"), on=cut)


def transitions_by_measure(measured: pd.DataFrame) -> pd.DataFrame:
    """Return where half of the lead over guessing is lost, as answered and with biases removed, as
    `curves.transitions`."""
    lines = measured.groupby(["measure", "questions"], sort=False)
    tables = {line: transitions(rows) for line, rows in lines}
    return pd.concat(tables, names=["measure", "questions"]).reset_index(level=(0, 1))


def fold_of(count: int) -> np.ndarray:
    """Return the fold of each of `count` questions: (count,)."""
    return np.arange(count) % FOLDS


def without_bias(loglikelihoods: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return log-likelihoods (n, letters) minus each letter's mean over questions of other folds.

    Only differences between the letters of a question count.
    """
    relative = relative_to_question(loglikelihoods)
    folds, unbiased = fold_of(len(relative)), np.empty_like(relative)
    for fold in range(FOLDS):
        others = folds != fold
        bias = np.average(relative[others], axis=0, weights=weights[others])
        unbiased[~others] = relative[~others] - bias
    return unbiased


def correct(loglikelihoods: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return 1 for each question whose right letter is the likeliest, shared among equals: (n,)."""
    are_best = loglikelihoods == loglikelihoods.max(axis=1, keepdims=True)
    return are_best[np.arange(len(answers)), answers] / are_best.sum(axis=1)


def relative_to_question(loglikelihoods: np.ndarray) -> np.ndarray:
    """Return log-likelihoods (n, letters) minus the mean of their question."""
    return loglikelihoods - loglikelihoods.mean(axis=1, keepdims=True)


def letter_means(loglikelihoods: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return each letter's mean relative log-likelihood over the questions: (letters,) nats."""
    return np.average(relative_to_question(loglikelihoods), axis=0, weights=weights)


def letter_aucs(loglikelihoods: np.ndarray, answers: np.ndarray) -> list[float]:
    """Return the area under the ROC curve of each letter's relative log-likelihood."""
    relative = relative_to_question(loglikelihoods)
    letters = range(LETTERS)
    return [auc_influences(relative[:, i], answers == i).mean() for i in letters]


# ---- the question ----------------------------------------------------------------------------

QUESTION = Question(
    "10_letters_and_content", tasks=OWN_TASKS, experiments=(letter_biases, second_model)
)
