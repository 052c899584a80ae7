"""The paper's 13 claims, judged from a run's measurements.

A claim has parts, each a row of claims.csv with its bounds. A row of LINES judges a part, or one of
the FUNCTIONS judges all parts of a claim; each gives a verdict for every model that was measured.
replication.claims.bounds says what makes a verdict.
"""

from collections.abc import Callable, Iterator

import numpy as np

from lib.models import registry
from replication.analysis import statistics
from replication.analysis.bootstrap import ci95, resampled, resampled_map
from replication.analysis.curves import SIGNAL, Curve
from replication.analysis.depth import halves, last_is_least, lower_minus_upper
from replication.analysis.islands import THRESHOLD, shallower
from replication.claims.bounds import CRITERIA, Verdict, judged
from replication.claims.tables import RunTables
from replication.measure import experiments
from replication.measure.experiments import QA
from replication.profiles import recipe

FEWEST_TURNS = 5  # of a latency
UNHEALED = {"strategy": "similarity", "treatment": "unhealed"}
HEALED = {"strategy": "similarity", "treatment": "healed"}
SIMPLE = {"strategy": "simple", "treatment": "unhealed"}
SIMPLE_HEALED = {"strategy": "simple", "treatment": "healed"}
C4 = {"task": "c4"}
QUESTIONS = (*QA[:-1], "arc_easy_test", QA[-1])  # the test split has more than the validation


def _varied(ablation: str, *variants: str) -> list[dict]:
    return [{"ablation": ablation, "variant": v, "treatment": "healed"} for v in variants]


ORDERS = _varied("order", *(f"order {k}" for k in experiments.ORDERS))
SHOTS = _varied("number", *(f"{k} examples" for k in experiments.ENDS))
SEEDS = _varied("seeds", *(f"seed {seed}" for seed in experiments.SEEDS))
FORMATS = [UNHEALED | C4 | {"format": told} for told in ("16 bits", "nf4")]
BITS = UNHEALED | {"task": "gsm8k_bpb"}
LINES = {  # part: a statistic, the lines it is of, and their table if not "scores"
    "1": (statistics.halfway, [UNHEALED]),
    "2a": (statistics.width, [UNHEALED]),
    "2b": (statistics.left_beyond, [UNHEALED]),
    "2c": (statistics.width, [HEALED]),
    "2d": (statistics.shift, [UNHEALED, HEALED]),
    "2e": (statistics.gain, [UNHEALED, HEALED]),
    "3a": (statistics.shift, [UNHEALED, UNHEALED | C4]),
    "3b": (statistics.bend, [UNHEALED | C4, HEALED | C4]),
    "3c": (statistics.lost_when_lost, [HEALED, HEALED | C4]),
    "7a": (statistics.cost, [UNHEALED | C4, SIMPLE | C4]),
    "7b": (statistics.gain, [SIMPLE_HEALED, HEALED]),
    "7c": (statistics.least_gain, [HEALED | C4, SIMPLE_HEALED | C4]),
    "7d": (statistics.largest_cost, [HEALED | C4, SIMPLE_HEALED | C4]),
    "9a": (statistics.largest_change, ORDERS, "prompts"),
    "9b": (statistics.shift, SHOTS, "prompts"),
    "9c": (statistics.gain_where_flat, SHOTS, "prompts"),
    "10a": (statistics.largest_change, SEEDS, "seeds"),
    "10b": (statistics.largest_change, [line | C4 for line in SEEDS], "seeds"),
    "12d": (statistics.not_adding_up, FORMATS, "stacked"),
    "13a": (statistics.least_harm, [UNHEALED | {"task": "hellaswag"}]),
    "13b": (statistics.least_harm, [UNHEALED | {"task": "gsm8k"}]),
    "13c": (statistics.relative_rise, [UNHEALED | C4, BITS]),
}
UNTESTABLE = {"3b": statistics.no_jump}  # part: why its lines cannot tell, if they cannot


def verdicts(found: RunTables) -> list[Verdict]:
    """Every part of every claim, in claims.csv's order: its verdicts, or that it was not run."""
    every = [verdict for part, line in LINES.items() for verdict in on_lines(found, part, *line)]
    every += [verdict for judge in FUNCTIONS.values() for verdict in judge(found)]
    ran = {verdict.claim for verdict in every}
    every += [judged(part) for part in CRITERIA if part not in ran]
    return sorted(every, key=lambda verdict: list(CRITERIA).index(verdict.claim))


def on_lines(
    found: RunTables, part: str, statistic: Callable, lines: list[dict], table: str = "scores"
) -> Iterator[Verdict]:
    """A verdict on `part` for each model that has all `lines` in `table`.

    lines: what the points of each have in common. Those without a `task` are of the first question
    set that all were asked and the model answers; without a signal nothing can be judged.
    """
    for model in found.models(table):
        tasks = (lines[0]["task"],) if "task" in lines[0] else QUESTIONS
        asked = {t: [{"model": model, "task": t} | line for line in lines] for t in tasks}
        drawn = {t: [found.line(table, **line) for line in asked[t]] for t in tasks}
        where = {k: lines[0][k] for k in ("ablation", "variant", "format") if k in lines[0]}
        tasks = [t for t in tasks if all(drawn[t])] or tasks
        signals = found.signals(table, model, tasks, **where)
        task = next((task for task, gap in signals.items() if gap >= SIGNAL), None)
        curves = drawn[task or next(iter(signals), tasks[0])]
        if signals and not task and (all(curves) or not CRITERIA[part].heals):
            yield judged(part, model, **_silent(signals, found.points(table, model=model)))
        elif all(curves):
            n = {line["task"]: c.n for line, c in zip(asked[task], curves, strict=True)}
            hours = sum(line.seconds for line in curves) / 3600
            why = UNTESTABLE[part](*curves) if part in UNTESTABLE else ""
            healing = recipe(model, found.profile)
            tokens = healing.steps * healing.batch * healing.max_tokens
            reasons = {"untestable": why, "healed_tokens": tokens, "hours": hours}
            yield judged(part, model, task, statistic(*curves), n, **reasons)


