"""Answers by letter without their bias: what a model knows, not which letter it likes.

Notebook 10. MMLU along an early exit and the similarity-informed cut, of the questions of the other
notebooks and of as many others, which confirm what was seen in the first. Notebook 14 compares the
removal of biases with healing.

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

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from lib.data import prompts, sets
from lib.evaluation import KINDS, accuracy_with_ties, weighted_mean
from lib.models import registry
from replication.analysis.answers import auc_influences
from replication.analysis.bootstrap import paired
from replication.analysis.curves import SIGNAL, transitions
from replication.beyond.letters import healed_depths
from replication.figures.style import (
    NORMAL,
    STYLE,
    WIDTH,
    colour,
    finding,
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
MEASURES = ("accuracy", "accuracy, biases removed", "AUC of a letter", "calibrated loss (nats)")
GUESS = {  # what a model scores that knows nothing, of k letters
    "accuracy": lambda k: 1 / k,
    "accuracy, biases removed": lambda k: 1 / k,
    "AUC of a letter": lambda k: 0.5,
    "calibrated loss (nats)": np.log,
}


def letter_biases(name: str, distances, profile: Profile) -> list[Request]:
    """MMLU by letter at every size up to MOST; column questions.

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
    """Answers by letter before and after healing, of the profile's main model; column questions.

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


def gains(measured: pd.DataFrame) -> pd.DataFrame:
    """What removing biases adds to the accuracy of each score, paired on its questions.

    measured: of letter_measures. Columns as of `bootstrap.paired`, and questions.
    """
    of_set = measured.groupby("questions", sort=False)
    pairs = {name: paired(rows, "measure", *MEASURES[:2]) for name, rows in of_set}
    return pd.concat(pairs, names=["questions"]).reset_index(level=0)


def beside_healing(measured: pd.DataFrame) -> pd.DataFrame:
    """What removing biases and what healing brings back, a row a cut; of letter_measures.

    Accuracies: as answered and with biases removed, unhealed and healed, and that of the unpruned
    model. removed_minus_healed: biases removed without healing, minus healed as answered, paired,
    with its standard error. auc, auc_healed: knowledge, which no bias moves.
    """
    raw, removed, auc, _ = MEASURES
    rows = []
    for cut, scores in measured.groupby(["model", "questions", "strategy", "block_size"]):
        model, questions, _, _ = cut
        by_measure = scores.set_index(["treatment", "measure"])
        if not {"unhealed", "healed"} <= set(scores.treatment):
            continue
        whole = measured[(measured.model == model) & (measured.questions == questions)]
        whole = whole[(whole.treatment == "unpruned") & (whole.measure == raw)]
        values = by_measure.value
        unbiased, healed_answers = by_measure.loc[[("unhealed", removed), ("healed", raw)]].examples
        difference = unbiased - np.asarray(healed_answers)
        mean, error = weighted_mean(difference, by_measure.weights.iloc[0])
        rows.append(
            dict(zip(("model", "questions", "strategy", "block_size"), cut, strict=True))
            | {"n": int(scores.n.iloc[0]), "unpruned": whole.value.iloc[0]}
            | {"as_answered": values["unhealed", raw], "healed": values["healed", raw]}
            | {"biases_removed": values["unhealed", removed]}
            | {"healed_biases_removed": values["healed", removed]}
            | {"removed_minus_healed": mean, "standard_error": error}
            | {"auc": values["unhealed", auc], "auc_healed": values["healed", auc]}
        )
    return pd.DataFrame(rows)


def knowing(measured: pd.DataFrame) -> pd.DataFrame:
    """The rows of models whose unpruned AUC of a letter has a signal; all rows if no model's has.

    A signal: at least curves.SIGNAL standard errors above one half, on one of its question sets.
    """
    known = measured.model.isin(_with_signal(measured))
    return measured[known] if known.any() else measured


def _with_signal(measured: pd.DataFrame) -> pd.Series:
    whole = measured[(measured.block_size == 0) & (measured.measure == "AUC of a letter")]
    return whole.model[whole.value - whole.chance >= SIGNAL * whole.standard_error]


def halves(measured: pd.DataFrame) -> pd.DataFrame:
    """Where half of each measure's lead over guessing is lost: `curves.transitions` of each."""
    rising = measured[measured.measure.isin(MEASURES[:3])]
    lines = rising.groupby(["measure", "questions"], sort=False)
    halves = {line: transitions(rows) for line, rows in lines}
    return pd.concat(halves, names=["measure", "questions"]).reset_index(level=(0, 1))


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
    """Return the scale (one over the temperature, at least 0) and biases of least weighted loss.

    The loss is convex: Newton's method finds its minimum but for rounding. The first bias is 0, as
    a constant added to all changes nothing.
    """
    n, letters = relative.shape
    of_biases = np.broadcast_to(np.eye(letters)[:, 1:], (n, letters, letters - 1))
    features = np.concatenate([relative[:, :, None], of_biases], axis=2)
    scale, *biases = _least_loss(features, answers, weights)
    if scale < 0:
        scale, biases = 0.0, _least_loss(of_biases, answers, weights)
    return scale, np.array([0.0, *biases])


