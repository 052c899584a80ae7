"""A run next to the recorded one: what differs beyond its error."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib import evaluation
from replication.measure import request
from replication.measure.request import grouped
from replication.profiles import Profile
from replication.results import codec
from replication.results.archive import MACHINE, Archive, rounded

AMOUNTS = ("sequences", "subjects", "questions")  # parameters that only change the error
BEYOND = 2  # standard errors from which on two measurements differ


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
    for record in of_profile(profile, here):
        other, settings = _nearest(record, others.get(_place(record), []))
        for start, size in _blocks(record):
            rows.append(_compared(record, other, settings, start, size))
    return pd.DataFrame(rows)


def of_profile(profile: Profile, here: Archive) -> Iterator[dict]:
    """The scores and distances of a profile's models and amounts of data."""
    amounts = [{"sequences": profile.similarity_sequences}]
    for prompt in (profile, profile.with_prompt(0)):
        amounts += [_amounts(request.of_task(task, prompt)) for task in evaluation.KINDS]
    for record in (*here.records("scores"), *here.records("similarity")):
        params = record["params"]
        if params["model"] in profile.models and _amounts(params) in amounts:
            yield record


def _amounts(params: dict) -> dict:
    """Of which task there is how much; distances have none."""
    return {key: params[key] for key in ("task", *AMOUNTS) if key in params}


def _place(record: dict) -> tuple:
    """The same for two records of which one may stand next to the other."""
    params = record["params"]
    where = [params.get(key) for key in ("model", "task", "block_start", "block_size")]
    return (record["kind"], *where, "recipe" in params)


def _nearest(record: dict, others: list[dict]) -> tuple[dict | None, dict]:
    """Of recorded ones that with the fewest other settings, then the most examples; these settings.

    Of each setting its values: (of the record, of the other).
    """
    pairs = [(other, _differing(_settings(record), _settings(other))) for other in others]
    return min(
        pairs,
        key=lambda pair: (len(pair[1]), -pair[0]["values"].get("n", 0)),
        default=(None, {}),
    )


def _settings(record: dict) -> dict:
    """The parameters of a record, its recipe's among them, those of the machine not."""
    params = record["params"] | record["params"].get("recipe", {})
    return {name: params[name] for name in sorted(params) if name not in (*MACHINE, "recipe")}


def _differing(mine: dict, other: dict) -> dict[str, tuple]:
    pairs = {name: (mine.get(name), other.get(name)) for name in sorted(mine | other)}
    return {name: (a, b) for name, (a, b) in pairs.items() if a != b}


def _blocks(record: dict) -> list[tuple[int, int]]:
    """Start and size of a record's block, or for distances l*(n) of each n."""
    if record["kind"] == "scores":
        return [(record["params"]["block_start"], record["params"]["block_size"])]
    matrix = np.array(record["values"]["matrix"])
    sizes = range(1, len(matrix) - 1)
    return [(int(np.diagonal(matrix, size).argmin()), size) for size in sizes]


@dataclass(frozen=True)
class Measurement:
    """A score or a distance, its standard error, and what it is the mean of.

    parts: of equal origin in every run, with their weights; rounded as recorded ones are, so that
    the same run does not differ.
    """

    value: float
    error: float
    n: int
    parts: np.ndarray
    weights: np.ndarray


def _measurement(record: dict, start: int, size: int) -> Measurement:
    values = record["values"]
    if record["kind"] == "scores":
        value, error, n = values["value"], values["standard_error"], values["n"]
        parts, weights, *_ = codec.examples_of(values)
    else:
        stop = start + size
        value = values["matrix"][start][stop]
        error = values["standard_error"][start][stop]
        n = values["num_sequences"]
        parts = np.array(values["folds"])[:, start, stop]
        weights = np.ones(len(parts))
    return Measurement(value, error, n, np.array(rounded(parts.tolist())), weights)


def _compared(record: dict, other: dict | None, settings: dict, start: int, size: int) -> dict:
    """The row of a record in the table of `compare`."""
    params = record["params"]
    recipe = params.get("recipe", {})
    mine = _measurement(record, start, size)
    row = {
        "kind": record["kind"],
        "model": params["model"],
        "task": params.get("task", "distance"),
        "treatment": "healed" if recipe else "unhealed" if size else "unpruned",
        "block_start": start,
        "block_size": size,
        "shots": params.get("shots"),
        "seed": recipe.get("seed"),
        "rank": recipe.get("rank"),
        "value": mine.value,
        "standard_error": mine.error,
        "n": mine.n,
    }
    if other is None:
        return row | {"settings": "not recorded", "differs": False}
    theirs = _measurement(other, start, size)
    row |= {"recorded": theirs.value, "recorded_error": theirs.error, "recorded_n": theirs.n}
    changed = [f"{name} {a} / {b}" for name, (a, b) in settings.items() if name not in AMOUNTS]
    if changed:
        return row | {"settings": ", ".join(changed), "differs": False}
    if settings:
        difference, error = mine.value - theirs.value, float(np.hypot(mine.error, theirs.error))
    else:
        difference, error = evaluation.weighted_mean(mine.parts - theirs.parts, mine.weights)
    units = np.float64(difference) / error if difference else 0.0
    row |= {"settings": "", "difference": difference, "error": error, "units": units}
    return row | {"differs": abs(units) > BEYOND}
