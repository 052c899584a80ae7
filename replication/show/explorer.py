"""Distance maps to explore, as one page: a file that works offline, or inside JupyterLab.

`python -m replication.show.explorer` writes figures/explorer.html, and opens it. Python computes
what is shown: maps, islands at every threshold, and how often these come back. explorer.js draws
what the form in explorer.html.j2 asks for, and keeps that in the link.
"""

import argparse
import html
import json
import webbrowser
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from lib import storage
from lib.blocks import BlockDistances
from lib.models import registry
from replication import paths, profiles, tables
from replication.analysis import islands
from replication.figures import curves
from replication.run.notebooks import TASK_LABELS

HERE = Path(__file__).parent
TEMPLATES = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
TOUR = storage.rows(HERE / "explorer_tour.csv")  # what is worth seeing, as states of the form
TASKS = curves.TASKS | TASK_LABELS
SCORED = ("mmlu", "arc_easy", "c4")  # that have a view
THRESHOLDS = tuple(percent / 100 for percent in range(1, 41))
FRAME = '<div><iframe srcdoc="{}" style="width: 100%; height: 1500px; border: 0"></iframe></div>'
BLOCK = list(tables.BLOCK)
WEIGHTS = ["model", "revision", "quantization"]  # what a map and its damage and scores share
ISLAND = ["island", "side", "first_start", "last_start", "smallest_size", "largest_size"]
ISLAND += [*BLOCK, "area", "stability", "by_growth"]  # what the page shows of an island
DAMAGE = [*BLOCK, "value", "standard_error", "examples"]
SOURCE = "Profile: {profile}. Weights: {weights}. Texts: {n} of {data} ({data_revision:.8}), "
SOURCE += "{max_tokens} tokens each"
GROWTH = "No texts: a stream that each layer turns as far as the model does, in a random direction."
MINE = "A matrix of your own, without errors."
NOTES = {row["name"]: row["note"] for row in storage.rows(registry.TABLE)}  # of weights
ENDS = ", each text cut at a random place"
KEY = [*BLOCK, "task", "shots", "treatment"]  # of a score
SCORE = [*KEY, "value", "standard_error"]


@dataclass(frozen=True)
class ModelMap:
    """The map of a model, and what else is known of its blocks.

    source: of which profile, weights and texts. damage: by BLOCK value and standard_error (nats),
    and examples, the rise of each text; repeats: the same after running a block twice. scores: by
    KEY value, standard_error and n (shots: examples in the prompt, as text); block (0, 0) is the
    unpruned model. texts: what the model writes after each of `prompts`, by (start, size).
    """

    model: str
    distances: BlockDistances
    source: str = ""
    damage: pd.DataFrame | None = None
    repeats: pd.DataFrame | None = None
    scores: pd.DataFrame | None = None
    prompts: tuple[str, ...] = ()
    texts: dict[tuple[int, int], list[str]] = field(default_factory=dict)


# ---- from the tables ------------------------------------------------------------------------


def maps(own: bool = True) -> dict[str, ModelMap]:
    """Return by label the maps of the recorded runs, then (`own`) those of your runs."""
    model_maps = {}
    for run, folder in _folders(own).items():
        scores, damage = _scores(folder), _read(folder, "damage")
        repeats = _read(folder, "repeats")
        for name, rows in _read(folder, "similarity").groupby("model"):
            params = tables.with_settings(rows).iloc[0].to_dict()
            params["data"] = Path(params["data"]).name  # of a file, no folders
            params["weights"] = _weights(name, params)
            source = SOURCE.format(**params) + ENDS * bool(params["cut_at_random"])
            model_maps[f"{registry.label(name)} ({run})"] = ModelMap(
                name,
                tables.distances_of(rows),
                f"{source}.",
                _of_weights(params, damage),
                _of_weights(params, repeats),
                _of_weights(params, scores),
                *_texts(params),
            )
    return model_maps


def _weights(name: str, params: dict) -> str:
    """Return in words what a map was measured with: the file, its revision, and its format."""
    packed = f"packed in {params['quantization']}" if params["quantization"] else ""
    revision = f"revision {params['revision']:.8}"
    return ", ".join(filter(None, [NOTES.get(name), revision, params["dtype"], packed]))


def _folders(own: bool) -> dict[str, Path]:
    """Return the folders of tables by label: of the recorded runs, then (`own`) of your runs."""
    places = {"recorded run": paths.RECORDED} | ({"your run": paths.TABLES} if own else {})
    return {
        f"{whose} {folder.name}": folder
        for whose, place in places.items()
        for folder in sorted(place.glob("*/"))
    }


