"""The distance maps of the recorded runs and of this machine, with what is known of their blocks.

`python -m replication.explore` writes them as one page, figures/explorer.html, and opens it.
"""

import argparse
import json
import sys
import webbrowser
from collections.abc import Iterable

import numpy as np
import pandas as pd

from lib import storage
from lib.blocks import BlockDistances
from lib.models import registry
from replication import paths, results
from replication.figures import explorer
from replication.figures.explorer import BLOCK, Explored
from replication.measure import damage

WEIGHTS = ("model", "revision", "quantization")  # what a map and its damage and scores share
OTHERWISE = {"seed": "seed", "first_layer": "from layer"}  # of recipes


def maps(own: bool = True) -> dict[str, Explored]:
    """By label: the maps of the recorded runs, then those of this machine (`own`).

    Without the last where a notebook draws the recorded run.
    """
    explored = {}
    folders = {
        f"recorded run {folder.name}": folder
        for folder in sorted(paths.RECORDED.iterdir())
        if folder.is_dir()
    }
    if own and not results.archive_in_use():
        folders["your results"] = paths.RESULTS
    for place, folder in folders.items():
        archive = results.archive(folder)
        for record in archive.records("similarity"):
            params = record["params"]
            source = "{sequences} texts of {max_tokens} tokens, {dtype}".format(**params)
            if params["quantization"]:
                source += f", {params['quantization']}"
            label = f"{registry.label(params['model'])} ({place})"
            if label in explored:
                label = f"{label}: {source}"
            of_weights = [r for r in archive.records() if _same_weights(r["params"], params)]
            explored[label] = Explored(
                params["model"],
                BlockDistances.stored(record["values"]),
                source,
                _damage(r for r in of_weights if r["kind"] == "damage"),
                _scores(r for r in of_weights if r["kind"] == "scores"),
                *_texts(params),
            )
    return explored


def _same_weights(params: dict, others: dict) -> bool:
    return all(params.get(key) == others[key] for key in WEIGHTS)


def _damage(records: Iterable[dict]) -> pd.DataFrame | None:
    """The damage of every block, of the most texts that were measured with the same settings."""
    by_settings: dict[str, dict] = {}
    for record in records:
        params, values = record["params"], record["values"]
        first = params["first"]
        settings = {k: v for k, v in params.items() if k not in ("first", "sequences")}
        chunks = by_settings.setdefault(results.key("damage", settings), {})
        if first not in chunks or len(values["tokens"]) >= len(chunks[first]["tokens"]):
            chunks[first] = values
    if not by_settings:
        return None
    chunks = max(by_settings.values(), key=_number_of_texts)
    losses = np.hstack([chunk["losses"] for chunk in chunks.values()])
    tokens = np.concatenate([chunk["tokens"] for chunk in chunks.values()])
    blocks = next(iter(chunks.values()))["blocks"]
    return damage.table("", blocks, losses, tokens)


def _number_of_texts(chunks: dict) -> int:
    return sum(len(values["tokens"]) for values in chunks.values())


def _scores(records: Iterable[dict]) -> pd.DataFrame | None:
    """Of each block, task and treatment the score on the most examples."""
    rows = []
    for record in records:
        params, values = record["params"], record["values"]
        if params.get("shot_order") or "patched" in params:  # of an ablation
            continue
        shots = f", {params['shots']}-shot" if "shots" in params else ""
        rows.append(
            {key: params[key] for key in BLOCK}
            | {"task": params["task"], "shots": shots, "treatment": _treatment(params)}
            | {key: values[key] for key in ("value", "standard_error", "n")}
        )
    if not rows:
        return None
    table = pd.DataFrame(rows).sort_values("n", kind="stable")
    table = table.drop_duplicates([*BLOCK, "task", "shots", "treatment"], keep="last")
    return table.sort_values(["task", "shots", "treatment"], ascending=[True, True, False])


def _texts(params: dict) -> tuple[tuple[str, ...], dict[tuple[int, int], list[str]]]:
    """The prompts, and by block what the very weights write after them, as far as recorded."""
    file = paths.continuations(params["model"])
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else ["{}"]
    header, *blocks = map(json.loads, lines)
    if not _same_weights(header, params):
        return (), {}
    return tuple(header["prompts"]), {tuple(of["block"]): of["texts"] for of in blocks}


def _treatment(params: dict) -> str:
    recipe = params.get("recipe")
    if not recipe:
        return "unhealed" if params["block_size"] else "unpruned"
    changes = [f", {text} {recipe[key]}" for key, text in OTHERWISE.items() if recipe.get(key)]
    return "healed for {steps} steps, rank {rank}".format(**recipe) + "".join(changes)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m replication.explore", description=__doc__)
    parser.parse_args(argv)
    file = paths.FIGURES / "explorer.html"
    storage.atomic_write(file, explorer.page(maps()).encode())
    print(file)
    webbrowser.open(file.as_uri())  # False where there is no browser
    return 0


if __name__ == "__main__":
    sys.exit(main())
