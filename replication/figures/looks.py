"""What to look at in the explorer: states of its form, each with a sentence computed from the data.

A look is shown only where the data show it.
"""

import numpy as np
import pandas as pd

from lib.blocks import BlockDistances
from lib.models import registry
from replication.analysis import islands, leaves_deep_band

PEAK = 2  # times the damage of both neighbours, from which on a layer stands out
DECIDED = 3  # standard errors by which it does
DAMAGE, RESCALED = "damage: rise of the C4 loss, nats", "rescaled distance"  # views of the page


def looks(opened: dict) -> list[dict]:
    """The looks at the maps (Explored, by label) that the page opens on: name, text and state.

    state: what the form then holds. Each look is at the map that shows it best.
    """
    labels = list(opened)
    looks = []
    for look in (costly_layer, jump, first_layer):
        seen = {label: look(explored) for label, explored in opened.items()}
        seen = {label: of_map for label, of_map in seen.items() if of_map}
        if seen:
            label = max(seen, key=lambda label: seen[label]["strength"])
            side = "left" if label == labels[0] else "right"
            form = {"left": labels[0], "right": labels[-1], "side": side}
            form["threshold"] = islands.THRESHOLD
            best = seen[label]
            looks.append(
                {key: best[key] for key in ("name", "text")} | {"state": form | best["form"]}
            )
    return looks


def costly_layer(explored) -> dict | None:
    """A layer inside the model that costs far more than both of its neighbours."""
    if explored.damage is None:
        return None
    by_block = explored.damage.set_index(["block_size", "block_start"])
    of_size, errors = by_block.value.unstack(), by_block.standard_error.loc[1]
    alone = of_size.loc[1]
    neighbours = pd.concat([alone.shift(1), alone.shift(-1)], axis=1).max(axis=1, skipna=False)
    stands_out = (alone > PEAK * neighbours) & (alone > neighbours + DECIDED * errors)
    if not stands_out.any():
        return None
    layer = int((alone / neighbours)[stands_out].idxmax())
    darker = of_size[layer] > of_size[layer + 1]
    last = int(darker.cumprod().sum())
    return {
        "strength": alone[layer] / neighbours[layer],
        "name": f"Layer {layer} of {registry.label(explored.model)}",
        "text": f"dropping it alone costs {alone[layer]:.2f} nats, dropping a neighbour at most "
        f"{neighbours[layer]:.2f}; up to n = {last} a block that begins with it costs more than "
        "the next one.",
        "form": {"view": DAMAGE, "n": 1, "l": layer},
    }


def jump(explored) -> dict | None:
    """The block size from which on the best start lies at the shallow end."""
    distances: BlockDistances = explored.distances
    size = leaves_deep_band(distances)
    if size is None:
        return None
    before, start = distances.best_start(size - 1), distances.best_start(size)
    row = distances.row(size)
    near = min(before, len(row) - 1)
    return {
        "strength": (before - start) / distances.num_layers,
        "name": f"The best start of {registry.label(explored.model)} jumps",
        "text": f"the black dot is at l = {before} for n = {size - 1} and at l = {start} for "
        f"n = {size}, where the distance is {row[start]:.3f} (at l = {near}: {row[near]:.3f}).",
        "form": {"view": RESCALED, "n": size, "l": start},
    }


def first_layer(explored) -> dict | None:
    """How blocks that begin at layer 0 squeeze the colours of all others."""
    matrix = explored.distances.matrix
    rows = islands.by_size(matrix)
    least_similar = int(np.sum(np.nanargmax(rows, axis=1) == 0))
    if 2 * least_similar <= len(rows):
        return None
    whole, without = (_similar(part) for part in (matrix, matrix[1:, 1:]))
    return {
        "strength": whole - without,
        "name": f"{registry.label(explored.model)} without its first layer",
        "text": f"blocks from layer 0 are the least similar at {least_similar} of {len(rows)} "
        f"sizes; leave them out, and {without:.0%} of the blocks are similar, not {whole:.0%}.",
        "form": {"view": RESCALED, "n": 1, "l": explored.distances.best_start(1), "without": "on"},
    }


def _similar(matrix: np.ndarray) -> float:
    """The share of blocks with a rescaled distance of at most the threshold of islands."""
    heights = islands.rescaled(islands.by_size(matrix))
    return float(np.mean(heights[~np.isnan(heights)] <= islands.THRESHOLD))
