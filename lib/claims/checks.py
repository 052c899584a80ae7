"""The paper's 13 claims, judged from a run's measurements.

A claim has parts, each a row of claims.csv with its bounds. A row of LINES judges a part, or one of
the FUNCTIONS judges all parts of a claim; each gives a verdict for every model that was measured.
lib.claims.bounds says what makes a verdict.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from lib.analysis import curves
from lib.analysis.bootstrap import interval, paired, resampled, resampled_map
from lib.analysis.curves import halfway, transitions
from lib.analysis.depth import depth_means, depth_statistics, leaves_deep_band, lower_less_upper
from lib.analysis.islands import shallower
from lib.claims.bounds import CRITERIA, Verdict, judged, not_run, undecided
from lib.claims.tables import RunTables
from lib.measure import experiments
from lib.measure.experiments import QA
from lib.models import registry

__all__ = ["depth_statistics", "leaves_deep_band", "paired", "transitions", "verdicts"]

FEWEST_TURNS = 5  # of a latency
FEWEST_MODELS = 3  # for a rank correlation
UNHEALED = {"strategy": "similarity", "treatment": "unhealed"}
HEALED = {"strategy": "similarity", "treatment": "healed"}
SIMPLE = {"strategy": "simple", "treatment": "unhealed"}
SIMPLE_HEALED = {"strategy": "simple", "treatment": "healed"}
C4 = {"task": "c4"}


def _varied(ablation: str, *variants: str) -> list[dict]:
    return [{"ablation": ablation, "variant": v, "treatment": "healed"} for v in variants]


ORDERS = _varied("order", *(f"order {k}" for k in experiments.ORDERS))
ENDS = min(experiments.SHOTS), max(experiments.SHOTS)
SHOTS = _varied("number", *(f"{k} examples" for k in ENDS))
SEEDS = _varied("seeds", *(f"seed {seed}" for seed in experiments.SEEDS))
LINES = {  # part: a statistic, the lines it is of, and their table if not "scores"
    "1": (halfway, [UNHEALED]),
    "2a": (curves.width, [UNHEALED]),
    "2b": (curves.left_beyond, [UNHEALED]),
    "2c": (curves.width, [HEALED]),
    "2d": (curves.shift, [UNHEALED, HEALED]),
    "2e": (curves.mean_gain, [UNHEALED, HEALED]),
    "3a": (curves.shift, [UNHEALED, UNHEALED | C4]),
    "3b": (curves.steepness, [HEALED | C4]),
    "3c": (curves.lost_when_lost, [HEALED, HEALED | C4]),
    "7a": (curves.mean_cost, [UNHEALED | C4, SIMPLE | C4]),
    "7b": (curves.mean_gain, [SIMPLE_HEALED, HEALED]),
    "7c": (curves.least_gain, [HEALED | C4, SIMPLE_HEALED | C4]),
    "7d": (curves.largest_cost, [HEALED | C4, SIMPLE_HEALED | C4]),
    "9a": (curves.largest_change, ORDERS, "prompts"),
    "9b": (curves.shift, SHOTS, "prompts"),
    "9c": (curves.gain_where_flat, SHOTS, "prompts"),
    "10a": (curves.largest_change, SEEDS, "seeds"),
    "10b": (curves.largest_change, [line | C4 for line in SEEDS], "seeds"),
    "13a": (curves.least_harm, [UNHEALED | {"task": "hellaswag"}]),
    "13b": (curves.least_harm, [UNHEALED | {"task": "gsm8k"}]),
    "13c": (curves.least_harm, [UNHEALED | {"task": "gsm8k_bpb"}]),
}


def verdicts(found: RunTables) -> list[Verdict]:
    """Every part of every claim, in claims.csv's order: its verdicts, or that it was not run."""
    every = [verdict for part, line in LINES.items() for verdict in on_lines(found, part, *line)]
    every += [verdict for function in FUNCTIONS.values() for verdict in function(found)]
    return [
        verdict
        for part in CRITERIA
        for verdict in [v for v in every if v.claim == part] or [not_run(part)]
    ]


# ---- from lines: scores against the fraction of layers dropped -----------------------------


def ranks(found: RunTables) -> list[Verdict]:
    """Claim 11: a lower LoRA rank answers better and has a worse loss."""
    if "ranks" not in found.tables:
        return []
    known = found.tables["ranks"]["rank"].dropna().astype(int)
    lines = _varied("similarity", f"rank {known.max()}", f"rank {known.min()}")
    return [
        *on_lines(found, "11a", curves.mean_gain, lines, "ranks"),
        *on_lines(found, "11b", curves.mean_gain, [line | C4 for line in lines], "ranks"),
    ]


