"""Layers taken out one by one, each time the one whose removal raises the loss least (SLEB)."""

import numpy as np
import pandas as pd

from lib import results
from lib.blocks import Block, BlockDistances
from lib.evaluation import Task
from lib.measure import damage, fetching
from lib.measure.studies import HALVES, most_removed, next_layer
from lib.models import loading
from lib.models.layers import only_layers
from lib.profiles import Profile
from lib.sweep import sweep


def measure(maps: dict[str, BlockDistances], profile: Profile) -> pd.DataFrame:
    """The damage without the layers that each half of the damage map's texts chooses.

    The first one is read off the damage map. Up to greedy_fraction of the layers are dropped.

    One row per model, half and number of dropped layers: model, half (that chose), block_size,
    layers (dropped, in order), and of the texts of both halves the rise of the C4 loss (`examples`,
    nats a token) and the tokens (`weights`).
    """
    found, _ = fetching.tried(lambda name: _of_model(name, maps[name].num_layers, profile), maps)
    return pd.concat(found.values(), ignore_index=True)


def _of_model(name: str, num_layers: int, profile: Profile) -> pd.DataFrame:
    _, losses, tokens = damage.losses(name, profile)
    whole, singles = losses[0], losses[1 : num_layers + 1]
    rows = []
    for half in HALVES:
        layer = int((singles[:, half::2] @ tokens[half::2]).argmin())
        values, dropped = {"layer": layer, "losses": singles[layer]}, []
        for size in range(1, most_removed(num_layers, profile) + 1):
            if dropped:
                values = _step(name, profile, half, dropped, num_layers)
            dropped = [*dropped, values["layer"]]
            told = {"model": name, "half": half, "block_size": size, "layers": dropped}
            rise = np.array(values["losses"]) - whole
            rows.append(told | {"examples": rise, "weights": tokens})
    return pd.DataFrame(rows)


def _step(name: str, profile: Profile, half: int, dropped: list[int], num_layers: int) -> dict:
    """The layer that goes after those dropped, and the loss of every text without it, too."""
    (asked,) = fetching.here([next_layer(name, profile, half, dropped)])

    def compute() -> dict:
        model, tokenizer = loading.loaded(name, **profile.weights)
        task = damage.task(asked.params, 0, profile.damage_sequences)
        own = Task(task.name, task.examples[half::2])
        kept = [l for l in range(num_layers) if l not in dropped]
        singles = [Block(place, 1) for place in range(len(kept))]
        with only_layers(model, kept):
            found = sweep(model, tokenizer, singles, [own], profile.batch_tokens)
        layer = kept.pop(int(found.value[1:].argmin()))
        with only_layers(model, kept):
            found = sweep(model, tokenizer, [], [task], profile.batch_tokens)
        return {"layer": layer, "losses": found.examples[0].tolist()}

    return results.load_or_compute(asked.kind, asked.params, compute)["values"]
