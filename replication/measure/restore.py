"""Fill the cache again from the tables of a run, so that a recording goes on in a clean clone."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from replication import tables
from replication.measure import cache, codec, damage
from replication.measure.scores import SCORE

HEALED = ("losses", "real_tokens", "epochs")  # of a healing's values; its adapter is not kept


def records(folder: Path) -> Iterator[dict]:
    """Yield the results that the tables of a folder hold, each once, as the cache has them.

    Scores (also with linear maps), healings, distances and damage. Not costs, states and what
    fitting a map took: these are measured again. The adapter of a healing is not kept; a healing is
    repeated only if a score of it is missing.
    """
    keys = set()
    for name in tables.names(folder):
        table = tables.read_file(folder / f"{name}.parquet")
        if "environment" not in table:  # nothing was asked of these models
            continue
        for text, rows in table[table.environment != "null"].groupby("request", sort=False):
            params = json.loads(text)
            kind, first = params.pop("kind"), rows.iloc[0]
            for own, values in VALUES.get(kind, _nothing)(params, rows):
                key = cache.key(kind, own)
                if values is not None and key not in keys:
                    keys.add(key)
                    yield {"kind": kind, "key": key, "params": own, "values": values} | {
                        "status": first.status,
                        "seconds": first.took,
                        "environment": json.loads(first.environment),
                    }


def restore(folder: Path) -> int:
    """Store the results that the tables of a folder hold; return how many. What is there stays."""
    count = 0
    for record in records(folder):
        count += 1
        if not cache.location(record["kind"], record["params"]).exists():
            more = {"environment": record["environment"], "restored": True}
            measured = record["kind"], record["params"], record["values"]
            cache.save(*measured, record["seconds"], record["status"], **more)
    return count


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
