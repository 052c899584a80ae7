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
ISLAND += [*BLOCK, "area", "stability"]  # what the page shows of an island
ARRAYS = ("matrix", "standard_error", "folds")  # of a BlockDistances


@dataclass(frozen=True)
class Explored:
    """A map, and what else is known of the blocks of its model.

    source: how it was measured. damage: by BLOCK value and standard_error (nats). scores: by BLOCK
    task, treatment, value, standard_error; block (0, 0) is the unpruned model.
    """

    distances: BlockDistances
    source: str = ""
    damage: pd.DataFrame | None = None
    scores: pd.DataFrame | None = None


def page(maps: dict[str, Explored]) -> str:
    """The page that shows any two of some maps, by their labels; it opens on the first and last.

    Raises ValueError if a table of damage lacks a column.
    """
    by_label = {label: _map(explored) for label, explored in maps.items()}
    data = {"thresholds": THRESHOLDS, "maps": by_label}
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    return TEMPLATES.get_template("explorer.html.j2").render(
        plotly=get_plotlyjs(),
        data=text,
        script=SCRIPT.read_text(encoding="utf-8"),
        layers={label: explored.distances.num_layers for label, explored in maps.items()},
        threshold=islands.THRESHOLD,
    )


def inline(page: str) -> HTML:
    """A page inside a notebook."""
    return HTML(FRAME.format(html.escape(page)))


def _map(explored: Explored) -> dict:
    """What the page knows of a map. Values of blocks are lists [n-1][l], null where none fits."""
    distances = explored.distances
    layers = distances.num_layers
    data = {
        "layers": layers,
        "source": explored.source,
        "distance": _listed(islands.by_size(distances.matrix)),
        "error": _listed(islands.by_size(distances.standard_error)),
        "whole": _islands(distances),
        "without": _islands(distances, first=1 if layers > 3 else 0),
        "scores": {},
    }
    if explored.damage is not None:
        missing = {*BLOCK, "value", "standard_error"} - set(explored.damage)
        if missing:
            raise ValueError(f"A damage map lacks {', '.join(sorted(missing))}.")
        by_block = explored.damage.set_index(BLOCK)
        for name, column in (("damage", "value"), ("damage_error", "standard_error")):
            grid = by_block[column].unstack(BLOCK[0])
            grid = grid.reindex(range(1, layers), columns=range(layers))
            data[name] = _listed(grid.to_numpy())
    if explored.scores is not None:
        for (start, size), rows in explored.scores.groupby(BLOCK):
            data["scores"][f"{start},{size}"] = _records(rows)
    return data


def _islands(distances: BlockDistances, first: int = 0) -> dict:
    """The rescaled map, and at each threshold regions, islands, and how often a block is in one.

    Of the layers from `first` on alone, in the numbering of the whole model.
    """
    cut = {name: getattr(distances, name)[..., first:, first:] for name in ARRAYS}
    part = replace(distances, **cut)
    heights = islands.rescaled(islands.by_size(part.matrix))
    data = {
        "rescaled": _listed(_shifted(heights, first)),
        "regions": [],
        "share": [],
        "islands": [],
    }
    for threshold in THRESHOLDS:
        regions = islands.regions(part.matrix, threshold)
        again = islands.resampled(part.folds, threshold)
        share = np.full(regions.shape, np.nan)
        if len(again):
            share = 100 * np.mean(again > islands.BAND, axis=0)
        table = islands.islands(part, threshold, again)
        table[["first_start", "last_start", "block_start"]] += first
        data["regions"].append(_shifted(regions, first, 0).tolist())
        data["share"].append(_listed(_shifted(share, first), 0))
        data["islands"].append(_records(table[ISLAND]))
    return data


def _records(table: pd.DataFrame) -> list[dict]:
    """The rows of a table for JSON, with None for NaN."""
    return json.loads(table.to_json(orient="records"))


def _shifted(values: np.ndarray, first: int, fill=np.nan) -> np.ndarray:
    return np.pad(values, ((0, 0), (first, 0)), constant_values=fill)


def _listed(values: np.ndarray, digits: int = 5) -> list:
    """As nested lists for JSON, with None for NaN; whole numbers without digits."""
    whole = np.where(np.isnan(values), 0, values).round(digits)
    whole = whole if digits else whole.astype(int)
    return np.where(np.isnan(values), None, whole.astype(object)).tolist()
