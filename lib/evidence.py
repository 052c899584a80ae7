"""What the claims are judged by: a run's measurements, gathered from its results."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lib import ablations, catalog, curves, healing, paths, results, similarity
from lib.profiles import Profile
from lib.similarity import BlockDistances
from lib.transitions import SIGNAL, Curve, curve

QUESTIONS = ("mmlu", "boolq", "arc_easy")  # in the order in which they are asked for a signal
PAPER_HEALING = 5_000 * 16  # steps, sequences a step
DIGITS = 7  # significant ones, of stored evidence
UNSTORED = ("weights",)


@dataclass(frozen=True)
class Evidence:
    """The measurements of a run; what was not measured is not there.

    healed_share: sequences of a healing as a share of the paper's. maps: distances of each model.
    tables: "scores" (columns of curves.unhealed and curves.healed), "prompts", "seeds" and "ranks"
    (of curves.variants), "cost" (of inference_cost.measure), "damage" (of damage.measure).
    """

    profile: str
    healed_share: float
    maps: dict[str, BlockDistances]
    tables: dict[str, pd.DataFrame]

    def models(self, table: str = "scores") -> list[str]:
        """The models of a table."""
        return list(self.tables[table].model.unique()) if table in self.tables else []

    def line(self, table: str, model: str, task: str, **where) -> Curve | None:
        """The curve through the unpruned score and those points that have the values `where`."""
        if table not in self.tables:
            return None
        rows = self.tables[table]
        rows = rows[(rows.model == model) & (rows.task == task) & rows.value.notna()]
        for column in {"ablation", "variant"} & where.keys():
            rows = rows[rows[column] == where.pop(column)]
        points = rows[rows.treatment != "unpruned"]
        for column, value in where.items():
            points = points[points[column] == value]
        unpruned = rows[rows.treatment == "unpruned"]
        return curve(unpruned.iloc[0], points) if len(unpruned) and len(points) else None

    def answered(self, model: str, table: str = "scores") -> tuple[str | None, str]:
        """The first question set that the unpruned model answers beyond chance, or why none."""
        rows = self.tables[table]
        gaps = {}
        for task in QUESTIONS:
            start = rows[(rows.model == model) & (rows.task == task)]
            start = start[(start.treatment == "unpruned") & start.value.notna()]
            if len(start):
                gaps[task] = curve(start.iloc[0], start.iloc[:0]).gap
                if gaps[task] >= SIGNAL:
                    return task, ""
        told = ", ".join(f"{task} {gap:.1f}" for task, gap in gaps.items())
        return None, f"no signal: standard errors above chance, unpruned: {told} (of {SIGNAL})"


def gather(profile: Profile, compute: bool = True) -> Evidence:
    """The evidence of a run. compute: measure what the results lack, else leave it out."""
    maps, tables = {}, {}

    def add(table: str, measure: Callable[[], pd.DataFrame | None]) -> None:
        found = _attempt(measure)
        if found is not None:
            tables.setdefault(table, []).append(found)

    with results.drawing_only(not compute):
        for name in profile.models:
            found = _attempt(lambda: similarity.measure(name, profile))
            if found is not None:
                maps[name] = found
        for name, distances in maps.items():
            for task in [*QUESTIONS, "c4"]:
                both = (name, profile, distances, [task])
                add("scores", lambda: curves.unhealed(*both))
                add("scores", lambda: curves.healed(*both))
        for table, varied, models, sizes, tasks in _ablations(profile):
            for name in models:
                for task in tasks:
                    args = (name, maps.get(name), [task], varied, sizes)
                    if name in maps:
                        add(table, lambda: curves.variants(*args))
    recipe = healing.recipe(profile.main_model, profile)
    share = recipe.steps * recipe.batch / PAPER_HEALING
    joined = {table: pd.concat(parts, ignore_index=True) for table, parts in tables.items()}
    return Evidence(profile.name, share, maps, joined)
