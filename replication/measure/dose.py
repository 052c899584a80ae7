"""Dose and response: healings of ever more steps, also of a model that was not cut.

Notebook 03. That control tells how much of healing is adaptation to the text.
"""

from lib.blocks import UNPRUNED
from replication.measure.experiments import cuts, healed, unpruned
from replication.measure.request import Request, score
from replication.profiles import STRATEGIES, Profile, recipe, sizes_at

TASKS = ("arc_easy", "c4")
CONTROL = 0.25  # of the longest healing: the longest of the control


def doses(name: str, distances, profile: Profile) -> list[Request]:
    """Return both strategies, unhealed and healed for each length, and the control.

    The unpruned and unhealed scores begin each line, at 0 steps. The control has short healings
    only: a whole model is the slowest to train. Columns steps and tokens.
    """
    if name not in profile.ablation_models:
        return []
    sizes = sizes_at(profile.dose_fractions, distances.num_layers)
    requested = unpruned(name, profile, TASKS)
    requested += cuts(name, distances, profile, TASKS, STRATEGIES, sizes)
    control = {"fraction": 0.0, "strategy": "none", "treatment": "control"}
    for steps in profile.dose_steps if sizes else ():
        healing = recipe(name, profile, steps=steps)
        requested += cuts(name, distances, profile, TASKS, STRATEGIES, sizes, healing)
        if steps <= CONTROL * profile.heal_steps:
            for task in TASKS:
                requested.append(score(name, profile, task, UNPRUNED, healing, **control))
    return requested


def trainings(name: str, distances, profile: Profile) -> list[Request]:
    """Return requests for the C4 loss of every healing of notebook 03, whose end is shown."""
    return [*healed(name, distances, profile, ["c4"]), *doses(name, distances, profile)]
