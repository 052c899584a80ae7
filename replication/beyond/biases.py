"""Answers by letter without their bias: what a model knows, not which letter it likes.

Notebook 10. MMLU along an early exit and the similarity-informed cut, of the questions of the other
notebooks and of as many others, which confirm what was seen in the first. Notebook 14 compares the
removal of biases with healing.

A pruned model may prefer one letter whatever is asked. Its log-likelihoods still tell the options
of a question apart, if what it adds to a letter is the same for every question. Two measures see
that; each is of the stored log-likelihoods, no model is run.

- accuracy, biases removed: from each letter's log-likelihood its mean over the *other* folds of
  questions is taken. No label is used.
- AUC of a letter: how often a letter is likelier, compared with the other letters of its question,
  where it is right than where it is wrong. 0.5: it knows nothing. A bias moves nothing here.

Three more say how the letters change (in nats; a letter's log-likelihood is relative to the mean of
its question's letters):

- preference: of the letter that is likeliest on average, minus the next likeliest. It is what all
  questions have in common.
- signal: of the right letter minus the mean of the wrong ones, biases removed.
- d′: the signal over the standard deviation of a letter: the root of the mean of two variances over
  questions, of right letters and of wrong ones.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.data import prompts, sets
from lib.evaluation import KINDS, accuracy_with_ties, weighted_mean
from replication.analysis.answers import auc_influences
from replication.analysis.bootstrap import paired
from replication.analysis.curves import SIGNAL, transitions
from replication.beyond.letters import healed_depths
from replication.beyond.panels import cut_panels
from replication.figures.style import colour, label
from replication.measure.experiments import cuts, healed, unpruned
from replication.measure.request import Request
from replication.profiles import Profile
from replication.tables import grouped

BY_LETTER = {"mmlu": "MMLU", "arc_easy_letters": "ARC-Easy"}
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


MMLU = KINDS["mmlu"]
OTHER = replace(
    MMLU,
    build=mmlu_other,
    counts=(*MMLU.counts, "other_than"),
    like="mmlu",
    label="MMLU (other questions) by letter",
)
OWN_TASKS = {"mmlu_other": OTHER}

IN_A_SUBJECT = 100  # questions of MMLU's test split at least
MOST = {"early exit": 10, "similarity": 6}  # layers dropped

FOLDS = 5  # of questions, by their number
LETTERS = 4  # options of a question
ACCURACY, UNBIASED, AUC = "accuracy", "accuracy, biases removed", "AUC of a letter"
CHANCE = {ACCURACY: 1 / LETTERS, UNBIASED: 1 / LETTERS, AUC: 0.5}  # what knowing nothing scores
GAIN, PREFERENCE, SEPARATION = "gain of removing biases", "preference", "signal"
D_PRIME = "d′"


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


def around_healing(name: str, distances, profile: Profile) -> list[Request]:
    """Return answers by letter before and after healing, of the profile's main model; column
    questions.

    MMLU along the healed curve. At the first healed depth of `letters.forms`, and asked like it,
    also after an early exit.
    """
    if name != profile.main_model:
        return []
    layers, strategies = distances.num_layers, profile.healed_strategies(name)
    labels, sizes = {"questions": "MMLU"}, profile.curve_sizes(layers, name)
    requested = unpruned(name, profile, ["mmlu"], **labels)
    requested += cuts(name, distances, profile, ["mmlu"], strategies, sizes, **labels)
    requested += healed(name, distances, profile, ["mmlu"], labels=labels)
    few_shot = profile.with_prompt(profile.mmlu_shots)
    sizes = healed_depths(few_shot, layers, name)[:1]
    strategies = (*strategies, "early exit")
    for task, questions in BY_LETTER.items():
        labels = {"questions": f"{questions}, fewer questions"}
        cut = name, distances, few_shot, [task], strategies, sizes
        requested += unpruned(name, few_shot, [task], **labels)
        requested += [*cuts(*cut, **labels), *healed(*cut, labels)]
    return requested


# ---- the statistics -------------------------------------------------------------------------


def answers_by_letter(score: Mapping) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return log-likelihoods (n, LETTERS), right letters (n,) and weights (n,) of a score.

    Questions with another number of options are left out.
    """
    kept = [i for i, choices in enumerate(score["choices"]) if len(choices) == LETTERS]
    loglikelihoods = np.stack([score["choices"][i] for i in kept])
    return loglikelihoods, np.array(score["answers"])[kept], np.array(score["weights"], float)[kept]


