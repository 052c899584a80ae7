"""`python -m benchmarks.repairs`: minutes of each repair of notebook 14, timed in turn.

The times that a run stores are of different hours. Here one process on one core takes a few steps
of the healing, and fits each map, in turn; the least time of each counts. Writes
benchmarks/results/repairs.csv, and puts its minutes into the recorded table: run it after each
recording.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from lib import pruning
from lib.data import sets
from lib.healing import heal, linear
from lib.models import loading
from lib.similarity import calibration_batches
from replication import paths, profiles, tables
from replication.beyond import repair
from replication.measure import cache

MODEL = "smollm2-135m"  # of which the record has repairs
TURNS = 2
TIMED = paths.ROOT / "benchmarks/results/repairs.csv"
STEPS = 3  # of each healing and turn


def repair_times(name: str) -> pd.DataFrame:
    """Return a row a repair of the similar block at the middle depth: seconds, units, minutes."""
    profile = profiles.get(profiles.RECORD_PROFILE)
    distances = tables.maps(profiles.get(profiles.DRAW_ONLY_PROFILE))[name]
    requests = repair.linear_maps(name, distances, profile)
    by_block = {r.block: r for r in requests if r.recipe and r.labels["strategy"] == "similarity"}
    block = sorted(by_block, key=lambda block: block.size)[len(by_block) // 2]
    recipe = by_block[block].recipe
    model, tokenizer = loading.load(name, **profile.load_kwargs)
    rows = []
    for _ in range(TURNS):
        for kind, took in _map_seconds(model, tokenizer, block, profile).items():
            rows.append({"repair": kind, "unit": "map", "seconds": took, "units": 1})
        took = _step_seconds(model, tokenizer, block, recipe)
        rows.append({"repair": "LoRA", "unit": "step", "seconds": took, "units": recipe.steps})
    table = pd.DataFrame(rows).groupby(["repair", "unit", "units"], sort=False).seconds.min()
    table = table.reset_index().assign(model=name, dropped=block.size)
    return table.assign(minutes=table.seconds * table.units / 60)


def _map_seconds(model, tokenizer, block, profile) -> dict[str, float]:
    """Return the seconds in which each kind of map is fitted, reading its texts included."""
    count = profile.map_sequences
    texts = sets.healing_texts(profile.source, count)[:count]
    batches = calibration_batches(texts, tokenizer, profile.map_tokens, profile.batch_tokens)
    maps = linear.fitted_all(model, [block], linear.KINDS, batches)[block]
    return {f"{kind} map": facts["seconds"] for kind, (_, facts) in maps.items()}


def _step_seconds(model, tokenizer, block, recipe) -> float:
    """Return the seconds of a step of a healing."""
    recipe = replace(recipe, steps=STEPS, warmup_steps=0, decay_steps=0)
    with tempfile.TemporaryDirectory() as folder:
        with pruning.dropped(model, block):
            healed = heal(model, tokenizer, recipe, Path(folder) / "healed")
    return healed.seconds / STEPS


def record(times: pd.DataFrame) -> None:
    """Put the times into the recorded table of repairs.

    A repair that was not timed has none: the times of a recording are of different hours.
    """
    recorded = profiles.get(profiles.DRAW_ONLY_PROFILE)
    minutes = times.set_index(["model", "dropped", "repair"]).minutes
    table = tables.read("linear_maps", recorded)
    repaired = ~table.repair.isin(repair.NOT_REPAIRED)
    timed = table[repaired & (table.strategy == "similarity")]
    seconds = 60 * minutes.reindex(timed[["model", "block_size", "repair"]]).to_numpy()
    table.loc[repaired, "seconds"] = pd.Series(seconds, timed.index)
    tables.write(table, "linear_maps", recorded)


def main() -> None:
    torch.set_num_threads(1)
    times = repair_times(MODEL).round(2)
    times = times.assign(processor=cache.environment()["processor"], threads=1)
    times.to_csv(TIMED, index=False)
    record(times)


if __name__ == "__main__":
    main()
