"""The paper's claims as statistics of a run's measurements."""

import numpy as np
import pandas as pd

from lib import catalog
from lib.similarity import BlockDistances


def depth_statistics(maps: dict[str, BlockDistances]) -> pd.DataFrame:
    """Claim 4, per model: are deeper blocks more similar, and those with the last layer least?

    shallow, deep: mean distance of blocks of up to L/4 layers that lie wholly in the lower or the
    upper half of the model, the last layer left out. last_is_largest: the share of block sizes up
    to L/2 at which the block that includes the last layer is the most distant of its row.
    """
    rows = []
    for name, distances in maps.items():
        half, quarter = distances.num_layers // 2, max(1, distances.num_layers // 4)
        sizes = range(1, quarter + 1)
        lower = [distances.row(n)[: half - n + 1].mean() for n in sizes]
        upper = [distances.row(n)[half:-1].mean() for n in sizes]
        last = [np.argmax(distances.row(n)) == distances.num_layers - n for n in range(1, half + 1)]
        rows.append(
            {
                "model": catalog.label(name),
                "shallow": np.mean(lower),
                "deep": np.mean(upper),
                "last_is_largest": np.mean(last),
            }
        )
    return pd.DataFrame(rows)


def transitions(scores: pd.DataFrame) -> pd.DataFrame:
    """Claim 1, per model, strategy and task: where does the score fall half way to chance?

    block_size, fraction: the first depth at which the score has lost half its distance between
    the unpruned model and chance, missing if none has. gap is that distance in standard errors of
    the unpruned score: below about 4 the model shows no signal to lose.
    """
    rows = []
    unpruned = scores[scores.treatment == "unpruned"].set_index(["model", "task"])
    pruned = scores[scores.treatment != "unpruned"].sort_values("block_size")
    for (name, task, strategy), curve in pruned.groupby(["model", "task", "strategy"], sort=False):
        start = unpruned.loc[(name, task)]
        kept = (curve.value - start.chance) / (start.value - start.chance)
        fallen = curve[kept < 0.5].head(1)
        rows.append(
            {
                "model": catalog.label(name),
                "task": task,
                "strategy": strategy,
                "unpruned": start.value,
                "chance": start.chance,
                "gap": abs(start.value - start.chance) / start.standard_error,
                "block_size": fallen.block_size.iloc[0] if len(fallen) else None,
                "fraction": fallen.fraction.iloc[0] if len(fallen) else None,
            }
        )
    return pd.DataFrame(rows)


def leaves_deep_band(distances: BlockDistances) -> int | None:
    """The first block size whose best start jumps down into the lower third of the model.

    There the choice jumps from the deep band of similar layers to the shallow end.
    """
    third = distances.num_layers / 3
    starts = [distances.best_start(n) for n in range(1, distances.num_layers)]
    for size, (before, after) in enumerate(zip(starts, starts[1:], strict=False), start=2):
        if before - after > 1 and after < third:
            return size
    return None
