"""The runs whose tables are at hand, and all that one of them has measured."""

from pathlib import Path

import numpy as np
import pandas as pd

from replication import paths, tables

OTHERWISE = {"seed": "seed", "first_layer": "from layer"}  # of recipes
DISTANCE = "distance"  # the task of the rows of `similarity`
COLUMNS = ["model", "revision", "quantization", "task", *tables.BLOCK]
COLUMNS += ["value", "standard_error", "n", "examples", "weights", "request", "environment"]


def folders(own: bool = True) -> dict[str, Path]:
    """Return the folders of tables by label: of the recorded runs, then (`own`) of your runs."""
    places = {"recorded run": paths.RECORDED} | ({"your run": paths.TABLES} if own else {})
    return {
        f"{whose} {folder.name}": folder
        for whose, place in places.items()
        for folder in sorted(place.glob("*/"))
    }


def measured(folder: Path) -> pd.DataFrame:
    """Return each score and each distance of a run once, a row each, with its settings.

    treatment: in words. examples and weights of a distance: its folds, each of the same weight.
    """
    parts = [pd.DataFrame(columns=COLUMNS)]
    for name, table in tables.read_all(folder):
        if name == "similarity":
            weights = [np.ones(len(folds)) for folds in table.folds]
            table = table.assign(task=DISTANCE, examples=table.folds, weights=weights)
        if {"task", "examples"} <= set(table):
            parts.append(table[table.value.notna()].reindex(columns=COLUMNS))
    rows = pd.concat(parts[1:] or parts).drop_duplicates(["request", *tables.BLOCK])
    rows = tables.with_settings(rows.reset_index(drop=True))
    return rows.assign(treatment=[_treatment(row) for row in rows.itertuples()])


def _treatment(row) -> str:
    """Return in words what was done to a model: "healed for 512 steps, rank 8, seed 1"."""
    if pd.isna(row.steps):
        return "unhealed" if row.block_size and row.task != DISTANCE else "unpruned"
    changes = [
        f", {text} {getattr(row, name):.0f}"
        for name, text in OTHERWISE.items()
        if getattr(row, name)
    ]
    return f"healed for {row.steps:.0f} steps, rank {row.rank:.0f}" + "".join(changes)
