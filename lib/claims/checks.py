"""The paper's 13 claims, judged from a run's measurements.

A claim has parts, each a row of claims.csv with its bounds. A row of LINES judges a part, or one of
the FUNCTIONS judges all parts of a claim; each gives a verdict for every model that was measured.
lib.claims.bounds says what makes a verdict.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from lib.analysis import curves
from lib.analysis.bootstrap import interval, resampled, resampled_map
from lib.analysis.depth import depth_means, lower_less_upper
from lib.analysis.islands import shallower
from lib.claims.bounds import CRITERIA, Verdict, judged
from lib.claims.tables import RunTables
from lib.measure import experiments
from lib.measure.experiments import QA
from lib.models import registry

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
    "1": (curves.halfway, [UNHEALED]),
    "2a": (curves.width, [UNHEALED]),
    "2b": (curves.left_beyond, [UNHEALED]),
    "2c": (curves.width, [HEALED]),
    "2d": (curves.shift, [UNHEALED, HEALED]),
    "2e": (curves.gain, [UNHEALED, HEALED]),
    "3a": (curves.shift, [UNHEALED, UNHEALED | C4]),
    "3b": (curves.steepness, [HEALED | C4]),
    "3c": (curves.lost_when_lost, [HEALED, HEALED | C4]),
    "7a": (curves.cost, [UNHEALED | C4, SIMPLE | C4]),
    "7b": (curves.gain, [SIMPLE_HEALED, HEALED]),
    "7c": (partial(curves.gain, over=np.min), [HEALED | C4, SIMPLE_HEALED | C4]),
    "7d": (partial(curves.cost, over=np.max), [HEALED | C4, SIMPLE_HEALED | C4]),
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
    every += [verdict for judge in FUNCTIONS.values() for verdict in judge(found)]
    ran = {verdict.claim for verdict in every}
    every += [judged(part, why="not measured") for part in CRITERIA if part not in ran]
    return sorted(every, key=lambda verdict: list(CRITERIA).index(verdict.claim))


def on_lines(
    found: RunTables, part: str, statistic: Callable, lines: list[dict], table: str = "scores"
) -> Iterator[Verdict]:
    """A verdict on `part` for each model that has all `lines` in `table`.

    lines: what the points of each have in common. A line without a `task` is of the first question
    set that the model answers; without a signal on the first line nothing can be judged.
    """
    for model in found.models(table):
        tasks = (lines[0]["task"],) if "task" in lines[0] else QA
        task, why = found.answered(table, model, tasks)
        drawn = [found.line(table, **{"model": model, "task": task} | line) for line in lines]
        if why:
            yield judged(part, model, why=why)
        elif all(drawn):
            n = min(line.n for line in drawn)
            yield judged(part, model, task, statistic(*drawn), n, found.healed_share)


def ranks(found: RunTables) -> Iterator[Verdict]:
    """Claim 11: a lower LoRA rank answers better and has a worse loss."""
    if "ranks" in found.tables:
        known = found.tables["ranks"]["rank"].dropna().astype(int)
        lines = _varied("similarity", f"rank {known.max()}", f"rank {known.min()}")
        yield from on_lines(found, "11a", curves.gain, lines, "ranks")
        yield from on_lines(found, "11b", curves.gain, [line | C4 for line in lines], "ranks")


def robustness(found: RunTables) -> Iterator[Verdict]:
    """Claim 8: deeper models keep their answers longer; over all models that have a transition."""
    lines = {}
    for model in found.models("scores"):
        task, _ = found.answered("scores", model, QA)
        line = task and found.line("scores", model=model, task=task, **UNHEALED)
        lines |= {model: line} if line else {}
    names = ", ".join(map(registry.label, lines))
    if len(lines) >= FEWEST_MODELS:
        layers = [found.maps[model].num_layers for model in lines]
        correlation = curves.order(layers, *lines.values())
        yield judged("8", names, "", correlation, min(line.n for line in lines.values()))
    elif len(lines) > 1:
        yield judged("8", names, why=f"too little data: {len(lines)} models")


def depth(found: RunTables) -> Iterator[Verdict]:
    """Claim 4: deeper blocks are more similar, blocks with the last layer the most dissimilar."""
    for model, distances in found.maps.items():
        means = depth_means(resampled_map(distances))
        for part, value in {"4a": means["deep"] - means["shallow"], "4b": means["last"]}.items():
            yield judged(part, model, "", interval(value), distances.num_sequences)


def islands(found: RunTables) -> Iterator[Verdict]:
    """Claim 5: models of the Qwen family have islands of similar blocks in shallow layers."""
    for model, distances in (found.recorded | found.maps).items():
        if "qwen" in model.lower():
            count = np.array([shallower(map_) for map_ in resampled_map(distances)], float)
            told = f"{model} (recorded map)" if model not in found.maps else model
            yield judged("5", told, "", interval(count), distances.num_sequences)


def damage(found: RunTables) -> Iterator[Verdict]:
    """Claim 6: dropping shallow layers hurts more than dropping deep ones."""
    for model in found.models("damage"):
        rows = found.points("damage", model=model)
        apart = lower_less_upper(rows, found.maps[model].num_layers)
        means = resampled(apart[None], np.asarray(rows.weights.iloc[0], float))[:, 0]
        yield judged("6", model, "c4", interval(means), len(apart))


def cost(found: RunTables) -> Iterator[Verdict]:
    """Claim 12: pruning cuts memory and latency, and stacks with quantisation."""
    for model in found.models("cost"):
        rows = found.points("cost", model=model).sort_values("fraction")
        plain, packed = rows[rows.quantization.isna()], rows[rows.quantization == "nf4"]
        for part, task in {"12a": "weights", "12b": "prefill", "12c": "decode"}.items():
            for deepest in plain[plain.task == task].tail(1).itertuples():
                exact = task == "weights"
                ends = (deepest.ratio,) * 2 if exact else (deepest.ratio_high, deepest.ratio_low)
                saved = tuple((1 - ratio) / deepest.fraction for ratio in (deepest.ratio, *ends))
                enough = 1 if exact else FEWEST_TURNS
                yield judged(part, model, task, saved, int(deepest.n), fewest=enough)
        weights = [t[t.task == "weights"].value.tolist() for t in (plain, packed)]
        if all(weights):
            ratio = weights[1][-1] / min(weights[1][0], weights[0][-1])
            yield judged("12d", model, "weights", (ratio,) * 3, 1, fewest=1)


FUNCTIONS = {"4": depth, "5": islands, "6": damage, "8": robustness, "11": ranks, "12": cost}
