"""Fill the cache again from the tables of a run, so that a recording goes on in a clean clone."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from replication import tables
from replication.measure import cache, codec, damage
from replication.measure.scores import SCORE

HEALED = ("losses", "real_tokens", "epochs")  # of a healing's values; its adapter is not kept


def restore(folder: Path) -> int:
    """Store the results that the tables of a folder hold; return how many. What is there stays.

    Scores (also with linear maps), healings, distances and damage; costs, states and what fitting a
    map took are measured again. Lists of adapters are empty: a healing is repeated only if a score
    of it is missing.
    """
    stored = set()
    for name in tables.names(folder):
        table = tables.read_file(folder / f"{name}.parquet")
        for text, rows in table.groupby("request", sort=False):
            params = json.loads(text)
            kind = params.pop("kind")
            for own, values in VALUES.get(kind, _nothing)(params, rows):
                first = rows.iloc[0]
                place = cache.location(kind, own)
                if values is not None and first.environment != "null" and place not in stored:
                    stored.add(place)
                    if not place.exists():
                        environment = json.loads(first.environment)
                        more = {"environment": environment, "restored": True}
                        cache.save(kind, own, values, first.took, first.status, **more)
    return len(stored)


def _nothing(params: dict, rows: pd.DataFrame) -> list:
    return []


def _score(params: dict, rows: pd.DataFrame) -> list[tuple[dict, dict]]:
    row = rows.iloc[0]
    values = {key: _plain(row[key]) for key in SCORE if pd.notna(row.get(key))}
    if row.examples is None:
        return [(params, {} if row.status.startswith("no answer: no FFN") else None)]
    choices = row.choices
    return [(params, values | codec.packed(row.examples, row.weights, choices, row.answers))]


def _healing(params: dict, rows: pd.DataFrame) -> list[tuple[dict, dict]]:
    row = rows.iloc[0]
    values = {"status": row.status, "adapter": None, "losses": row.losses.tolist()}
    values |= {"real_tokens": _plain(row.tokens), "epochs": _plain(row.epochs)}
    return [(params, values)]


def _distances(params: dict, rows: pd.DataFrame) -> list[tuple[dict, dict]]:
    distances = tables.distances_of(rows)
    values = {name: getattr(distances, name).tolist() for name in tables.ARRAYS}
    return [(params, values | {"num_sequences": distances.num_sequences})]


def _damage(params: dict, rows: pd.DataFrame) -> list[tuple[dict, dict]]:
    """The chunks of texts: the loss of the unpruned model, then after dropping each block."""
    losses = np.stack(rows.losses)
    unpruned = losses[0] - rows.examples.iloc[0]
    losses = np.vstack([unpruned, losses])
    blocks = [[0, 0], *rows[list(tables.BLOCK)].to_numpy().tolist()]
    tokens, chunks = rows.weights.iloc[0], []
    for first in range(0, len(tokens), damage.CHUNK):
        part = slice(first, first + damage.CHUNK)
        own = params | {"first": first, "sequences": len(tokens[part])}
        values = {"blocks": blocks, "losses": losses[:, part].tolist()}
        chunks.append((own, values | {"tokens": tokens[part].tolist()}))
    return chunks


def _plain(value):
    """A number as JSON has it."""
    return value.item() if hasattr(value, "item") else value


VALUES = {
    "scores": _score,
    "repair": _score,
    "healing": _healing,
    "similarity": _distances,
    "damage": _damage,
}
