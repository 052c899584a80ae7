"""A run beside numbers from elsewhere, and beside the paper's own counts."""

import json
from dataclasses import fields

import pandas as pd

from lib import paths, profiles
from lib.analysis.bootstrap import interval
from lib.analysis.curves import Curve, halfway
from lib.claims.tables import RunTables
from lib.models import registry
from lib.profiles import Profile


def beside(found: RunTables) -> pd.DataFrame:
    """Our numbers beside those of data/published.json, for models that have any there.

    A row per model, quantity (and block_size, for l*(n)): ours with its 95 % interval where it has
    one, the reference from `least` to `most`, and its source. Empty if no model has any.
    """
    known = json.loads((paths.DATA / "published.json").read_text(encoding="utf-8"))
    rows = []
    for model, distances in found.maps.items():
        starts = known["best_starts"].get(model, [])
        for size, start in enumerate(starts[: distances.num_layers - 1], start=1):
            ours = (distances.best_start(size),) * 3
            rows.append(_row(known, model, "best_starts", ours, (start, start), size))
        line = found.line("scores", model, task="mmlu", strategy="similarity", treatment="unhealed")
        for quantity, measured in (("transitions", halfway), ("mmlu_5shot_unpruned", _unpruned)):
            value = known[quantity].get(model)
            if line and value is not None:
                ends = value if isinstance(value, list) else (value, value)
                rows.append(_row(known, model, quantity, measured(line), ends))
    return pd.DataFrame(rows)


def _row(known: dict, model: str, quantity: str, ours, reference, size: int | None = None) -> dict:
    return {
        "model": registry.label(model),
        "quantity": quantity,
        "block_size": size,
        **dict(zip(("ours", "low", "high"), ours, strict=True)),
        **dict(zip(("least", "most"), reference, strict=True)),
        "source": known[quantity]["source"],
    }


def _unpruned(line: Curve) -> tuple[float, float, float]:
    return interval(line.values[:, 0])


def deviations(profile: Profile) -> pd.DataFrame:
    """The counts and settings in which a profile is not the paper's."""
    paper = profiles.PROFILES["paper"]
    rows = [
        {"setting": f.name, "here": getattr(profile, f.name), "paper": getattr(paper, f.name)}
        for f in fields(Profile)
        if getattr(profile, f.name) != getattr(paper, f.name)
    ]
    return pd.DataFrame(rows, columns=["setting", "here", "paper"])
