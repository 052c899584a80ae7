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
from lib.evaluation import weighted_mean
from replication.beyond import last_layers
from replication.beyond.biases import LETTERS, answers_by_letter, correct, without_bias
from replication.beyond.letters import ARC_EASY_BY_LETTER, healed_depths
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


OWN_TASKS = {}
for task, places in ORDERS.items():
    if places:
        moved = partial(moved_letters, places=places)
        OWN_TASKS[task] = replace(
            ARC_EASY_BY_LETTER,
            build=partial(ARC_EASY_BY_LETTER.build, scored_form=moved),
            like="arc_easy_letters",
            label=f"ARC-Easy by letter, moved by {places}",
        )

STRATEGIES = ("similarity", "early exit")
CUT = ("model", "strategy", "block_size")
COLUMNS = (*CUT, "n", "same_letter", "same_option", "measure", "value", "standard_error")


def option_orders(name: str, distances, profile: Profile) -> list[Request]:
    """Return ARC-Easy in each order, after as many examples as `letters.forms`, of the main model.

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
    """Return what asking in all orders does: a row a measure of each cut that was asked in all.

    scores: of `requests`. measure: "as answered" in the order of the data set; "biases removed",
    of `biases.without_bias`; "all orders", as answered, mean over the orders; "mean option", of the
    option whose mean log-likelihood over the orders is the highest. value and standard_error: the
    accuracy, over n questions. same_letter: the share of questions that get one letter in all
    orders; same_option: one option.
    """
    rows = []
    measured = scores[scores.value.notna()]
    for cut, of_cut in measured.groupby(list(CUT), sort=False):
        by_task = of_cut.drop_duplicates("task").set_index("task").to_dict("index")
        if not set(ORDERS) <= set(by_task):
            continue
        by_order = [answers_by_letter(by_task[task]) for task in ORDERS]
        loglikelihoods = np.array([values for values, _, _ in by_order])
        _, answers, weights = by_order[0]
        accuracies = [correct(values, answers) for values in loglikelihoods]
        by_measure = {
            "as answered": accuracies[0],
            "biases removed": correct(without_bias(loglikelihoods[0], weights), answers),
            "all orders": np.mean(accuracies, axis=0),
            "mean option": correct(loglikelihoods.mean(axis=0), answers),
        }
        options = loglikelihoods.argmax(axis=2)
        letters = (options + np.arange(LETTERS)[:, None]) % LETTERS
        of_all = dict(zip(CUT, cut, strict=True)) | {"n": len(answers)}
        of_all |= {"same_letter": _unchanged(letters, weights)}
        of_all |= {"same_option": _unchanged(options, weights)}
        for measure, examples in by_measure.items():
            value, error = weighted_mean(examples, weights)
            rows.append(of_all | {"measure": measure, "value": value, "standard_error": error})
    return pd.DataFrame(rows, columns=COLUMNS)


def _unchanged(chosen: np.ndarray, weights: np.ndarray) -> float:
    """Return the share of questions with one and the same choice in all orders; chosen: (orders,
    n)."""
    return float(np.average((chosen == chosen[0]).all(axis=0), weights=weights))
