"""What the claims are judged by: a run's measurements, gathered from its results."""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lib import profiles, results
from lib.analysis.curves import SIGNAL, Curve, curve, floor, gap
from lib.blocks import BlockDistances
from lib.measure import damage, distance_maps, inference_cost, scores
from lib.models.registry import ModelError
from lib.profiles import Profile

VERSION = 2  # bumped by hand when what `save` keeps changes
PAPER_HEALING = 5_000 * 16  # steps, sequences a step
NOTHING = pd.DataFrame(columns=["model", "task", "strategy", "treatment"])
RECORDED = ("qwen2.5-coder-0.5b",)  # maps for claim 5
DIGITS = 7  # significant ones, of what is saved


@dataclass(frozen=True)
class RunTables:
    """The measurements of a run; what was not measured is not there.

    healed_share: sequences of a healing as a share of the paper's. maps: distances of each model;
    recorded: those of other models, kept in data/recorded/ and not of this run.
    tables: "scores" (scores.unhealed, healed and reasoning), "prompts", "seeds"
    and "ranks", "cost" (of inference_cost.measure), "damage" (of
    damage.measure).
    """

    profile: Profile
    healed_share: float
    maps: dict[str, BlockDistances]
    tables: dict[str, pd.DataFrame]
    recorded: dict[str, BlockDistances] = field(default_factory=dict)

    def models(self, table: str) -> list[str]:
        """The models of a table."""
        return list(self.tables[table].model.unique()) if table in self.tables else []

    def points(self, table: str, model: str, **where) -> pd.DataFrame:
        """The rows of a table of one model that have the values `where`."""
        rows = self.tables.get(table, NOTHING)
        rows = rows[rows.model == model]
        for column, value in where.items():
            rows = rows[rows[column] == value]
        return rows

    def line(self, table: str, model: str, **where) -> Curve | None:
        """The curve through the pruned scores that have the values `where`, and the unpruned."""
        points = self.points(table, model, **where)
        same = {key: where[key] for key in ("task", "ablation", "variant") if key in where}
        unpruned = self.points(table, model, treatment="unpruned", **same)
        return curve(unpruned.iloc[0], points) if len(unpruned) and len(points) else None

    def answered(self, table: str, model: str, tasks: Sequence[str]) -> tuple[str, str]:
        """The first of `tasks` on which the unpruned model shows a signal; else "" and why not.

        A signal is a score SIGNAL standard errors better than its floor, where that is known.
        """
        gaps = {}
        for task in tasks:
            unpruned = self.points(table, model, task=task, treatment="unpruned")
            if len(unpruned):
                start = unpruned.iloc[0]
                gaps[task] = gap(start)
                if gaps[task] >= SIGNAL or np.isnan(floor(start)):
                    return task, ""
        told = ", ".join(f"{task} {found:.1f}" for task, found in gaps.items())
        why = f"no signal: standard errors above the floor: {told} (of {SIGNAL})"
        return "", why if told else ""


def gather(profile: Profile, compute: bool = True) -> RunTables:
    """The evidence of a run. compute: measure what the results lack, else leave it out.

    Raises ModelError if none of the profile's models can be had.
    """
    with nullcontext() if compute else results.drawing_only():
        try:
            maps, left = distance_maps.measure(profile)
        except results.NotMeasured:
            maps, left = {}, replace(profile, models=())
        parts = _parts(profile, maps) if maps else {}
    tables = {table: pd.concat(found) for table, found in parts.items() if sum(map(len, found))}
    there = {table: rows[rows.value.notna()] for table, rows in tables.items()}
    recipe = profiles.recipe(profile.main_model, profile)
    return RunTables(
        left,
        recipe.steps * recipe.batch / PAPER_HEALING,
        maps,
        {table: rows.reset_index(drop=True) for table, rows in there.items() if len(rows)},
        {name: distance_maps.recorded(name)[0] for name in RECORDED},
    )


def _parts(profile: Profile, maps: dict[str, BlockDistances]) -> dict[str, list[pd.DataFrame]]:
    """The measurements of each model, by table."""
    curves = (scores.unhealed, scores.healed, scores.reasoning)
    parts = {"scores": [f(maps, profile) for f in curves]}
    parts |= {f.__name__: [f(maps, profile)] for f in (scores.prompts, scores.seeds, scores.ranks)}
    for table, measure in {"cost": inference_cost.of_model, "damage": damage.of_model}.items():
        found = (_there(measure, name, profile) for name in maps)
        parts[table] = [t for t in found if t is not None]
    return parts


def _there(measure: Callable, name: str, profile: Profile) -> pd.DataFrame | None:
    """A measurement, or None where it is missing and stays so, or the model does not fit."""
    try:
        return measure(name, profile)
    except (results.NotMeasured, ModelError):
        return None


def save(found: RunTables) -> Path:
    """Keep evidence as a result of its own, numbers rounded to DIGITS; returns its file.

    So it can be judged again without the measurements, and is left as it is if nothing changed.
    """
    params = {"profile": asdict(found.profile), "version": VERSION}
    maps = {name: asdict(distances) for name, distances in found.maps.items()}
    tables = {name: rows.to_dict("list") for name, rows in found.tables.items()}
    told = {"healed_share": found.healed_share, "recorded": list(found.recorded)}
    values = _rounded(told | {"maps": maps, "tables": tables})
    before = results.load("evidence", params)
    if before is None or before["values"] != values:
        results.save("evidence", params, values, seconds=0)
    return results.location("evidence", params)


def load(file: Path) -> RunTables:
    """The evidence of a file that `save` wrote."""
    record = json.loads(file.read_text(encoding="utf-8"))
    values, profile = record["values"], profiles.get(record["params"]["profile"]["name"])
    maps = {
        name: BlockDistances(*(np.array(v) if isinstance(v, list) else v for v in map_.values()))
        for name, map_ in values["maps"].items()
    }
    tables = {name: pd.DataFrame(rows) for name, rows in values["tables"].items()}
    recorded = {name: distance_maps.recorded(name)[0] for name in values["recorded"]}
    return RunTables(profile, values["healed_share"], maps, tables, recorded)


def _rounded(value):
    """Numbers with DIGITS significant digits, missing ones as None, arrays as lists."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_rounded(item) for item in value]
    if isinstance(value, (float, np.floating)):
        short = float(f"{value:.{DIGITS}g}")
        return None if np.isnan(short) else int(short) if short.is_integer() else short
    return value.item() if isinstance(value, np.generic) else value
