"""What the toy notebook does in its kernel; imports as little as it can."""

import os
import time
from pathlib import Path

from lib import storage
from replication import paths, profiles, tables
from replication.measure import cache


def measure(name: str) -> dict:
    """Do what the toy model `name` does when it is measured; a line in OUTPUT/measured each."""
    note("measured", f"{name} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}")
    if name.startswith("slow"):
        time.sleep(600)
    if name.startswith("memory"):
        import resource

        import torch

        resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
        torch.ones(2**32)
    return {"value": len(name)}


def toy(name: str) -> dict:
    """Return the record of the toy model `name`. Raises NotMeasured if it is only drawn."""
    if paths.draws_only() and cache.load("toy", {"model": name}) is None:
        raise tables.NotMeasured(f"{name} is not measured")
    return cache.load_or_compute("toy", {"model": name}, lambda: measure(name))


def work(profile: str, models: list[str]) -> None:
    """Measure each model through the results and draw a table, as a notebook does."""
    rows = ["model,value,status"]
    for name in (Path(model).name for model in models):
        try:
            record = toy(name)
            rows.append(f"{name},{record['values'].get('value', 0)},ok")
        except tables.NotMeasured as error:
            rows.append(f"{name},,{error.status}")
    folder = paths.FIGURES / profiles.folder(profile, models)
    storage.atomic_write(folder / "figure_toy.csv", "\n".join(rows).encode())
    storage.atomic_write(folder / "figure_toy.png", b"\x89PNG")


def note(file: str, line: str) -> None:
    """Append a line to OUTPUT/`file`."""
    paths.OUTPUT.mkdir(parents=True, exist_ok=True)
    with (paths.OUTPUT / file).open("a", encoding="utf-8") as out:
        out.write(line + "\n")
