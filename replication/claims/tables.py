"""What the claims are judged by: the tables of a run."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lib.blocks import BlockDistances
from replication import tables
from replication.analysis.answers import boolq_ranking
from replication.analysis.curves import Curve, curve, floor, gap
from replication.profiles import Profile
from replication.tables import NotMeasured

NOTHING = pd.DataFrame(columns=["model", "task", "strategy", "treatment", "variant"])
SAME = ("model", "task", "ablation", "variant", "format")  # of a pruned score and its unpruned one
NOT_HEALED = "unhealed"  # the variant of the cuts that variants of healing begin with
UNHEALED = {"strategy": "similarity", "treatment": "unhealed"}
SCORES = ("unhealed", "healed", "test_split", "reasoning", "stories")
VARIED = ("prompts", "seeds", "more_seeds", "ranks", "more_ranks")
TABLES = (*SCORES, *VARIED, "stacked", "cost", "damage", "exits")
ONE_POINT = ["request", "strategy", "treatment"]  # the same in two of SCORES


@dataclass(frozen=True)
class RunTables:
    """The measurements of a run; what was not measured is not there.

    maps: distances of each model. tables: "scores" (all of SCORES,
    and BoolQ without its threshold) and the others of TABLES.
    """

    maps: dict[str, BlockDistances]
    tables: dict[str, pd.DataFrame]
    _lines: dict[tuple, Curve | None] = field(default_factory=dict, init=False, repr=False)

    def models(self, table: str) -> list[str]:
        """Return the models of a table."""
        return list(self.tables[table].model.unique()) if table in self.tables else []

    def points(self, table: str, **where) -> pd.DataFrame:
        """Return the rows of a table that have the values `where`."""
        rows = self.tables.get(table, NOTHING)
        if not set(where) <= set(rows.columns):
            return rows[:0]
        equal = [(rows[column] == value).to_numpy() for column, value in where.items()]
        return rows[np.logical_and.reduce(equal)]

    def line(self, table: str, **where) -> Curve | None:
        """Return the curve through the pruned scores that have the values `where`, and the
        unpruned: resampled once, however many claims compare it."""
        key = table, *where.items()
        if key not in self._lines:
            self._lines[key] = self._line(table, where)
        return self._lines[key]

    def _line(self, table: str, where: dict) -> Curve | None:
        points = self.points(table, **where)
        same = {column: value for column, value in where.items() if column in SAME}
        if same.get("variant") == NOT_HEALED:  # its whole model is that of each healed variant
            del same["variant"]
        unpruned = self.points(table, treatment="unpruned", **same)
        return curve(unpruned.iloc[0], points) if len(unpruned) and len(points) else None

    def signals(self, table: str, model: str, tasks: Sequence[str], **where) -> dict[str, float]:
        """Return how far the unpruned model is above the floor of each of `tasks`, in standard
        errors.

        Infinite where a floor is not known. where: of which of several unpruned scores.
        """
        unpruned = self.points(table, model=model, treatment="unpruned", **where)
        gaps = {}
        for task in tasks:
            rows = unpruned[unpruned.task == task]
            if len(rows):
                score = rows.iloc[0]
                gaps[task] = np.inf if np.isnan(floor(score)) else gap(score)
        return gaps


def gather(profile: Profile) -> RunTables:
    """Return the tables that a run has left; it measures nothing, and what is missing is left out.

    With the profile `recorded`, those of the recorded run.
    """
    there = {name: table for name in TABLES if len(table := _measured(name, profile))}
    curves = [there.pop(name) for name in SCORES if name in there]
    if curves:
        scores = pd.concat(curves).drop_duplicates(ONE_POINT)
        there["scores"] = pd.concat([scores, boolq_ranking(scores)], ignore_index=True)
    with suppress(NotMeasured):
        return RunTables(tables.maps(profile), there)
    return RunTables({}, there)


def _measured(name: str, profile: Profile) -> pd.DataFrame:
    """Return the rows of a table that have a value, of the profile's models; none if none are."""
    try:
        rows = tables.read(name, profile, profile.models)
    except NotMeasured:
        return NOTHING
    if name not in ("cost", "damage"):
        rows = tables.without_few(rows)
    return rows[rows.value.notna()].reset_index(drop=True)
