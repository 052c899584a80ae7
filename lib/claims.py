"""The paper's claims as statistics of a run's measurements."""

import numpy as np
import pandas as pd

from lib import catalog
from lib.evaluation import weighted_mean
from lib.islands import rescaled
from lib.similarity import BlockDistances

SIGNAL = 4  # a score this many standard errors from chance can show a transition


def depth_statistics(maps: dict[str, BlockDistances]) -> pd.DataFrame:
    """Claim 4, per model: are deep blocks more similar, and those with the last layer least?

    shallow, deep: mean distance of blocks of up to L/4 layers that lie wholly in the lower or the
    upper half of the model, without the first and the last layer. first, last: mean distance of
    blocks of up to L/2 layers that include that layer, each row rescaled to [0, 1] as in figure 4.
    """
    rows = []
    for name, distances in maps.items():
        half, quarter = distances.num_layers // 2, max(1, distances.num_layers // 4)
        lower = [distances.row(n)[1 : half - n + 1].mean() for n in range(1, quarter + 1)]
        upper = [distances.row(n)[half:-1].mean() for n in range(1, quarter + 1)]
        ends = [rescaled(distances.row(n))[[0, -1]] for n in range(1, half + 1)]
        first, last = np.mean(ends, axis=0)
        means = {"shallow": np.mean(lower), "deep": np.mean(upper), "first": first, "last": last}
        rows.append({"model": catalog.label(name)} | means)
    return pd.DataFrame(rows)


def transitions(scores: pd.DataFrame) -> pd.DataFrame:
    """Claim 1, per model, strategy and task: where does the score fall half way to chance?

    block_size, fraction: the first depth at which the score has lost half its distance between
    the unpruned model and chance. gap is that distance in standard errors of the unpruned score.
    Missing where no depth has lost half, or where the gap is below SIGNAL: nothing to lose.
    """
    rows = []
    unpruned = scores[scores.treatment == "unpruned"].set_index(["model", "task"])
    pruned = scores[scores.treatment != "unpruned"].sort_values("block_size")
    for (name, task, strategy), curve in pruned.groupby(["model", "task", "strategy"], sort=False):
        start = unpruned.loc[(name, task)]
        kept = (curve.value - start.chance) / (start.value - start.chance)
        gap = abs(start.value - start.chance) / start.standard_error
        fallen = curve[(kept < 0.5) & (gap >= SIGNAL)].head(1)
        rows.append(
            {
                "model": catalog.label(name),
                "task": task,
                "strategy": strategy,
                "unpruned": start.value,
                "chance": start.chance,
                "gap": gap,
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


def paired(scores: pd.DataFrame, by: str, first, second) -> pd.DataFrame:
    """How far two lines of a figure are apart at each depth, paired on examples.

    by: the column that tells the lines apart, first and second two of its values. difference:
    the score of `second` less that of `first` (for c4 in nats, where less is better), with the
    standard error of the mean of the examples' differences.
    """
    columns = ["model", "task", "treatment", "block_size"]
    columns += [c for c in ("strategy", "ablation") if c != by and c in scores]
    columns = [c for c in columns if c != by]
    told = scores[(scores.block_size > 0) & scores.value.notna()].set_index(columns)
    left, right = told[told[by] == first], told[told[by] == second]
    rows = []
    for key in left.index.intersection(right.index):
        a, b = left.loc[key], right.loc[key]
        apart = np.array(b.examples) - np.array(a.examples)
        mean, error = weighted_mean(apart, np.array(a.weights))
        found = {"difference": mean, "standard_error": error, "n": a.n}
        rows.append(dict(zip(columns, key, strict=True)) | {"pair": f"{second} - {first}"} | found)
    return pd.DataFrame(rows)