def _read(folder: Path, name: str) -> pd.DataFrame:
    file = folder / f"{name}.parquet"
    return pd.read_parquet(file) if file.exists() else pd.DataFrame(columns=WEIGHTS)


def _of_weights(params: dict, table: pd.DataFrame) -> pd.DataFrame | None:
    """Return the rows that were measured with the weights of a request; None if none were."""
    weights = pd.Series({key: params[key] or "" for key in WEIGHTS})
    is_same = table[WEIGHTS].fillna("") == weights
    rows = table[is_same.all(axis=1)]
    return None if rows.empty else rows


def _scores(folder: Path) -> pd.DataFrame:
    """Return of each block, task and treatment the score on the most examples; no ablations."""
    columns = [*WEIGHTS, "task", *BLOCK, "value", "standard_error", "n", "request"]
    parts = []
    for _, table in tables.read_all(folder):
        if {"task", "examples"} <= set(table):
            parts.append(table[table.value.notna()].reindex(columns=columns))
    parts = parts or [pd.DataFrame(columns=columns)]
    measured = tables.with_settings(pd.concat(parts, ignore_index=True))
    measured["treatment"] = [_treatment(score) for score in measured.itertuples()]
    is_other_order = measured.shot_order.fillna(0) != 0
    is_plain = (measured.kind == "scores") & ~is_other_order & measured.patched.isna()
    table = measured[is_plain]  # others are ablations
    shots = table.shots.map(", {:.0f}-shot".format, na_action="ignore")
    table = table.assign(shots=shots.fillna(""))
    table = table.sort_values("n", kind="stable")
    table = table.drop_duplicates([*WEIGHTS, *KEY], keep="last")
    table = table.sort_values(KEY[2:], ascending=[True, True, False])
    return table[[*WEIGHTS, *SCORE, "n"]]


def _treatment(score) -> str:
    """Return in words what was done to a model: "healed for 512 steps, rank 8, seed 1"."""
    if pd.isna(score.steps):
        return "unhealed" if score.block_size else "unpruned"
    seed = f", seed {score.seed:.0f}" if score.seed else ""
    return f"healed for {score.steps:.0f} steps, rank {score.rank:.0f}{seed}"


def _texts(params: dict) -> tuple[tuple[str, ...], dict[tuple[int, int], list[str]]]:
    """Return the prompts, and by block what these weights write after them, if it is recorded."""
    file = paths.continuations(params["model"])
    if not file.exists():
        return (), {}
    lines = file.read_text(encoding="utf-8").splitlines()
    header, *blocks = map(json.loads, lines)
    if any(header[key] != params[key] for key in WEIGHTS):
        return (), {}
    texts = {tuple(written["block"]): written["texts"] for written in blocks}
    return tuple(header["prompts"]), texts


# ---- to the page ----------------------------------------------------------------------------


def page(maps: dict[str, ModelMap], opened: list[str] | None = None) -> str:
    """Return the page that shows any two of some maps, by their labels.

    opened: the labels of the left and the right map; one twice: beside its growth-only twin.
    """
    texts = paths.RECORDED / "texts.json"
    data = {
        "thresholds": THRESHOLDS,
        "tasks": TASKS,
        "scored": SCORED,
        "texts": json.loads(texts.read_bytes()) if texts.exists() else [],
        "maps": {label: _map(model_map) for label, model_map in maps.items()},
        "opened": opened or _opened(maps),
        "recorded": profiles.RECORD_PROFILE,
        "most_texts": profiles.PROFILES[profiles.RECORD_PROFILE].similarity_sequences,
    }
    return TEMPLATES.get_template("explorer.html.j2").render(
        data,
        plotly=get_plotlyjs(),
        text=_json(data),
        script=(HERE / "explorer.js").read_text(encoding="utf-8"),
        tour=TOUR,
        threshold=islands.THRESHOLD,
    )


def write(matrices: dict[str, np.ndarray], file: Path | str) -> None:
    """Write the page of maps of your own, by their labels, and of the recorded ones.

    matrices: as `islands.of_matrix` takes them; it raises ValueError for others. Two are opened
    side by side, one beside its growth-only twin.
    """
    own = {
        label: ModelMap("", islands.of_matrix(matrix), MINE) for label, matrix in matrices.items()
    }
    opened = [*own, *own][:2]
    storage.atomic_write(Path(file), page(own | maps(own=False), opened).encode())


