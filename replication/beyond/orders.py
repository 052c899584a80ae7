"""Options in cyclic orders: letters without their bias, by asking instead of by a statistic.

Notebook 10. `biases` subtracts four means. Here each question is asked in as many cyclic orders as
it has options, so that every option stands once at every letter. The mean log-likelihood of an
option over the orders holds every letter's bias once, and so prefers none. Nothing is fitted.
(Zheng et al., arXiv 2309.03882, correct the choice of a letter from such orders.)
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from lib.data import prompts
from lib.evaluation import KINDS, weighted_mean
from replication.beyond import last_layers
from replication.beyond.biases import correct, without_bias
from replication.beyond.letters import healed_depths
from replication.measure.experiments import cuts, unpruned
from replication.measure.request import Request
from replication.profiles import Profile

ORDERS = {  # the tasks, and how many places further down each option stands
    "arc_easy_letters": 0,
    "arc_easy_letters_1": 1,
    "arc_easy_letters_2": 2,
    "arc_easy_letters_3": 3,
}


def moved_letters(question: str, texts: list[str], places: int) -> tuple[str, list[str]]:
    """Return a prompt that lists each option so many places further down, the last ones first.

    The choices are its letters, in the order of `texts`.
    """
    last = -places % len(texts)
    prompt, letters = prompts.by_letter(question, texts[last:] + texts[:last])
    first = places % len(texts)
    return prompt, letters[first:] + letters[:first]


BY_LETTER = KINDS["arc_easy_letters"]
for task, places in ORDERS.items():
    form = partial(moved_letters, places=places)
    KINDS[task] = replace(BY_LETTER, build=partial(BY_LETTER.build, scored_form=form))

OPTIONS = len(ORDERS)  # of a question; those with another number are left out
STRATEGIES = ("similarity", "early exit")
CUT = ("model", "strategy", "block_size")
COLUMNS = (*CUT, "n", "same_letter", "same_option", "measure", "value", "standard_error")


def option_orders(name: str, distances, profile: Profile) -> list[Request]:
    """ARC-Easy in each order, after as many examples as `letters.forms`, of the main model.

    At the sizes of `last_layers`, and where both `letters.forms` and the profile heal.
    """
    if name != profile.main_model:
        return []
    layers, few_shot = distances.num_layers, profile.with_prompt(profile.mmlu_shots)
    sizes = last_layers.sizes(layers, profile)
    sizes = sorted({*sizes, *healed_depths(few_shot, layers, name)[:1]})
    requested = unpruned(name, few_shot, ORDERS)
    return requested + cuts(name, distances, few_shot, ORDERS, STRATEGIES, sizes)


def by_order(scores: pd.DataFrame) -> pd.DataFrame:
    """What asking in all orders does: a row a measure, of each cut that was asked in all of them.

    scores: of `requests`. measure: "as answered" in the order of the data set; "biases removed",
    of `biases.without_bias`; "all orders", as answered, mean over the orders; "mean option", of the
    option whose mean log-likelihood over the orders is the highest. value and standard_error: the
    accuracy, over n questions. same_letter: the share of questions that get one letter in all
    orders; same_option: one option.
    """
    rows = []
    measured = scores[scores.value.notna()]
    for cut, of_cut in measured.groupby(list(CUT), sort=False):
        of_task = of_cut.drop_duplicates("task").set_index("task")
        if not set(ORDERS) <= set(of_task.index):
            continue
        of_options, answers, weights = _of_options(of_task)
        accuracies = [correct(of_order, answers) for of_order in of_options]
        of_measure = {
            "as answered": accuracies[0],
            "biases removed": correct(without_bias(of_options[0], weights), answers),
            "all orders": np.mean(accuracies, axis=0),
            "mean option": correct(of_options.mean(axis=0), answers),
        }
        options = of_options.argmax(axis=2)
        letters = (options + np.arange(OPTIONS)[:, None]) % OPTIONS
        of_all = dict(zip(CUT, cut, strict=True))
        of_all["n"] = len(answers)
        of_all["same_letter"] = _unchanged(letters, weights)
        of_all["same_option"] = _unchanged(options, weights)
        for measure, of_questions in of_measure.items():
            value, error = weighted_mean(of_questions, weights)
            rows.append(of_all | {"measure": measure, "value": value, "standard_error": error})
    return pd.DataFrame(rows, columns=COLUMNS)


def _unchanged(chosen: np.ndarray, weights: np.ndarray) -> float:
    """The share of questions with one and the same choice in all orders; chosen: (orders, n)."""
    return float(np.average((chosen == chosen[0]).all(axis=0), weights=weights))


def _of_options(of_task: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihoods of the options in each order (orders, n, OPTIONS), answers and weights.

    A stored score has its choices in the order of the options, whatever their letters are.
    """
    first = of_task.loc["arc_easy_letters"]
    questions = [i for i, choices in enumerate(first.choices) if len(choices) == OPTIONS]
    of_options = [[of_task.loc[task].choices[i] for i in questions] for task in ORDERS]
    answers = np.array(first.answers)[questions]
    weights = np.asarray(first.weights, float)[questions]
    return np.array(of_options), answers, weights