def robustness(found: RunTables) -> list[Verdict]:
    """Claim 8: deeper models keep their answers longer; over all models that have a transition."""
    lines = {}
    for model in found.models("scores"):
        task, _ = found.answered("scores", model, QA)
        line = task and found.line("scores", model, task=task, **UNHEALED)
        if line:
            lines[model] = line
    if len(lines) < 2:
        return []
    names = ", ".join(map(registry.label, lines))
    if len(lines) < FEWEST_MODELS:
        return [undecided("8", names, f"too little data: {len(lines)} models")]
    layers = [found.maps[model].num_layers for model in lines]
    correlation = curves.order(layers, *lines.values())
    fewest = min(line.n for line in lines.values())
    return [judged("8", names, "", correlation, fewest, found.healed_share)]


def on_lines(
    found: RunTables, part: str, statistic: Callable, lines: list[dict], table: str = "scores"
) -> list[Verdict]:
    """A verdict on `part` for each model that has all `lines` in `table`.

    lines: what the points of each have in common. A line without a `task` is of the first question
    set that the model answers; without a signal on the first line nothing can be judged.
    """
    every = []
    for model in found.models(table):
        tasks = (lines[0]["task"],) if "task" in lines[0] else QA
        task, why = found.answered(table, model, tasks)
        curves = [found.line(table, model, **({"task": task} | line)) for line in lines]
        if why:
            every.append(undecided(part, model, why))
        elif all(curves):
            n = min(curve.n for curve in curves)
            every.append(judged(part, model, task, statistic(*curves), n, found.healed_share))
    return every


# ---- from maps: distances and damage of every block ----------------------------------------


def depth(found: RunTables) -> list[Verdict]:
    """Claim 4: deeper blocks are more similar, blocks with the last layer the most dissimilar."""
    every = []
    for model, distances in found.maps.items():
        means = depth_means(resampled_map(distances))
        values = {"4a": means["deep"] - means["shallow"], "4b": means["last"]}
        for part, value in values.items():
            n = distances.num_sequences
            every.append(judged(part, model, "", interval(value), n, found.healed_share))
    return every


def islands(found: RunTables) -> list[Verdict]:
    """Claim 5: models of the Qwen family have islands of similar blocks in shallow layers."""
    every = []
    for model, distances in (found.recorded | found.maps).items():
        if "qwen" in model.lower():
            count = np.array([shallower(map_) for map_ in resampled_map(distances)], float)
            told = f"{model} (recorded map)" if model in found.recorded else model
            n = distances.num_sequences
            every.append(judged("5", told, "", interval(count), n, found.healed_share))
    return every


def damage(found: RunTables) -> list[Verdict]:
    """Claim 6: dropping shallow layers hurts more than dropping deep ones."""
    every = []
    for model in found.models("damage"):
        rows = found.points("damage", model)
        apart = lower_less_upper(rows, found.maps[model].num_layers)
        means = resampled(apart[None], np.asarray(rows.weights.iloc[0], float))[:, 0]
        every.append(judged("6", model, "c4", interval(means), len(apart), found.healed_share))
    return every


# ---- from the cost of inference ------------------------------------------------------------


def cost(found: RunTables) -> list[Verdict]:
    """Claim 12: pruning cuts memory and latency, and stacks with quantisation."""
    every = []
    for model in found.models("cost"):
        rows = found.tables["cost"]
        rows = rows[rows.model == model].sort_values("fraction")
        plain, packed = rows[rows.quantization.isna()], rows[rows.quantization == "nf4"]
        for part, task in {"12a": "weights", "12b": "prefill", "12c": "decode"}.items():
            of_task = plain[plain.task == task]
            if len(of_task):
                every.append(_saved(part, of_task.iloc[-1]))
        weights = [t[t.task == "weights"].value.tolist() for t in (plain, packed)]
        if all(weights):
            ratio = weights[1][-1] / min(weights[1][0], weights[0][-1])
            every.append(judged("12d", model, "weights", (ratio,) * 3, 1, 1, fewest=1))
    return every


def _saved(part: str, row: pd.Series) -> Verdict:
    """What the deepest cut saves of a quantity, for each share of the layers that it drops."""
    exact = row.task == "weights"
    ratios = (row.ratio,) * 3 if exact else (row.ratio, row.ratio_high, row.ratio_low)
    saved = tuple((1 - ratio) / row.fraction for ratio in ratios)
    fewest = 1 if exact else FEWEST_TURNS
    return judged(part, row.model, row.task, saved, int(row.n), 1, fewest=fewest)


FUNCTIONS = {"4": depth, "5": islands, "6": damage, "8": robustness, "11": ranks, "12": cost}
