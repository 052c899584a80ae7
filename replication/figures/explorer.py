"""Distance maps to explore, as one page: a file that works offline, or inside JupyterLab.

Python computes what is shown: maps, islands at every threshold, and how often these come back.
explorer.js draws what the form in explorer.html.j2 asks for, and keeps that in the link.
"""

import html
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML
from jinja2 import Environment, FileSystemLoader
from plotly.offline import get_plotlyjs

from lib.blocks import BlockDistances
from replication.analysis import islands
from replication.figures import curves, looks

TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
SCRIPT = Path(__file__).with_name("explorer.js")
THRESHOLDS = tuple(percent / 100 for percent in range(1, 41))
FRAME = '<div><iframe srcdoc="{}" style="width: 100%; height: 1500px; border: 0"></iframe></div>'
BLOCK = ["block_start", "block_size"]
ISLAND = ["island", "side", "first_start", "last_start", "smallest_size", "largest_size"]
ISLAND += [*BLOCK, "area", "stability"]  # what the page shows of an island
ARRAYS = ("matrix", "standard_error", "folds")  # of a BlockDistances
TASKS = curves.TASKS | {
    "mmlu": "MMLU by letter",
    "mmlu_other": "MMLU (other questions) by letter",
    "mmlu_content": "MMLU by content",
    "arc_easy": "ARC-Easy by content",
    "arc_easy_letters": "ARC-Easy by letter",
    **{f"arc_easy_letters_{moved}": f"ARC-Easy by letter, moved by {moved}" for moved in (1, 2, 3)},
    "arc_easy_listed": "ARC-Easy by listed text",
    "arc_easy_test": "ARC-Easy (test) by content",
    "boolq_closed": "BoolQ accuracy, closed book",
    "sciq_closed": "SciQ accuracy, closed book",
    "squad_closed": "SQuAD gold, bits a byte, closed book",
    "c4": "C4 loss in nats",
}
SCORED = ("mmlu", "arc_easy", "c4")  # that have a view


@dataclass(frozen=True)
class Explored:
    """The map of a model, and what else is known of its blocks.

    source: how it was measured. damage: by BLOCK value and standard_error (nats). scores: by BLOCK
    task, shots (examples in the prompt, as text), treatment, value, standard_error; block (0, 0) is
    the unpruned model. texts: what the model writes after each of `prompts`, by (start, size).
    """

    model: str
    distances: BlockDistances
    source: str = ""
    damage: pd.DataFrame | None = None
    scores: pd.DataFrame | None = None
    prompts: tuple[str, ...] = ()
    texts: dict[tuple[int, int], list[str]] = field(default_factory=dict)


def page(maps: dict[str, Explored]) -> str:
    """The page that shows any two of some maps, by their labels.

    Raises ValueError if there is no map, or if a table of damage lacks a column.
    """
    data = contents(maps)
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    layers = [maps[label].distances.num_layers for label in (*data["opened"], *maps)]
    return TEMPLATES.get_template("explorer.html.j2").render(
        plotly=get_plotlyjs(),
        data=text,
        script=SCRIPT.read_text(encoding="utf-8"),
        labels=list(maps),
        opened=data["opened"],
        size=max(1, layers[0] // 5),
        most=max(layers) - 1,
        threshold=islands.THRESHOLD,
        looks=data["looks"],
    )


def contents(maps: dict[str, Explored]) -> dict:
    """What the page holds: every map, the two that it opens on, and what to look at in these."""
    if not maps:
        raise ValueError("There is no map to explore: run make figure-4 first.")
    opened = opening(maps)
    return {
        "thresholds": THRESHOLDS,
        "scored": [TASKS[task] for task in SCORED],
        "maps": {label: _map(explored) for label, explored in maps.items()},
        "opened": opened,
        "looks": looks.looks({label: maps[label] for label in opened}),
    }


def opening(maps: dict[str, Explored]) -> list[str]:
    """The labels of the left and the right map: of the two models of which most is known."""

    def known(label: str) -> tuple[bool, int]:
        explored = maps[label]
        return explored.damage is not None, 0 if explored.scores is None else len(explored.scores)

    best = {}
    for label in sorted(maps, key=known, reverse=True):
        best.setdefault(maps[label].model, label)
    first = list(best.values())[:2]
    left, *right = [label for label in maps if label in first]
    return [left, *(right or [left])]


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
        "scored": {},
        "prompts": explored.prompts,
        "texts": {f"{start},{size}": texts for (start, size), texts in explored.texts.items()},
    }
    if explored.damage is not None:
        missing = {*BLOCK, "value", "standard_error"} - set(explored.damage)
        if missing:
            raise ValueError(f"A damage map lacks {', '.join(sorted(missing))}.")
        by_block = explored.damage.set_index(BLOCK)
        for name, column in (("damage", "value"), ("damage_error", "standard_error")):
            data[name] = _grid(by_block[column], layers)
    if explored.scores is not None:
        names = explored.scores.task.replace(TASKS)
        table = explored.scores.assign(task=names + explored.scores.shots)
        for (start, size), rows in table.groupby(BLOCK):
            data["scores"][f"{start},{size}"] = _records(rows.drop(columns="shots"))
        unhealed = explored.scores[explored.scores.treatment == "unhealed"]
        for task in SCORED:
            of_task = unhealed[unhealed.task == task]
            if len(of_task):
                shots = of_task.shots.mode()[0]  # those of the most blocks
                values = of_task[of_task.shots == shots].set_index(BLOCK).value
                data["scored"][TASKS[task]] = _grid(values, layers)
    return data


def _grid(by_block: pd.Series, layers: int) -> list:
    """Values by BLOCK as lists [n-1][l]."""
    grid = by_block.unstack(BLOCK[0])
    return _listed(grid.reindex(range(1, layers), columns=range(layers)).to_numpy(float))


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
