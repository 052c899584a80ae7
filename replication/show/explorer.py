"""Distance maps to explore, as one page: a file that works offline, or inside JupyterLab.

`python -m replication.show.explorer` writes figures/explorer.html, and opens it. Python computes
what is shown: maps, islands at every threshold, and how often these come back. explorer.js draws
what the form in explorer.html.j2 asks for, and keeps that in the link.
"""

import argparse
import html
import json
import webbrowser
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML
from jinja2 import Environment, FileSystemLoader
from plotly.offline import get_plotlyjs

from lib import storage
from lib.blocks import BlockDistances
from lib.models import registry
from replication import paths, tables
from replication.analysis import islands
from replication.figures import curves
from replication.show import runs

HERE = Path(__file__).parent
TEMPLATES = Environment(loader=FileSystemLoader(HERE), autoescape=True)
LOOKS = storage.rows(HERE / "looks.csv")  # states of the form that are worth seeing, of the record
TASKS = curves.TASKS | {row["task"]: row["label"] for row in storage.rows(HERE / "tasks.csv")}
SCORED = ("mmlu", "arc_easy", "c4")  # that have a view
THRESHOLDS = tuple(percent / 100 for percent in range(1, 41))
FRAME = '<div><iframe srcdoc="{}" style="width: 100%; height: 1500px; border: 0"></iframe></div>'
BLOCK = list(tables.BLOCK)
WEIGHTS = ["model", "revision", "quantization"]  # what a map and its damage and scores share
ISLAND = ["island", "side", "first_start", "last_start", "smallest_size", "largest_size"]
ISLAND += [*BLOCK, "area", "stability"]  # what the page shows of an island
SCORE = [*BLOCK, "task", "shots", "treatment"]
SHOWN = ["task", "treatment", "value", "standard_error"]  # of a score
ARRAYS = ("matrix", "standard_error", "folds")  # of a BlockDistances
STATE = ("view", "n", "l", "without")  # of the form, as looks.csv has it


@dataclass(frozen=True)
class Explored:
    """The map of a model, and what else is known of its blocks.

    source: how it was measured. damage: by BLOCK value and standard_error (nats). scores: by SCORE
    value, standard_error and n (shots: examples in the prompt, as text); block (0, 0) is the
    unpruned model. texts: what the model writes after each of `prompts`, by (start, size).
    """

    model: str
    distances: BlockDistances
    source: str = ""
    damage: pd.DataFrame | None = None
    scores: pd.DataFrame | None = None
    prompts: tuple[str, ...] = ()
    texts: dict[tuple[int, int], list[str]] = field(default_factory=dict)


# ---- from the tables ------------------------------------------------------------------------


def maps(own: bool = True) -> dict[str, Explored]:
    """Return by label the maps of the recorded runs, then (`own`) those of your runs."""
    explored = {}
    for run, folder in runs.folders(own).items():
        scores = _scores(runs.measured(folder))
        damage = _read(folder, "damage")
        for name, rows in _read(folder, "similarity").groupby("model"):
            params = json.loads(rows.request.iloc[0])
            source = "{sequences} texts of {max_tokens} tokens, {dtype}".format(**params)
            explored[f"{registry.label(name)} ({run})"] = Explored(
                name,
                tables.distances_of(rows),
                ", ".join(filter(None, [source, params["quantization"]])),
                _of_weights(params, damage),
                _of_weights(params, scores),
                *_texts(params),
            )
    return explored


def _read(folder: Path, name: str) -> pd.DataFrame:
    file = folder / f"{name}.parquet"
    return pd.read_parquet(file) if file.exists() else pd.DataFrame(columns=WEIGHTS)


def _of_weights(params: dict, table: pd.DataFrame) -> pd.DataFrame | None:
    """Return the rows that were measured with the weights of a request; None if none were."""
    weights = pd.Series({key: params[key] or "" for key in WEIGHTS})
    rows = table[(table[WEIGHTS].fillna("") == weights).all(axis=1)]
    return None if rows.empty else rows


def _scores(measured: pd.DataFrame) -> pd.DataFrame:
    """Return of each block, task and treatment the score on the most examples."""
    table = measured[[_is_plain(request) for request in measured.request]]
    shots = [f", {r['shots']}-shot" if "shots" in r else "" for r in table.request]
    table = table.assign(shots=shots).sort_values("n", kind="stable")
    table = table.drop_duplicates([*WEIGHTS, *SCORE], keep="last")
    table = table.sort_values(SCORE[2:], ascending=[True, True, False])
    return table[[*WEIGHTS, *SCORE, "value", "standard_error", "n"]]


def _is_plain(request: dict) -> bool:
    """Return whether a request is of a score, and of no ablation."""
    return request["kind"] == "scores" and not (request.get("shot_order") or "patched" in request)


def _texts(params: dict) -> tuple[tuple[str, ...], dict[tuple[int, int], list[str]]]:
    """Return the prompts, and by block what these weights write after them, if it is recorded."""
    file = paths.continuations(params["model"])
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else ["{}"]
    header, *blocks = map(json.loads, lines)
    if any(header.get(key) != params[key] for key in WEIGHTS):
        return (), {}
    return tuple(header["prompts"]), {tuple(of["block"]): of["texts"] for of in blocks}


