"""What a row asks of a model: requests of the experiments of notebooks 02 and 10.

Their tables have the names of those experiments, so that a row is made of a run's tables and of the
recorded ones alike. Imports no torch.
"""

from collections.abc import Iterable
from dataclasses import replace

from lib.blocks import UNPRUNED
from replication.beyond import letters
from replication.beyond.letters import biases, option_ends
from replication.measure import Experiment, experiments
from replication.measure.request import Request
from replication.profiles import Profile, sizes_at
from replication.profiles.strategies import WITH_EXIT

BY_LETTER = ("arc_easy_letters", "mmlu")  # in this order
FIRST = 64  # questions of ARC-Easy by letter that are asked before all others
LOSS_FRACTIONS = (0.1, 0.2, 0.3)  # of the layers dropped


def whole(name: str, distances, profile: Profile) -> list[Request]:
    """Return the whole model's scores by letter: they say which of its cuts are asked."""
    few_shot = replace(profile, arc_easy_shots=profile.mmlu_shots)
    return experiments.unpruned(name, few_shot, BY_LETTER, asked_anyway=True)


def first(name: str, distances, profile: Profile) -> list[Request]:
    """Return ARC-Easy by letter of the whole model, on FIRST questions."""
    few = replace(profile, arc_easy_questions=min(FIRST, profile.arc_easy_questions))
    return whole(name, distances, few)[:1]


def unhealed(name: str, distances, profile: Profile) -> list[Request]:
    """Return the loss at three sizes, after each kind of cut."""
    sizes = {strategy: loss_sizes(distances.num_layers) for strategy in WITH_EXIT}
    return experiments.at_sizes(name, distances, profile, ["c4"], sizes)


def forms(name: str, distances, profile: Profile) -> list[Request]:
    """Return ARC-Easy by letter and by content, after as many examples."""
    sizes = profile.block_sizes(distances.num_layers)
    requests = []
    for form in ("letters", "content"):
        tasks = [letters.FORMS["arc_easy"][form]]
        labels = {"questions": "arc_easy", "form": form}
        of_strategies = dict.fromkeys(WITH_EXIT, sizes)
        requests += experiments.at_sizes(name, distances, profile, tasks, of_strategies, **labels)
    return requests


def exits(name: str, distances, profile: Profile) -> list[Request]:
    """Return MMLU by letter after each kind of cut."""
    sizes = dict.fromkeys(WITH_EXIT, profile.block_sizes(distances.num_layers))
    return experiments.at_sizes(name, distances, profile, ["mmlu"], sizes)


def biases_of_exits(name: str, distances, profile: Profile) -> list[Request]:
    """Return MMLU, the same questions and others, after exits."""
    requests = biases.letter_biases(name, distances, profile)
    return [one for one in requests if one.labels["strategy"] in ("none", "early exit")]


def ends(name: str, distances, profile: Profile) -> list[Request]:
    """Return what can be read at each depth of the whole model, by A to D."""
    requests = option_ends.option_ends(name, distances, profile)
    by_letter = [one for one in requests if one.params["task"] == BY_LETTER[0]]
    return [one for one in by_letter if one.block == UNPRUNED]


# the names of their tables
biases_of_exits.__name__, ends.__name__ = "letter_biases", "option_ends"


def after_gate(can_answer: Iterable[str]) -> list[Experiment]:
    """Return the experiments of a model that can answer these tasks of BY_LETTER."""
    tasks, chosen = set(can_answer), [unhealed, forms]
    if "mmlu" in tasks:
        chosen += [exits, biases_of_exits]
    if "arc_easy_letters" in tasks:
        chosen.append(ends)
    return chosen


def loss_sizes(num_layers: int) -> list[int]:
    """Return the numbers of layers after whose drop a row has the loss."""
    return sizes_at(LOSS_FRACTIONS, num_layers)
