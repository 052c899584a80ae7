"""The angular distances of a profile's models: measured on C4, or from the results."""

import json
from collections.abc import Sequence

import pandas as pd

from lib.blocks import BlockDistances
from replication import paths, tables
from replication.measure import experiments, fetching
from replication.measure.request import Request
from replication.profiles import Profile
from replication.tables import NotMeasured


def measure(profile: Profile, names: Sequence[str]) -> tuple[dict[str, BlockDistances], Profile]:
    """Return the distances of each model that can be had, and the profile without the others.

    Their table is written, too, but that of some models never in place of that of all. Raises
    ModelError (or NotMeasured) if none can be had.
    """
    measured, available = fetching.measure_each(_table_of_model, names, profile)
    if set(names) >= set(profile.models) or not tables.file("similarity", profile).exists():
        tables.write(pd.concat(measured.values(), ignore_index=True), "similarity", profile)
    return {name: tables.distances_of(table) for name, table in measured.items()}, available


def of_model(name: str, profile: Profile) -> BlockDistances:
    """Return the distances of model `name` on C4, from the results if they are there."""
    return tables.distances_of(_table_of_model(name, profile))


def fetch(requests: Sequence[Request]) -> list[dict]:
    """Return the records of maps, measured if they are missing."""
    return fetching.fetch_each(requests, _values)


def _table_of_model(name: str, profile: Profile) -> pd.DataFrame:
    """Return the rows of a model's map. Raises NotMeasured if it is not there."""
    (record,) = fetch(experiments.similarity(name, None, profile))
    if not record["values"]:
        raise NotMeasured(f"The map of {name} was not measured.")
    params = record["params"]
    columns = {"profile": profile.name}
    columns |= {key: params.get(key) for key in ("model", "revision", "dtype", "quantization")}
    columns |= fetching.origin(record)
    distances = BlockDistances.stored(record["values"])
    return pd.DataFrame([columns | row for row in tables.rows_of(distances)])


def _values(params: dict) -> dict:
    """Return the distances of a model on C4 as a result keeps them."""
    from lib.data import sets  # here, since what only reads results loads no torch
    from lib.models import files, loading
    from lib.similarity import block_distances, calibration_batches

    name, batch_tokens = params["model"], params["batch_tokens"]
    weights = {key: params[key] for key in ("quantization", "dtype")}
    texts = sets.c4("validation", sets.source(params), params["sequences"])
    tokenizer = files.tokenizer(name)
    batches = calibration_batches(texts, tokenizer, params["max_tokens"], batch_tokens)
    model, _ = loading.load_cached(name, **weights)
    distances = block_distances(model, batches)
    arrays = {key: getattr(distances, key).tolist() for key in tables.ARRAYS}
    return arrays | {"num_sequences": distances.num_sequences}


def recorded(name: str) -> tuple[BlockDistances, dict]:
    """Return a recorded map of data/recorded/, and how it was measured. Raises ValueError."""
    file = paths.RECORDED / f"{name}.json"
    if not file.exists():
        known = ", ".join(sorted(p.stem for p in paths.RECORDED.glob("*.json")))
        raise ValueError(f"No recorded map {name!r}: choose one of {known}.")
    record = json.loads(file.read_text(encoding="utf-8"))
    arrays = {key: record.pop(key) for key in tables.ARRAYS}
    return BlockDistances.stored(arrays | {"num_sequences": record["sequences"]}), record
