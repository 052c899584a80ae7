"""Measure what is missing, and return tables: the only room that computes and stores.

`table(experiment, maps, profile)` asks an experiment for its requests, fetches their results from
the cache, measures what is missing, and writes the table of all. An experiment is a function of a
model's name, its distances and a profile; its name is its table's. `question.register` adds the
kinds of result of a question of `beyond`, and its own ways to make a table.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd

from lib.blocks import BlockDistances
from replication import tables
from replication.measure import damage, inference_cost, scores
from replication.measure.distance_maps import distances
from replication.measure.request import Request
from replication.profiles import DRAW_ONLY_PROFILE, Profile

Experiment = Callable[..., list[Request]]  # of a model's name, its distances and a profile
TABLES: dict[str, Callable[[Sequence[Request]], pd.DataFrame]] = {  # by experiment, if not scores
    "damage": damage.table,
    "cost": inference_cost.table,
    "trainings": scores.trainings,
}


def table(
    experiment: Experiment, maps: Mapping[str, BlockDistances] | Iterable[str], profile: Profile
) -> pd.DataFrame:
    """Return the table of an experiment, a row a score: as recorded, or measured now and written.

    maps: the distances of its models (or only their names, where it needs none). Raises NotMeasured
    if it has no row, where scores that are missing would have one each.
    """
    name, is_asked = experiment.__name__, True
    if profile.name != DRAW_ONLY_PROFILE:
        is_asked = _write_measured(experiment, maps, profile)
    rows = tables.read(name, profile, maps)
    if name in TABLES and rows.empty and is_asked:
        raise tables.NotMeasured(f"Nothing of {name!r} is measured of {', '.join(maps)}.")
    return rows


def or_recorded(experiment: Experiment, maps, profile: Profile) -> pd.DataFrame:
    """Return the table of an experiment; the recorded one if the run has measured no cut."""
    return tables.or_recorded(table(experiment, maps, profile), profile, experiment.__name__)


def _write_measured(experiment: Experiment, maps, profile: Profile) -> bool:
    """Measure what is missing of an experiment, write its table; return if it asks anything."""
    name = experiment.__name__
    of_models = maps if isinstance(maps, Mapping) else dict.fromkeys(maps)
    requests = []
    for model, of_model in of_models.items():
        requests += experiment(model, of_model, profile)
    requests = [request for request in requests if request.params.get("questions") != 0]
    table_of = TABLES.get(name, scores.table)
    tables.write(table_of(requests), name, profile)
    return bool(requests)