# ---- to the page ----------------------------------------------------------------------------


def page(maps: dict[str, Explored]) -> str:
    """Return the page that shows any two of some maps, by their labels.

    Raises ValueError if there is no map.
    """
    data = contents(maps)
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    layers = [maps[label].distances.num_layers for label in (*data["opened"], *maps)]
    return TEMPLATES.get_template("explorer.html.j2").render(
        plotly=get_plotlyjs(),
        data=text,
        script=(HERE / "explorer.js").read_text(encoding="utf-8"),
        labels=list(maps),
        opened=data["opened"],
        size=max(1, layers[0] // 5),
        most=max(layers) - 1,
        threshold=islands.THRESHOLD,
        looks=data["looks"],
    )


def contents(maps: dict[str, Explored]) -> dict:
    """Return what the page holds: every map, the two that it opens on, and what to look at."""
    if not maps:
        raise ValueError("There is no map to explore: run make figure-4 first.")
    opened = opening(maps)
    return {
        "thresholds": THRESHOLDS,
        "scored": [TASKS[task] for task in SCORED],
        "maps": {label: _map(explored) for label, explored in maps.items()},
        "opened": opened,
        "looks": looks(opened),
    }


def opening(maps: dict[str, Explored]) -> list[str]:
    """Return the labels of the left and the right map: of the two models most is known of."""

    def known(label: str) -> tuple[bool, int]:
        explored = maps[label]
        return explored.damage is not None, 0 if explored.scores is None else len(explored.scores)

    best = {}
    for label in sorted(maps, key=known, reverse=True):
        best.setdefault(maps[label].model, label)
    first = list(best.values())[:2]
    left, *right = [label for label in maps if label in first]
    return [left, *(right or [left])]


def looks(opened: list[str]) -> list[dict]:
    """Return what is worth seeing in the two maps that the page opens on.

    Each has a name, a text and a `state`: what the form then holds.
    """
    left, right = opened
    shown = []
    for row in LOOKS:
        if row["map"] in opened:
            state = {key: row[key] for key in STATE if row[key]}
            state |= {"left": left, "right": right, "threshold": islands.THRESHOLD}
            state["side"] = "left" if row["map"] == left else "right"
            shown.append({"name": row["name"], "text": row["text"], "state": state})
    return shown


def inline(page: str) -> HTML:
    """Return a page inside a notebook."""
    return HTML(FRAME.format(html.escape(page)))


def _map(explored: Explored) -> dict:
    """Return what the page knows of a map; values of blocks are lists [n-1][l], null elsewhere."""
    distances = explored.distances
    layers = distances.num_layers
    data = {
        "model": explored.model,
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
        by_block = explored.damage.set_index(BLOCK)
        for name, column in (("damage", "value"), ("damage_error", "standard_error")):
            data[name] = _grid(by_block[column], layers)
    if explored.scores is not None:
        names = explored.scores.task.replace(TASKS)
        table = explored.scores.assign(task=names + explored.scores.shots)
        for (start, size), rows in table.groupby(BLOCK):
            data["scores"][f"{start},{size}"] = _records(rows[SHOWN])
        unhealed = explored.scores[explored.scores.treatment == "unhealed"]
        for task in SCORED:
            of_task = unhealed[unhealed.task == task]
            if len(of_task):
                shots = of_task.shots.mode()[0]  # those of the most blocks
                values = of_task[of_task.shots == shots].set_index(BLOCK).value
                data["scored"][TASKS[task]] = _grid(values, layers)
    return data


def _grid(by_block: pd.Series, layers: int) -> list:
    """Return values by BLOCK as lists [n-1][l]."""
    grid = by_block.unstack(BLOCK[0])
    return _listed(grid.reindex(range(1, layers), columns=range(layers)).to_numpy(float))


def _islands(distances: BlockDistances, first: int = 0) -> dict:
    """Return the rescaled map; at each threshold regions, islands, how often a block is in one.

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
    """Return the rows of a table for JSON, with None for NaN."""
    return json.loads(table.to_json(orient="records"))


def _shifted(values: np.ndarray, first: int, fill=np.nan) -> np.ndarray:
    return np.pad(values, ((0, 0), (first, 0)), constant_values=fill)


def _listed(values: np.ndarray, digits: int = 5) -> list:
    """Return nested lists for JSON, with None for NaN; whole numbers without digits."""
    whole = np.where(np.isnan(values), 0, values).round(digits)
    whole = whole if digits else whole.astype(int)
    return np.where(np.isnan(values), None, whole.astype(object)).tolist()


def main() -> None:
    """Write the page of every map at hand, and open it."""
    argparse.ArgumentParser(prog="python -m replication.show.explorer").parse_args()
    file = paths.FIGURES / "explorer.html"
    storage.atomic_write(file, page(maps()).encode())
    print(file)
    webbrowser.open(file.as_uri())  # False where there is no browser


if __name__ == "__main__":
    main()
