"""A run next to the recorded one: a join of all that both have measured."""

import json

import numpy as np
import pandas as pd

from lib.evaluation import weighted_mean
from replication.show import runs
from replication.tables import BLOCK

AMOUNTS = ("sequences", "subjects", "questions")  # of a request: they only change the error
MACHINE = ("dtype", "device")  # of a request: the machine decides them
BEYOND = 2  # standard errors from which on two measurements differ
ROUNDING = 1e-5  # recorded examples have six digits
SAME = ["settings", *BLOCK]
NUMBERS = ["value", "standard_error", "n"]
SHOWN = ["model", "task", "treatment", *BLOCK, *NUMBERS, *(f"{name}_recorded" for name in NUMBERS)]


def compare(run: pd.DataFrame, recorded: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each score, and each distance at the run's l*(n), that both measured.

    run, recorded: of `runs.measured`. Settings are the same but for the machine and the amount of
    data. Where that is the same too, the error of the difference is paired by question or text,
    else it is that of independent samples. differs: by more than BEYOND of these errors.
    """
    is_distance = run.task == runs.DISTANCE
    best = run[is_distance].groupby(["model", "block_size"]).value.idxmin()
    mine = _keyed(pd.concat([run[~is_distance], run.loc[best]]))
    both = mine.merge(_keyed(recorded), on=SAME, suffixes=("", "_recorded"))
    both["paired"] = both.amount == both.amount_recorded
    both = both.sort_values(["paired", "n_recorded"])
    both = both.drop_duplicates([*SAME, "amount"], keep="last").sort_index()
    differences = [_difference(row) for row in both.itertuples()]
    both[["difference", "error"]] = np.reshape(differences, (-1, 2))
    both["differs"] = both.difference.abs() > np.maximum(BEYOND * both.error, ROUNDING)
    return both[[*SHOWN, "difference", "error", "differs"]]


def _keyed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the settings of their requests, and the amounts of data, as JSON."""
    parts = {"amount": [], "settings": []}
    for request in rows.request:
        kept = {name: value for name, value in request.items() if name not in MACHINE}
        amount = {name: kept.pop(name) for name in AMOUNTS if name in kept}
        parts["amount"].append(json.dumps(amount))
        parts["settings"].append(json.dumps(kept))
    return rows.assign(**parts)


def _difference(row) -> tuple[float, float]:
    """Return how much more a run has than the record, and the standard error of that."""
    if row.paired:
        return weighted_mean(row.examples - row.examples_recorded, row.weights)
    return row.value - row.value_recorded, np.hypot(row.standard_error, row.standard_error_recorded)
