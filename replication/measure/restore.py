"""Fill the cache again from the tables of a run, so that a recording goes on in a clean clone."""

import json
from pathlib import Path

import pandas as pd

from replication import tables
from replication.measure import cache, codec
from replication.measure.scores import SCORE


def restore(folder: Path) -> None:
    """Store the results that the tables of a folder hold. What is there stays.

    Scores (also with linear maps), healings and distances. The others are measured again: damage
    (an hour), costs, states, and what fitting a map took. The adapter of a healing is not kept; a
    healing is repeated only if a score of it is missing.
    """
    for name in tables.names(folder):
        table = tables.read_file(folder / f"{name}.parquet")
        if "environment" not in table:  # nothing was asked of these models
            continue
        for text, rows in table[table.environment != "null"].groupby("request", sort=False):
            params = json.loads(text)
            kind, first = params.pop("kind"), rows.iloc[0]
            values = VALUES[kind](rows) if kind in VALUES else None
            if values is not None and not cache.location(kind, params).exists():
                measured = values, _plain(first.took), first.status
                environment = json.loads(first.environment)
                cache.save(kind, params, *measured, environment=environment, restored=True)


def _score(rows: pd.DataFrame) -> dict | None:
    """Return the values of a score; none of one that is not there."""
    row = rows.iloc[0]
    if row.examples is None:
        return {} if row.status.startswith("no answer: no FFN") else None
    values = {key: _plain(row[key]) for key in SCORE if pd.notna(row.get(key))}
    return values | codec.packed(row.examples, row.weights, row.choices, row.answers)


def _healing(rows: pd.DataFrame) -> dict:
    row = rows.iloc[0]
    values = {"status": row.status, "adapter": None, "losses": row.losses.tolist()}
    return values | {"real_tokens": _plain(row.tokens), "epochs": _plain(row.epochs)}


def _distances(rows: pd.DataFrame) -> dict:
    distances = tables.distances_of(rows)
    values = {name: getattr(distances, name).tolist() for name in tables.ARRAYS}
    return values | {"num_sequences": distances.num_sequences}


def _plain(value):
    """Return a number as JSON has it."""
    return value.item() if hasattr(value, "item") else value


VALUES = {"scores": _score, "repair": _score, "healing": _healing, "similarity": _distances}