def _silent(signals: dict[str, float], points) -> dict[str, str]:
    """Why a model without a signal cannot be judged: it does not know, or was asked too little."""
    task, best = max(signals.items(), key=lambda pair: pair[1])
    told = ", ".join(f"{name} {gap:.1f}" for name, gap in signals.items())
    why = f"no signal: standard errors above the floor: {told} (of {SIGNAL})"
    if best < 1:
        return {"untestable": why}
    n = points.n[points.task == task].max() * (SIGNAL / best) ** 2
    return {"unclear": f"{why}; about {float(f'{n:.2g}'):,.0f} {task} examples would show one"}


def ranks(found: RunTables) -> Iterator[Verdict]:
    """Claim 11: a lower LoRA rank answers better and has a worse loss."""
    ends = max(found.profile.ablation_ranks), min(found.profile.ablation_ranks)
    lines = _varied("similarity", *(f"rank {rank}" for rank in ends))
    yield from on_lines(found, "11a", statistics.gain, lines, "ranks")
    yield from on_lines(found, "11b", statistics.gain, [line | C4 for line in lines], "ranks")


def robustness(found: RunTables) -> Iterator[Verdict]:
    """Claim 8: within a family deeper models keep their answers longer, to one question set."""
    families: dict[str, dict[str, dict[str, Curve]]] = {}
    for model in found.models("scores"):
        gaps = found.signals("scores", model, QA)
        tasks = [task for task in gaps if gaps[task] >= SIGNAL]
        lines = {t: found.line("scores", model=model, task=t, **UNHEALED) for t in tasks}
        families.setdefault(registry.family(model), {})[model] = lines
    for lines in families.values():
        depths = sorted((found.maps[model].num_layers, model) for model in lines)
        (fewest, shallow), (most, deep) = depths[0], depths[-1]
        shared = [t for t in QA if lines[shallow].get(t) and lines[deep].get(t)]
        if most > fewest and shared:
            first, second = (lines[model][shared[0]] for model in (shallow, deep))
            told = f"{shared[0]}, minus {registry.label(shallow)}"
            counted = {"examples": min(first.n, second.n)}
            yield judged("8", deep, told, statistics.later(first, second), counted)


def depth(found: RunTables) -> Iterator[Verdict]:
    """Claim 4: deeper blocks are more similar, blocks with the last layer the most dissimilar."""
    for model, distances in found.maps.items():
        maps, n = resampled_map(distances), {"texts": distances.num_sequences}
        shallow, deep = halves(maps)
        yield judged("4a", model, "", ci95(deep - shallow), n)
        told = {"blocks without the first layer": ci95(last_is_least(maps, 1))}
        yield judged("4b", model, "", ci95(last_is_least(maps)), n, variants=told)


def islands(found: RunTables) -> Iterator[Verdict]:
    """Claim 5: Qwens have islands of similar blocks in shallow layers. The paper's are Qwen-1."""
    for model, distances in (found.recorded | found.maps).items():
        if "qwen" in model.lower():
            count, *others = (
                ci95(np.array([shallower(m, at) for m in resampled_map(distances)], float))
                for at in (THRESHOLD, THRESHOLD / 2, 2 * THRESHOLD)
            )
            whose = "" if model in found.maps else "recorded map"
            names = (f"threshold {at:g}" for at in (THRESHOLD / 2, 2 * THRESHOLD))
            of_paper = model in registry.MODELS and registry.MODELS[model].healing
            why = "" if of_paper else "another Qwen than the paper's"
            n = {"texts": distances.num_sequences}
            variants = dict(zip(names, others, strict=True))
            yield judged("5", model, whose, count, n, variants=variants, untestable=why)


def damage(found: RunTables) -> Iterator[Verdict]:
    """Claim 6: dropping shallow layers hurts more than dropping deep ones."""
    for model in found.models("damage"):
        rows, layers = found.points("damage", model=model), found.maps[model].num_layers
        weights = np.asarray(rows.weights.iloc[0], float)

        def apart(*skip, rows=rows, layers=layers, weights=weights):
            rises = lower_minus_upper(rows, layers, skip)
            return ci95(resampled(rises[None], weights, "c4")[:, 0])

        ends = {"without the last two layers": (1, 2), "with the first and the last": (0, 0)}
        variants = {name: apart(*skip) for name, skip in ends.items()}
        yield judged("6", model, "c4", apart(1, 1), {"texts": len(weights)}, variants=variants)


def cost(found: RunTables) -> Iterator[Verdict]:
    """Claim 12: pruning cuts memory and latency."""
    for model in found.models("cost"):
        rows = found.points("cost", model=model).sort_values("fraction")
        plain = rows[rows.quantization.isna()]
        for part, task in {"12a": "weights", "12b": "prefill", "12c": "decode"}.items():
            for deepest in plain[plain.task == task].tail(1).itertuples():
                exact = task == "weights"
                ends = (deepest.ratio,) * 2 if exact else (deepest.ratio_high, deepest.ratio_low)
                saved = tuple((1 - ratio) / deepest.fraction for ratio in (deepest.ratio, *ends))
                n = {"count of bytes": 1} if exact else {"turns": int(deepest.n)}
                enough = 1 if exact else FEWEST_TURNS
                yield judged(part, model, task, saved, n, fewest=enough)


FUNCTIONS = {"4": depth, "5": islands, "6": damage, "8": robustness, "11": ranks, "12": cost}