def _least_loss(features: np.ndarray, answers: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the parameters (p,) of a softmax regression; features: (n, letters, p)."""
    share = weights / weights.sum()
    right = np.eye(features.shape[1])[answers]

    def loss(parameters: np.ndarray) -> float:
        return -float(share @ (right * log_softmax(features @ parameters, axis=1)).sum(1))

    def gradient(parameters: np.ndarray) -> np.ndarray:
        excess = softmax(features @ parameters, axis=1) - right
        return np.einsum("n,nk,nkp->p", share, excess, features)

    def hessian(parameters: np.ndarray) -> np.ndarray:
        probabilities = softmax(features @ parameters, axis=1)
        mean = np.einsum("nk,nkp->np", probabilities, features)
        deviation = features - mean[:, None]
        return np.einsum("n,nk,nkp,nkq->pq", share, probabilities, deviation, deviation)

    start = np.zeros(features.shape[2])
    near = minimize(
        loss, start, method="trust-exact", jac=gradient, hess=hessian, options={"gtol": 1e-6}
    ).x
    step, *_ = np.linalg.lstsq(hessian(near), gradient(near))  # finer than losses can be compared
    return near - step


# ---- the figure -----------------------------------------------------------------------------

DRAWN = {"accuracy": "0.45", "accuracy, biases removed": colour("letters")}  # and their colours
LINES = {"recorded": ("-", "o"), "other": ("--", "D")}  # of each set of questions


def figure_biases(measured: pd.DataFrame) -> Figure:
    """MMLU as it is and with biases removed, a column a model and cut; measured: letter_measures.

    Below: the share of questions that get the letter which is chosen most, as the model answers.
    A model whose letters know nothing has no column, unless that holds of all models. The model
    that knows most comes first.
    """
    table = knowing(measured[measured.value.notna()])
    cut = table[table.block_size > 0]
    whole = table[(table.block_size == 0) & (table.measure == "AUC of a letter")]
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
            panel = of_model[of_model.strategy.isin(["none", strategy])]
            _accuracies(above, panel)
            _shares(below, panel[panel.measure == "accuracy"])
            above.set_title(f"{registry.label(model)}\n{strategy}", loc="left")
            below.set_xlabel("layers dropped")
            below.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0, 0].set_ylabel("MMLU accuracy")
        _say_gain(dict(zip(columns, axes[0], strict=True)), table)
        axes[1, 0].set_ylabel("share of the\ncommonest letter")
        axes[1, 0].set_ylim(0, 1.05)
        return finished(figure, measured, legend="bars: 95 %")


def _say_gain(axes: dict, table: pd.DataFrame) -> None:
    """Write where removing the biases gains most in a model with a signal, if that is beyond
    chance."""
    gained = gains(table[table.block_size > 0])
    gained = gained[gained.model.isin(_with_signal(table))]
    for row in gained.sort_values("difference").tail(1).itertuples():
        if row.difference > NORMAL * row.standard_error:
            axis = axes[row.model, row.strategy]
            axis.set_ylim(top=axis.get_ylim()[1] + 0.1)  # room for it above the lines
            same = table[(table.measure == MEASURES[1]) & (table.questions == row.questions)]
            same = same[(same.model == row.model) & (same.strategy == row.strategy)]
            (height,) = same.value[same.block_size == row.block_size]
            text = f"biases removed:\n{row.difference:+.2f}"
            finding(axis, text, (row.block_size, height), (-35, 42))


def _accuracies(axis, panel: pd.DataFrame) -> None:
    axis.axhline(panel.chance.iloc[0], color="grey", ls=(0, (5, 3)), lw=1, label="chance")
    for measure, shade in DRAWN.items():
        of_measure = panel[panel.measure == measure]
        for questions, line in of_measure.groupby("questions", sort=False):
            style, marker = LINES[questions]
            label = f"{'as answered' if measure == 'accuracy' else 'biases removed'}, {questions}"
            look = {"color": shade, "ls": style, "marker": marker, "ms": 3.5, "elinewidth": 0.8}
            line = line.sort_values("block_size")
            bars = NORMAL * line.standard_error
            axis.errorbar(line.block_size, line.value, bars, label=f"{label} questions", **look)
    axis.set_title(f"n = {panel.n.max():.0f}", loc="right", fontsize=7)


def _shares(axis, raw: pd.DataFrame) -> None:
    for questions, line in raw.groupby("questions", sort=False):
        line = line.sort_values("block_size")
        style, marker = LINES[questions]
        axis.plot(line.block_size, line.share, color="0.45", ls=style, marker=marker, ms=3)
