"""A run next to the recorded one: what differs beyond its error."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from lib import evaluation
from replication.measure import request
from replication.measure.request import grouped
from replication.profiles import Profile
from replication.results import codec
from replication.results.archive import MACHINE, Archive, rounded

AMOUNTS = ("sequences", "subjects", "questions")  # parameters that only change the error
BEYOND = 2  # standard errors from which on a difference is told


def compare(profile: Profile, here: Archive, recorded: Archive) -> pd.DataFrame:
    """The scores and distances of `profile` among the results `here`, next to those recorded.

    One row per stored score, and per block size the distance at this run's l*(n): what it is,
    value, standard_error, n, the same of the recorded run, and `settings`: what was set otherwise
    than there ("max_tokens 128 / 200"; "not recorded"). Where nothing was but the machine and the
    amount of data: difference, its error (paired if the data are the same, else as of independent
    samples), the difference in units of that error, and whether it `differs`, by more than
    BEYOND of them.
    """
    others = grouped(recorded.records(), _place)
    rows = []
    for mine in of_profile(profile, here):
        candidates = [(_differing(mine, other), other) for other in others.get(_place(mine), [])]
        nearest = min(
            candidates,
            key=lambda pair: (len(pair[0]), -pair[1]["values"].get("n", 0)),
            default=({}, None),
        )
        rows += [_compared(mine, *nearest, *block) for block in _blocks(mine)]
    return pd.DataFrame(rows)


def of_profile(profile: Profile, here: Archive) -> Iterator[dict]:
    """The scores and distances of a profile's models and amounts of data."""
    prompts = (profile, profile.with_prompt(0))
    told = [request.of_task(task, p) for task in evaluation.KINDS for p in prompts]
    told += [{"sequences": profile.similarity_sequences}]
    asked = [_amounts(params) for params in told]
    for found in (*here.records("scores"), *here.records("similarity")):
        if found["params"]["model"] in profile.models and _amounts(found["params"]) in asked:
            yield found


def _amounts(params: dict) -> dict:
    """Of which task there is how much; distances have none."""
    return {key: params[key] for key in ("task", *AMOUNTS) if key in params}


def _place(found: dict) -> tuple:
    """The same for two records of which one may stand next to the other."""
    params = found["params"]
    where = [params.get(key) for key in ("model", "task", "block_start", "block_size")]
    return (found["kind"], *where, "recipe" in params)


def _differing(mine: dict, other: dict) -> dict:
    """Parameters in which two records differ, the machine's apart: (mine, the other's)."""
    a, b = (r["params"] | r["params"].get("recipe", {}) for r in (mine, other))
    names = sorted((a.keys() | b.keys()) - {*MACHINE, "recipe"})
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}


def _blocks(found: dict) -> list[tuple[int, int]]:
    """Start and size of what a record tells of: its block, or for distances l*(n) of each n."""
    if found["kind"] == "scores":
        return [(found["params"]["block_start"], found["params"]["block_size"])]
    matrix = np.array(found["values"]["matrix"])
    return [(int(np.diagonal(matrix, n).argmin()), n) for n in range(1, len(matrix) - 1)]


def _reading(found: dict, start: int, size: int) -> tuple:
    """value, standard error, n; and parts of equal origin in every run, with their weights.

    The parts are rounded as recorded ones are, so that the same run does not differ.
    """
    values = found["values"]
    if found["kind"] == "scores":
        told = [values[key] for key in ("value", "standard_error", "n")]
        parts, weights, *_ = codec.examples_of(values)
    else:
        matrix, errors, folds = (np.array(values[k]) for k in ("matrix", "standard_error", "folds"))
        at = (start, start + size)
        told = [matrix[at], errors[at], values["num_sequences"]]
        parts, weights = folds[:, *at], np.ones(len(folds))
    return *told, np.array(rounded(parts.tolist())), weights


def _compared(mine: dict, settings: dict, other: dict | None, start: int, size: int) -> dict:
    params = mine["params"]
    recipe = params.get("recipe", {})
    row = {"kind": mine["kind"], "model": params["model"], "task": params.get("task", "distance")}
    row |= {"treatment": "healed" if recipe else "unhealed" if size else "unpruned"}
    row |= {"block_start": start, "block_size": size, "shots": params.get("shots")}
    row |= {"seed": recipe.get("seed"), "rank": recipe.get("rank")}
    value, error, n, parts, weights = _reading(mine, start, size)
    row |= {"value": value, "standard_error": error, "n": n}
    if other is None:
        return row | {"settings": "not recorded", "differs": False}
    their, their_error, their_n, their_parts, _ = _reading(other, start, size)
    row |= {"recorded": their, "recorded_error": their_error, "recorded_n": their_n}
    changed = [f"{name} {a} / {b}" for name, (a, b) in settings.items() if name not in AMOUNTS]
    if changed:
        return row | {"settings": ", ".join(changed), "differs": False}
    if settings:
        difference, apart = value - their, float(np.hypot(error, their_error))
    else:
        difference, apart = evaluation.weighted_mean(parts - their_parts, weights)
    units = np.float64(difference) / apart if difference else 0.0
    row |= {"settings": "", "difference": difference, "error": apart, "units": units}
    return row | {"differs": abs(units) > BEYOND}
