"""Distance maps to explore, as one page: a file that works offline, or inside JupyterLab.

Python computes what is shown: maps, islands at every threshold, and how often these come back.
explorer.js draws what the form in explorer.html.j2 asks for, and keeps that in the link.
"""

import html
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML
from jinja2 import Environment, FileSystemLoader
from plotly.offline import get_plotlyjs

from lib.blocks import BlockDistances
from replication.analysis import islands

TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
SCRIPT = Path(__file__).with_name("explorer.js")
THRESHOLDS = tuple(percent / 100 for percent in range(1, 41))
FRAME = '<div><iframe srcdoc="{}" style="width: 100%; height: 950px; border: 0"></iframe></div>'
BLOCK = ["block_start", "block_size"]
ISLAND = ["island", "side", "first_start", "last_start", "smallest_size", "largest_size"]
ISLAND += [*BLOCK, "area", "stability"]  # what the page tells of an island


@dataclass(frozen=True)
class Explored:
    """A map, and what else is known of the blocks of its model.

    told: how it was measured. damage: by BLOCK value and standard_error (nats). scores: by BLOCK
    task, treatment, value, standard_error; block (0, 0) is the unpruned model.
    """

    distances: BlockDistances
    told: str = ""
    damage: pd.DataFrame | None = None
    scores: pd.DataFrame | None = None


def page(maps: dict[str, Explored]) -> str:
    """The page that shows any two of some maps, by their labels; it opens on the first and last.

    Raises ValueError if a table of damage lacks a column.
    """
    data = {"thresholds": THRESHOLDS, "maps": {label: _map(m) for label, m in maps.items()}}
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    return TEMPLATES.get_template("explorer.html.j2").render(
        plotly=get_plotlyjs(),
        data=text,
        script=SCRIPT.read_text(encoding="utf-8"),
        layers={label: shown.distances.num_layers for label, shown in maps.items()},
        threshold=islands.THRESHOLD,
    )


def inline(page: str) -> HTML:
    """A page inside a notebook."""
    return HTML(FRAME.format(html.escape(page)))


def _map(shown: Explored) -> dict:
    """What the page knows of a map. Values of blocks are lists [n-1][l], null where none fits."""
    distances = shown.distances
    layers = distances.num_layers
    found = {
        "layers": layers,
        "told": shown.told,
        "distance": _listed(islands.by_size(distances.matrix)),
        "error": _listed(islands.by_size(distances.standard_error)),
        "whole": _islands(distances),
        "without": _islands(distances, first=1 if layers > 3 else 0),
        "scores": {},
    }
    if shown.damage is not None:
        if missing := {*BLOCK, "value", "standard_error"} - set(shown.damage):
            raise ValueError(f"A damage map lacks {', '.join(sorted(missing))}.")
        by_block = shown.damage.set_index(BLOCK)
        for name, column in (("damage", "value"), ("damage_error", "standard_error")):
            grid = by_block[column].unstack(BLOCK[0])
            found[name] = _listed(grid.reindex(range(1, layers), columns=range(layers)).to_numpy())
    if shown.scores is not None:
        for (start, size), rows in shown.scores.groupby(BLOCK):
            found["scores"][f"{start},{size}"] = json.loads(rows.to_json(orient="records"))
    return found


def _islands(distances: BlockDistances, first: int = 0) -> dict:
    """The rescaled map, and at each threshold regions, islands, and how often a block is in one.

    Of the layers from `first` on alone, in the numbering of the whole model.
    """
    arrays = ("matrix", "standard_error", "folds")
    part = replace(distances, **{a: getattr(distances, a)[..., first:, first:] for a in arrays})
    found = {"rescaled": _listed(_shifted(islands.rescaled(islands.by_size(part.matrix)), first))}
    found |= {"regions": [], "share": [], "islands": []}
    for threshold in THRESHOLDS:
        again = islands.resampled(part.folds, threshold)
        share = 100 * np.mean(again > islands.BAND, axis=0) if len(again) else np.nan * again.sum(0)
        regions = islands.regions(part.matrix, threshold)
        table = islands.islands(part, threshold, again)
        table[["first_start", "last_start", "block_start"]] += first
        found["regions"].append(_shifted(regions, first, 0).tolist())
        found["share"].append(_listed(_shifted(share, first), 0))
        found["islands"].append(json.loads(table[ISLAND].to_json(orient="records")))
    return found


def _shifted(values: np.ndarray, first: int, fill=np.nan) -> np.ndarray:
    return np.pad(values, ((0, 0), (first, 0)), constant_values=fill)


def _listed(values: np.ndarray, digits: int = 5) -> list:
    """As nested lists for JSON, with None for NaN; whole numbers without digits."""
    whole = np.where(np.isnan(values), 0, values).round(digits)
    whole = whole if digits else whole.astype(int)
    return np.where(np.isnan(values), None, whole.astype(object)).tolist()
