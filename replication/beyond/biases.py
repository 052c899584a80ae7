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
"""

from collections.abc import Mapping
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.data import prompts, sets
from lib.evaluation import KINDS, accuracy_with_ties, weighted_mean
from lib.models import registry
from replication.analysis.answers import auc_influences
from replication.analysis.bootstrap import paired
from replication.analysis.curves import SIGNAL, transitions
from replication.beyond.letters import healed_depths
from replication.beyond.panels import label_rows, line
from replication.figures.style import (
    STYLE,
    WIDTH,
    colour,
    finished,
    nothing_measured,
)
from replication.measure.experiments import cuts, healed, unpruned
from replication.measure.request import Request, grouped
from replication.profiles import Profile

BY_LETTER = {"mmlu": "MMLU", "arc_easy_letters": "ARC-Easy"}
QUESTIONS = {"recorded": "mmlu", "other": "mmlu_other"}


def mmlu_other(
    source: str, subjects: int, questions: int, shots: int, shot_order: int, other_than: int
) -> list[dict]:
    """Return MMLU's questions but those that a count of `other_than` questions gives."""
    every = prompts.mmlu(source, subjects, questions=10**6, shots=shots, shot_order=shot_order)
    others = []
    for of_subject in grouped(every, lambda example: example["group"]).values():
        taken = sets.spread(of_subject, other_than)
        rest = [example for example in of_subject if example not in taken]
        chosen = sets.spread(rest, questions)
        others += [example | {"weight": 1 / len(chosen)} for example in chosen]
    return others


MMLU = KINDS["mmlu"]
KINDS["mmlu_other"] = replace(MMLU, build=mmlu_other, counts=(*MMLU.counts, "other_than"))

IN_A_SUBJECT = 100  # questions of MMLU's test split at least
MOST = {"early exit": 10, "similarity": 6}  # layers dropped

FOLDS = 5  # of questions, by their number
LETTERS = 4  # options of a question
ACCURACY, UNBIASED, AUC = "accuracy", "accuracy, biases removed", "AUC of a letter"
MEASURES = {ACCURACY: 1 / LETTERS, UNBIASED: 1 / LETTERS, AUC: 0.5}  # what knowing nothing scores


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
    """Return MEASURES of every score by letter, a row a score and measure.

    scores: of tasks whose choices are letters. value, standard_error and examples are those of the
    measure; chance is what knowing nothing scores. share: of the commonest answer, before and after
    its bias is removed.
    """
    rows = []
    for score in scores[scores.choices.notna()].to_dict("records"):
        loglikelihoods, answers, weights = answers_by_letter(score)
        unbiased = without_bias(loglikelihoods, weights)
        examples = (
            correct(loglikelihoods, answers),
            correct(unbiased, answers),
            letter_auc(loglikelihoods, answers),
        )
        shares = [commonest_share(of, weights) for of in (loglikelihoods, unbiased)]
        shares.append(shares[0])
        for (measure, chance), values, share in zip(
            MEASURES.items(), examples, shares, strict=True
        ):
            row = score | {"measure": measure, "examples": values, "weights": weights}
            row["value"], row["standard_error"] = weighted_mean(values, weights)
            row |= {"n": len(values), "chance": chance, "floor": np.nan, "majority": np.nan}
            rows.append(row | {"share": share})
    return pd.DataFrame(rows)


def beside_healing(measured: pd.DataFrame) -> pd.DataFrame:
    """Return what removing biases and what healing brings back, a row a cut; of letter_measures.

    A column for each measure, before and after healing, and the accuracy of the unpruned model.
    difference: biases removed without healing, minus healed as answered, paired on the questions,
    with its standard error.
    """
    versions = measured.treatment + ", " + measured.measure
    versions = measured.assign(task=measured.questions, version=versions)
    pruned = versions[versions.block_size > 0].drop(columns="treatment")
    cut = ["model", "task", "strategy", "block_size"]
    values = pruned.pivot(index=cut, columns="version", values="value")
    unpruned = versions[versions.version == f"unpruned, {ACCURACY}"].set_index(cut[:2]).value
    apart = paired(pruned, "version", f"healed, {ACCURACY}", f"unhealed, {UNBIASED}")
    apart = apart.set_index(cut)[["n", "difference", "standard_error"]]
    return apart.join(values).join(unpruned.rename("unpruned"))


def knowing(measured: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of models whose unpruned letters have a signal; all rows if no model's have.

    A signal: an AUC at least curves.SIGNAL standard errors above one half, on some question set.
    """
    whole = measured[(measured.block_size == 0) & (measured.measure == AUC)]
    signal = whole.value - whole.chance >= SIGNAL * whole.standard_error
    known = measured.model.isin(whole.model[signal])
    return measured[known] if known.any() else measured


def halves(measured: pd.DataFrame) -> pd.DataFrame:
    """Return where half of each measure's lead over guessing is lost, as `curves.transitions`."""
    lines = measured.groupby(["measure", "questions"], sort=False)
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


# ---- the figure -----------------------------------------------------------------------------

DRAWN = {ACCURACY: ("as answered", "0.45"), UNBIASED: ("biases removed", colour("letters"))}
LINES = {"recorded": ("-", "o"), "other": ("--", "D")}  # of each set of questions


def figure_biases(measured: pd.DataFrame) -> Figure:
    """Draw MMLU as it is and with biases removed, a column a model and cut.

    measured: of letter_measures. Below: the share of questions that get the letter which is chosen
    most, as the model answers. A model whose letters know nothing has no column, unless that holds
    of all models. The model that knows most comes first.
    """
    table = knowing(measured[measured.value.notna()])
    cut = table[table.block_size > 0]
    whole = table[(table.block_size == 0) & (table.measure == AUC)]
    known = whole.groupby("model").value.max()
    columns = list(cut.groupby(["model", "strategy"], sort=False).groups)
    columns.sort(key=lambda column: -known[column[0]])
    if not columns:
        return nothing_measured(measured)
    size = max(WIDTH, 1.9 * len(columns)), 4.4
    grid = {"squeeze": False, "sharex": "col", "sharey": "row", "height_ratios": (3, 1)}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, len(columns), figsize=size, **grid)
        for (above, below), (model, strategy) in zip(axes.T, columns, strict=True):
            of_model = table[table.model == model]
            _panels(above, below, of_model[of_model.strategy.isin(["none", strategy])])
            above.set_title(f"{registry.label(model)}\n{strategy}", loc="left")
            below.set_xlabel("layers dropped")
            below.xaxis.set_major_locator(MaxNLocator(integer=True))
        label_rows(figure, axes, ("MMLU accuracy", "share of the\ncommonest letter"))
        axes[1, 0].set_ylim(0, 1.05)
        return finished(figure, measured, legend="bars: 95 %")


def _panels(above, below, panel: pd.DataFrame) -> None:
    above.axhline(panel.chance.iloc[0], color="grey", ls=(0, (5, 3)), lw=1, label="chance")
    for measure, (name, shade) in DRAWN.items():
        for questions, scores in panel[panel.measure == measure].groupby("questions", sort=False):
            style, marker = LINES[questions]
            look = {"color": shade, "ls": style, "marker": marker}
            line(above, scores, "block_size", f"{name}, {questions} questions", ms=3.5, **look)
            if measure == ACCURACY:
                scores = scores.sort_values("block_size")
                below.plot(scores.block_size, scores.share, ms=3, **look)
    above.set_title(f"n = {panel.n.max():.0f}", loc="right", fontsize=7)