def _json(data: dict) -> str:
    """Return data as JSON that does not end a script."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")


def _opened(maps: dict[str, ModelMap]) -> list[str]:
    """Return the labels of the left and the right map: those with damage, and with most texts."""

    def known(label: str) -> tuple:
        return maps[label].damage is not None, len(maps[label].texts)

    first = sorted(maps, key=known, reverse=True)[:2]
    return [first[0], first[-1]]


def inline(page: str) -> HTML:
    """Return a page inside a notebook."""
    return HTML(FRAME.format(html.escape(page)))


def _map(model_map: ModelMap) -> dict:
    """Return what the page knows of a map; values of blocks are lists [n-1][l], null elsewhere."""
    grown = islands.twin(model_map.distances.matrix)
    return _grid(model_map) | {"twin": _grid(ModelMap("", grown, GROWTH))}


def _grid(model_map: ModelMap) -> dict:
    """Return what the page knows of a map, but for its twin."""
    distances = model_map.distances
    layers = distances.num_layers
    is_local = Path(model_map.model).is_absolute()  # a folder or a file: its path stays private
    return {
        "model": Path(model_map.model).name if is_local else model_map.model,
        "layers": layers,
        "source": model_map.source,
        "distance": _listed(islands.by_size(distances.matrix)),
        "error": _listed(islands.by_size(distances.standard_error)),
        "whole": _islands(distances),
        "damage": _records(model_map.damage, DAMAGE),
        "repeats": _records(model_map.repeats, DAMAGE),
        "scores": _records(model_map.scores, SCORE),
        "prompts": model_map.prompts,
        "texts": {f"{start},{size}": texts for (start, size), texts in model_map.texts.items()},
    }


def _islands(distances: BlockDistances) -> dict:
    """Return at each threshold the regions, the islands, and how often a block is in one."""
    data = {"regions": [], "share": [], "islands": []}
    heights = islands.heights(distances.matrix)
    resamples = islands.resampled_heights(distances.folds)
    for threshold in THRESHOLDS:
        regions = islands.regions_below(heights, threshold)
        again = np.array([islands.regions_below(rows, threshold) for rows in resamples])
        share = _listed(100 * np.mean(again > islands.BAND, axis=0), 0) if len(again) else None
        table = islands.islands(distances, threshold, again)
        table["by_growth"] = islands.by_growth(distances.matrix, threshold)
        data["regions"].append(regions.tolist())
        data["share"].append(share)
        data["islands"].append(_records(table, ISLAND))
    return data


def _records(table: pd.DataFrame | None, columns: list[str]) -> list[dict]:
    """Return the rows of a table for JSON, with None for NaN; none of no table."""
    if table is None:
        return []
    return json.loads(table[columns].to_json(orient="records", double_precision=5))


def _listed(values: np.ndarray, digits: int = 5) -> list:
    """Return nested lists for JSON, with None for NaN."""
    return json.loads(pd.DataFrame(values).to_json(orient="values", double_precision=digits))


def export(run: str, file: Path) -> None:
    """Write the maps of one of your runs as a file that the page opens.

    Raises ValueError if the run has measured none.
    """
    own = {}
    for label, model_map in maps().items():
        name, is_own, _ = label.rpartition(f" (your run {run})")
        if is_own:
            own[f"{name} ({run}, {model_map.distances.num_sequences} texts)"] = _map(model_map)
    if not own:
        raise ValueError(f"Nothing of run {run!r} is there: make figure-4 measures its maps.")
    storage.atomic_write(file, _json(own).encode())


def main() -> None:
    """Write the page of every map at hand and open it, or export the maps of a run."""
    parser = argparse.ArgumentParser(prog="python -m replication.show.explorer")
    parser.add_argument("--export", type=Path, help="write the maps of a run to this file instead")
    parser.add_argument("--profile", default="quick", choices=profiles.PROFILES, help="of that run")
    parser.add_argument("--models", nargs="+", type=registry.canonical, help="of that run")
    parser.add_argument("--texts", help="of that run")
    options = parser.parse_args()
    if options.export:
        try:
            run = profiles.folder(options.profile, options.models, options.texts)
            export(run, options.export)
        except ValueError as error:
            parser.exit(2, f"{error}\n")
        print(options.export)
        return
    file = paths.FIGURES / "explorer.html"
    storage.atomic_write(file, page(maps()).encode())
    print(file)
    webbrowser.open(file.as_uri())  # False where there is no browser


if __name__ == "__main__":
    main()