def letter_measures(scores: pd.DataFrame) -> pd.DataFrame:
    """Return every score by letter by all measures of this file, a row a score and measure.

    scores: of tasks whose choices are letters. value, standard_error and examples are those of the
    measure (GAIN: accuracy, paired on the questions); chance is what knowing nothing scores, of
    the measures of CHANCE. share: of the commonest answer, before and after its bias is removed.
    letter: the number of the preferred one. gap: how far the AUC is above one half, in standard
    errors. Where nothing is measured, the scores themselves, of no measure.
    """
    rows = []
    for score in scores[scores.choices.notna()].to_dict("records"):
        loglikelihoods, answers, weights = answers_by_letter(score)
        unbiased = without_bias(loglikelihoods, weights)
        letter, preference = preferred(loglikelihoods, weights)
        before, after = correct(loglikelihoods, answers), correct(unbiased, answers)
        by_measure = {
            ACCURACY: before,
            UNBIASED: after,
            AUC: letter_auc(loglikelihoods, answers),
            GAIN: after - before,
            PREFERENCE: preference,
            SEPARATION: signal(unbiased, answers),
            D_PRIME: d_prime(unbiased, answers),
        }
        auc, error = weighted_mean(by_measure[AUC], weights)
        gap = (auc - 0.5) / error if error else np.inf
        of_score = score | {"weights": weights, "letter": letter, "gap": gap}
        share = commonest_share(loglikelihoods, weights)
        shares = {UNBIASED: commonest_share(unbiased, weights)}
        for measure, values in by_measure.items():
            row = of_score | {"measure": measure, "examples": values, "n": len(values)}
            row["value"], row["standard_error"] = weighted_mean(values, weights)
            row |= {"chance": CHANCE.get(measure, np.nan), "floor": np.nan, "majority": np.nan}
            rows.append(row | {"share": shares.get(measure, share)})
    return pd.DataFrame(rows) if rows else scores.assign(measure=None, gap=np.nan)


def beside_healing(measured: pd.DataFrame) -> pd.DataFrame:
    """Return what removing biases and what healing brings back, a row a cut; of letter_measures.

    A column for each measure, before and after healing, and the accuracy of the unpruned model.
    difference: biases removed without healing, minus healed as answered, paired on the questions,
    with its standard error.
    """
    measured = measured[measured.measure.isin(CHANCE)]
    versions = measured.treatment + ", " + measured.measure
    versions = measured.assign(task=measured.questions, version=versions)
    pruned = versions[versions.block_size > 0].drop(columns="treatment")
    cut = ["model", "task", "strategy", "block_size"]
    values = pruned.pivot(index=cut, columns="version", values="value")
    unpruned = versions[versions.version == f"unpruned, {ACCURACY}"].set_index(cut[:2]).value
    apart = paired(pruned, "version", f"healed, {ACCURACY}", f"unhealed, {UNBIASED}")
    apart = apart.set_index(cut)[["n", "difference", "standard_error"]]
    return apart.join(values).join(unpruned.rename("unpruned"))


