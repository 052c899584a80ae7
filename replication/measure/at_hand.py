"""All distance maps at hand, and what else is known of their models' blocks, for the explorer.

`python -m replication.measure.at_hand` writes them as one page, figures/explorer.html, and opens
it.
"""

import argparse
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
from replication.measure import damage, distance_maps

WEIGHTS = ("model", "revision", "quantization")  # what a map and its damage and scores share
OTHERWISE = {"seed": "seed", "first_layer": "from layer"}  # of recipes


def maps() -> dict[str, Explored]:
    """By label: the recorded maps, then those of the recorded runs, then those of this machine."""
    found = {}
    for file in sorted(paths.RECORDED.glob("*.json")):
        distances, told = distance_maps.recorded(file.stem)
        how = f"{told['sequences']} texts of {told['tokens']} tokens; {told['weights']}"
        label = f"{registry.label(file.stem)} (recorded map)"
        found[label] = Explored(distances, how)
    runs = {f"recorded run {f.name}": f for f in sorted(paths.RECORDED.iterdir()) if f.is_dir()}
    for place, folder in (runs | {"your results": paths.RESULTS}).items():
        archive = results.archive(folder)
        for record in archive.records("similarity"):
            asked = record["params"]
            how = "{sequences} texts of {max_tokens} tokens, {dtype}".format(**asked)
            how += f", {asked['quantization']}" if asked["quantization"] else ""
            label = f"{registry.label(asked['model'])} ({place})"
            label = f"{label}: {how}" if label in found else label
            same = [
                r for r in archive.records() if all(r["params"].get(k) == asked[k] for k in WEIGHTS)
            ]
            found[label] = Explored(
                BlockDistances.stored(record["values"]),
                how,
                _damage(r for r in same if r["kind"] == "damage"),
                _scores(r for r in same if r["kind"] == "scores"),
            )
    return found


def _damage(records: Iterable[dict]) -> pd.DataFrame | None:
    """The damage of every block, of the most texts that were measured in one way."""
    ways: dict[str, dict] = {}
    for record in records:
        asked = {k: v for k, v in record["params"].items() if k not in ("first", "sequences")}
        chunks = ways.setdefault(results.key("damage", asked), {})
        first, values = record["params"]["first"], record["values"]
        chunks[first] = max(values, chunks.get(first, values), key=lambda v: len(v["tokens"]))
    if not ways:
        return None
    chunks = max(ways.values(), key=lambda way: sum(len(v["tokens"]) for v in way.values()))
    losses = np.hstack([chunk["losses"] for chunk in chunks.values()])
    tokens = np.concatenate([chunk["tokens"] for chunk in chunks.values()])
    blocks = next(iter(chunks.values()))["blocks"]
    return damage.table("", blocks, losses, tokens)


def _scores(records: Iterable[dict]) -> pd.DataFrame | None:
    """Of each block, task and treatment the score on the most examples."""
    rows = []
    for record in records:
        asked, values = record["params"], record["values"]
        if asked.get("shot_order"):
            continue
        shots = f", {asked['shots']}-shot" if "shots" in asked else ""
        told = {"task": asked["task"] + shots}
        told["treatment"] = "unhealed" if asked["block_size"] else "unpruned"
        if cure := asked.get("recipe"):
            told["treatment"] = "healed for {steps} steps, rank {rank}".format(**cure)
            more = (f", {text} {cure[key]}" for key, text in OTHERWISE.items() if cure.get(key))
            told["treatment"] += "".join(more)
        told |= {key: values[key] for key in ("value", "standard_error", "n")}
        rows.append({key: asked[key] for key in BLOCK} | told)
    if not rows:
        return None
    table = pd.DataFrame(rows).sort_values("n", kind="stable")
    table = table.drop_duplicates([*BLOCK, "task", "treatment"], keep="last")
    return table.sort_values(["task", "treatment"], ascending=[True, False])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m replication.measure.at_hand", description=__doc__
    )
    parser.parse_args(argv)
    file = paths.FIGURES / "explorer.html"
    storage.atomic_write(file, explorer.page(maps()).encode())
    print(file)
    webbrowser.open(file.as_uri())  # False where there is no browser
    return 0


if __name__ == "__main__":
    sys.exit(main())