def knowing_most(measured: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the pruned model whose unpruned letters have the largest gap."""
    pruned = measured.model[measured.block_size > 0]
    whole = measured[(measured.block_size == 0) & measured.model.isin(pruned)]
    by_gap = whole.sort_values("gap", na_position="first")
    return measured[measured.model.isin(by_gap.model.tail(1))]


def halves(measured: pd.DataFrame) -> pd.DataFrame:
    """Return where half of the lead over guessing is lost by each measure of CHANCE, as
    `curves.transitions`."""
    of_chance = measured[measured.measure.isin(CHANCE)]
    lines = of_chance.groupby(["measure", "questions"], sort=False)
    halves = {line: transitions(rows) for line, rows in lines}
    return pd.concat(halves, names=["measure", "questions"]).reset_index(level=(0, 1))


def fold_of(count: int) -> np.ndarray:
    """Return the fold of each of `count` questions: (count,)."""
    return np.arange(count) % FOLDS


def without_bias(loglikelihoods: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return log-likelihoods (n, letters) minus each letter's mean over questions of other folds.

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
    """Return 1 for each question whose right letter is the likeliest, shared among equals: (n,)."""
    pairs = zip(loglikelihoods, answers, strict=True)
    return np.array([accuracy_with_ties(values, answer) for values, answer in pairs])


def commonest_share(loglikelihoods: np.ndarray, weights: np.ndarray) -> float:
    """Return the share of questions that get the letter which is chosen most."""
    chosen = np.bincount(loglikelihoods.argmax(axis=1), weights)
    return float(chosen.max() / weights.sum())


def letter_auc(loglikelihoods: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return influences (n,) whose mean is the area under the ROC curve, mean over letters.

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


def preferred(loglikelihoods: np.ndarray, weights: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the letter that is likeliest on average, and by how much it leads the next likeliest:
    (n,) nats, whose mean is the preference."""
    relative = loglikelihoods - loglikelihoods.mean(axis=1, keepdims=True)
    *_, second, first = np.average(relative, axis=0, weights=weights).argsort()
    return int(first), relative[:, first] - relative[:, second]


def signal(unbiased: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return the right letter's log-likelihood minus the mean of the wrong ones: (n,) nats."""
    right, wrong = _right_and_wrong(unbiased, answers)
    return right - wrong.mean(axis=1)


def d_prime(unbiased: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return influences (n,) whose mean is d′: their spread gives its standard error."""
    right, wrong = _right_and_wrong(unbiased, answers)
    separation = right.mean() - wrong.mean()
    squares = (right - right.mean()) ** 2 + ((wrong - wrong.mean()) ** 2).mean(axis=1)
    variances = squares / 2
    spread = np.sqrt(variances.mean())
    value = separation / spread
    of_means = (right - wrong.mean(axis=1) - separation) / spread
    of_variances = value / 2 * (variances / variances.mean() - 1)
    return value + of_means - of_variances


def _right_and_wrong(unbiased: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-likelihoods of the right letters, (n,), and of the wrong ones, (n, letters -
    1)."""
    is_right = answers[:, None] == np.arange(unbiased.shape[1])
    return unbiased[is_right], unbiased[~is_right].reshape(len(answers), -1)


# ---- the figures ----------------------------------------------------------------------------

NATS = {SEPARATION, PREFERENCE}  # the measures that share an axis
SHADE = {"color": colour("letters"), "ms": 4}
SETS = {  # of each set of questions: the marker, hollow but for the first
    "recorded": {"marker": "o"},
    "other": {"marker": "D", "mfc": "white"},
    "ARC-Easy": {"marker": "s", "mfc": "white"},
}
STYLES = {  # of each measure that figure_mechanism draws
    SEPARATION: SHADE | {"ls": "-"},
    D_PRIME: SHADE | {"ls": "-"},
    PREFERENCE: {"color": "black", "ls": ":", "ms": 4},
}


def figure_biases(measured: pd.DataFrame) -> Figure:
    """Draw what the removal of biases adds to the accuracy of the model that knows most: paired
    gains, a row a task and a column a cut. measured: of letter_measures."""
    table = knowing_most(measured)
    gains = table[table.measure == GAIN]
    tasks = gains.questions.where(gains.questions == "ARC-Easy", "MMLU")
    drawn = gains.assign(row="gain in accuracy,\n" + tasks, line=gains.questions + " questions")
    looks = {
        f"{questions} questions": SHADE | {"ls": "none"} | marker
        for questions, marker in SETS.items()
    }
    return _figure(drawn, looks, table, sharey="all")


def figure_mechanism(measured: pd.DataFrame) -> Figure:
    """Draw signal, preference and d′ of MMLU by letter, of the model that knows most: a column a
    cut, the whole model at 0. measured: of letter_measures; the table has its other tasks, too."""
    table = knowing_most(measured)
    table = table[table.measure.isin(STYLES)]
    drawn = table[table.questions.isin(QUESTIONS)]
    rows = drawn.measure.where(~drawn.measure.isin(NATS), "nats")
    drawn = drawn.assign(row=rows, line=drawn.measure + ", " + drawn.questions + " questions")
    looks = {
        f"{measure}, {questions} questions": style | SETS[questions]
        for measure, style in STYLES.items()
        for questions in QUESTIONS
    }
    return _figure(drawn, looks, table)


def _figure(drawn: pd.DataFrame, looks: dict, table: pd.DataFrame, **kwargs) -> Figure:
    """Draw panels of one model, a column a cut; says so where its letters have no signal."""
    silent = (table.block_size == 0) & (table.gap < SIGNAL)
    name = drawn.model.map(label) + (" (no signal)" if silent.any() else "")
    columns = (name + "\n" + drawn.strategy).where(drawn.block_size > 0)
    figure = cut_panels(drawn.assign(column=columns), looks, table, **kwargs)
    for axis in figure.axes:
        axis.axhline(0, color="grey", lw=1)
    return figure
