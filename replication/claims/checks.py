"""The paper's 13 claims, judged from a run's measurements.

A claim has parts, each a row of claims.csv with its bounds. A row of LINES judges a part, or one of
the FUNCTIONS judges all parts of a claim; each gives a verdict for every model that was measured.
replication.claims.bounds says what makes a verdict.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pandas as pd

from lib.models import registry
from replication import profiles
from replication.analysis import statistics
from replication.analysis.bootstrap import Interval, ci95, ci95_max, resampled, resampled_map
from replication.analysis.curves import SIGNAL, Curve, first_crossings, over_chance
from replication.analysis.depth import halves, last_is_least, lower_minus_upper
from replication.analysis.islands import THRESHOLD, shallower
from replication.claims.bounds import CRITERIA, Verdict, judged
from replication.claims.tables import UNHEALED, RunTables
from replication.profiles import QA
from replication.tables import grouped

FEWEST_TURNS = 5  # of a latency
HEALED = {"strategy": "similarity", "treatment": "healed"}
SIMPLE = {"strategy": "simple", "treatment": "unhealed"}
SIMPLE_HEALED = {"strategy": "simple", "treatment": "healed"}
EXIT = {"strategy": "early exit", "treatment": "unhealed"}
C4 = {"task": "c4"}
QUESTIONS = ("mmlu", "boolq", "arc_easy_test", "arc_easy")  # the test split has more questions
BY_CONTENT = "arc_easy"  # judges these parts again, where MMLU has judged them by letter
ALSO_BY_CONTENT = ("1", "2a", "2b", "4c")
VARIED = ("ablation", "variant", "format")  # columns that tell several unpruned scores apart
THRESHOLDS = (THRESHOLD / 2, 2 * THRESHOLD)  # other definitions of an island
ENDS = {  # other definitions of claim 6: layers that no block may have at either end
    "without the last two layers": (1, 2),
    "with the first and the last": (0, 0),
}


def _varied(ablation: str, *variants: str) -> list[dict]:
    return [{"ablation": ablation, "variant": v, "treatment": "healed"} for v in variants]


ORDERS = _varied("order", *(f"order {k}" for k in profiles.ORDERS))
SHOTS = _varied("number", *(f"{k} examples" for k in profiles.SHOT_ENDS))
SEEDS = _varied("seeds", *(f"seed {seed}" for seed in profiles.SEEDS))
HEALING = [line | {"task": t} for t in ("mmlu", "boolq_ranking") for line in (UNHEALED, HEALED)]
FORMATS = [UNHEALED | C4 | {"format": name} for name in ("16 bits", "nf4")]
LINES = {  # part: a statistic, the lines it is of, and their table if not "scores"
    "1": (statistics.halfway, [UNHEALED]),
    "2a": (statistics.width, [UNHEALED]),
    "2b": (statistics.left_beyond, [UNHEALED]),
    "2c": (statistics.width, [HEALED]),
    "2d": (statistics.shift, [UNHEALED, HEALED]),
    "2e": (statistics.gain, [UNHEALED, HEALED]),
    "2f": (statistics.cost_apart, HEALING),
    "3a": (statistics.shift, [UNHEALED, UNHEALED | C4]),
    "3b": (statistics.bend, [UNHEALED | C4, HEALED | C4]),
    "3c": (statistics.lost_when_lost, [HEALED, HEALED | C4]),
    "4c": (statistics.least_gain, [EXIT, SIMPLE], "exits"),
    "7a": (statistics.cost, [UNHEALED | C4, SIMPLE | C4]),
    "7b": (statistics.gain, [SIMPLE_HEALED, HEALED]),
    "7c": (statistics.least_gain, [HEALED | C4, SIMPLE_HEALED | C4]),
    "7d": (statistics.largest_cost, [HEALED | C4, SIMPLE_HEALED | C4]),
    "7e": (statistics.shift, [HEALED, SIMPLE_HEALED]),
    "9a": (statistics.largest_change, ORDERS, "prompts"),
    "9b": (statistics.shift, SHOTS, "prompts"),
    "9c": (statistics.gain_where_flat, SHOTS, "prompts"),
    "10a": (statistics.largest_change, SEEDS, "seeds"),
    "10b": (statistics.largest_change, [line | C4 for line in SEEDS], "seeds"),
    "12d": (statistics.interaction, FORMATS, "stacked"),
    "13a": (statistics.least_harm, [UNHEALED | {"task": "hellaswag"}]),
    "13b": (statistics.least_harm, [UNHEALED | {"task": "gsm8k"}]),
}
DEFINITIONS = {  # others of a line: a verdict that turns with one of them is not decided
    "from chance, not from the floor": over_chance,
    "at the first crossing": first_crossings,
}
SHALLOWEST = {  # other definitions of claim 4: the first layer that a block may have
    "blocks without the first layer": 1,
    "blocks without the first two layers": 2,
    "blocks without the first three layers": 3,
}
UNTESTABLE = {  # part: why two lines cannot tell, if they cannot
    "2c": (statistics.unchanged, [UNHEALED, HEALED]),
    "2d": (statistics.unchanged, [UNHEALED, HEALED]),
    "3b": (statistics.no_jump, [UNHEALED | C4, HEALED | C4]),
    "3c": (statistics.unchanged, [UNHEALED, HEALED]),
}


def verdicts(run: RunTables) -> list[Verdict]:
    """Return every part of every claim, in claims.csv's order: its verdicts, or that it was not
    run."""
    every = []
    for part, line in LINES.items():
        every += on_lines(run, part, *line)
    for judge in FUNCTIONS.values():
        every += judge(run)
    ran = {verdict.claim for verdict in every}
    every += [judged(part) for part in CRITERIA if part not in ran]
    order = list(CRITERIA)
    return sorted(every, key=lambda verdict: order.index(verdict.claim))


def on_lines(
    run: RunTables, part: str, statistic: Callable, lines: list[dict], table: str = "scores"
) -> Iterator[Verdict]:
    """Yield a verdict on `part` for each model that has all `lines` in `table`.

    lines: what the points of each have in common. Those without a `task` are of the first question
    set that all were asked and the model answers; without a signal nothing can be judged. A model
    that MMLU has judged by letter is judged by content, too, in the parts ALSO_BY_CONTENT.
    """
    for model in run.models(table):
        task, signals = _question_set(run, lines, table, model)
        curves = _curves(run, lines, table, model, task)
        answered = not signals or max(signals.values()) >= SIGNAL
        if not answered and (all(curves) or not CRITERIA[part].heals):
            yield _silent(part, model, signals, run.points(table, model=model))
        elif answered and all(curves):
            tasks = [task]
            if part in ALSO_BY_CONTENT and task == "mmlu":
                tasks += [BY_CONTENT] if signals.get(BY_CONTENT, 0) >= SIGNAL else []
            for of_task in tasks:
                yield _judged_by(statistic, run, part, lines, table, model, of_task)


def _question_set(
    run: RunTables, lines: list[dict], table: str, model: str
) -> tuple[str, dict[str, float]]:
    """Return the task that judges lines of a model, and the signal of each that may."""
    tasks = (lines[0]["task"],) if "task" in lines[0] else QUESTIONS
    variant = {key: lines[0][key] for key in VARIED if key in lines[0]}
    complete = [task for task in tasks if all(_curves(run, lines, table, model, task))] or tasks
    signals = run.signals(table, model, complete, **variant)
    answered = [task for task, signal in signals.items() if signal >= SIGNAL]
    return next(iter(answered or signals or complete)), signals


def _judged_by(
    statistic: Callable,
    run: RunTables,
    part: str,
    lines: list[dict],
    table: str,
    model: str,
    task: str,
) -> Verdict:
    """Return the verdict of a statistic of lines that were all measured."""
    curves = _curves(run, lines, table, model, task)
    points = [run.points(table, **{"model": model, "task": task} | line) for line in lines]
    variants = {name: statistic(*map(of, curves)) for name, of in DEFINITIONS.items()}
    counts = {line.get("task", task): curve.n for line, curve in zip(lines, curves, strict=True)}
    return judged(
        part,
        model,
        task,
        statistic(*curves),
        counts,
        untestable=_untestable(run, part, model, task),
        variants=variants,
        reservation=_unpacked(model) if part == "12d" else "",
        healed_tokens=max(of_line.tokens.max() for of_line in points),
    )


def _curves(
    run: RunTables, lines: list[dict], table: str, model: str, task: str
) -> list[Curve | None]:
    """Return the curves of `lines`, None for those that were not measured."""
    return [run.line(table, **{"model": model, "task": task} | line) for line in lines]


def _untestable(run: RunTables, part: str, model: str, task: str) -> str:
    """Return why a part cannot be judged on a model, although its lines were measured; "" if it
    can."""
    if part not in UNTESTABLE:
        return ""
    reason, lines = UNTESTABLE[part]
    curves = _curves(run, lines, "scores", model, task)
    return reason(*curves) if all(curves) else ""


def _unpacked(model: str) -> str:
    """Return why 16 bits of a model are not 16; "" if they are."""
    if registry.resolve(model).kind not in ("asset", "gguf"):
        return ""
    return "the 16-bit weights are unpacked from a file of fewer bits"


def _silent(part: str, model: str, gaps: dict[str, float], points: pd.DataFrame) -> Verdict:
    """Return why a model without a signal cannot be judged: it does not know, or was asked too
    little."""
    task, best = max(gaps.items(), key=lambda pair: pair[1])
    each = ", ".join(f"{name} {gap:.1f}" for name, gap in gaps.items())
    why = f"no signal: standard errors above the floor: {each} (of {SIGNAL})"
    if best < 1:
        return judged(part, model, untestable=why)
    n = points.n[points.task == task].max() * (SIGNAL / best) ** 2
    enough = f"about {float(f'{n:.2g}'):,.0f} {task} examples would show one"
    return judged(part, model, unclear=f"{why}; {enough}")


def ranks(run: RunTables) -> Iterator[Verdict]:
    """Yield claim 11: a lower LoRA rank answers better and has a worse loss."""
    measured = run.points("ranks", treatment="healed")
    if measured.empty or measured["rank"].nunique() < 2:
        return
    highest, lowest = measured["rank"].max(), measured["rank"].min()
    lines = _varied("similarity", f"rank {highest:.0f}", f"rank {lowest:.0f}")
    yield from on_lines(run, "11a", statistics.gain, lines, "ranks")
    yield from on_lines(run, "11b", statistics.gain, [line | C4 for line in lines], "ranks")


def robustness(run: RunTables) -> Iterator[Verdict]:
    """Yield claim 8: within a family deeper models keep their answers longer, to one task."""
    for models in grouped(run.models("scores"), registry.family).values():
        depths = sorted((run.maps[model].num_layers, model) for model in models)
        (fewest, shallow), (most, deep) = depths[0], depths[-1]
        both = [_answered(run, model) for model in (shallow, deep)]
        shared = [task for task in QA if all(curves.get(task) for curves in both)]
        if most > fewest and shared:
            first, second = (curves[shared[0]] for curves in both)
            task = f"{shared[0]}, minus {registry.label(shallow)}"
            n = {"examples": min(first.n, second.n)}
            yield judged("8", deep, task, statistics.later(first, second), n)


def _answered(run: RunTables, model: str) -> dict[str, Curve | None]:
    """Return the unhealed curves of the question sets that a model answers."""
    signals = run.signals("scores", model, QA)
    tasks = [task for task, signal in signals.items() if signal >= SIGNAL]
    return {task: run.line("scores", model=model, task=task, **UNHEALED) for task in tasks}


def depth(run: RunTables) -> Iterator[Verdict]:
    """Yield claim 4: deeper blocks are more similar, blocks with the last layer the most
    dissimilar."""
    for model, distances in run.maps.items():
        maps = resampled_map(distances)
        n = {"texts": distances.num_sequences}
        shallow, deep = halves(maps)
        differences, shares = {}, {}
        for name, first in SHALLOWEST.items():
            if first <= distances.num_layers // 4:  # so that each half has blocks of all sizes
                lower, upper = halves(maps, first)
                differences[name] = ci95(upper - lower)
                shares[name] = ci95(last_is_least(maps, first))
        yield judged("4a", model, "", ci95(deep - shallow), n, variants=differences)
        yield judged("4b", model, "", ci95(last_is_least(maps)), n, variants=shares)


def islands(run: RunTables) -> Iterator[Verdict]:
    """Yield claim 5: Qwens have islands of similar blocks in shallow layers. The paper's are
    Qwen-1."""
    for model, distances in run.maps.items():
        if "qwen" not in model.lower():
            continue
        maps = resampled_map(distances)
        of_paper = model in registry.MODELS and registry.MODELS[model].healing
        yield judged(
            "5",
            model,
            "",
            _shallower(maps, THRESHOLD),
            {"texts": distances.num_sequences},
            variants={f"threshold {at:g}": _shallower(maps, at) for at in THRESHOLDS},
            untestable="" if of_paper else "another Qwen than the paper's",
        )


def _shallower(maps: np.ndarray, threshold: float) -> Interval:
    """Return the number of islands that are shallower than the main region."""
    counts = [shallower(matrix, threshold) for matrix in maps]
    return ci95(np.array(counts, float))


def damage(run: RunTables) -> Iterator[Verdict]:
    """Yield claim 6: dropping shallow layers hurts more than dropping deep ones; and what the loss
    says of claim 4: the last layer must stay."""
    for model in run.models("damage"):
        rows = run.points("damage", model=model)
        num_layers = run.maps[model].num_layers
        n = {"texts": len(rows.weights.iloc[0])}
        value = _shallow_minus_deep(rows, num_layers, (1, 1))
        variants = {
            name: _shallow_minus_deep(rows, num_layers, skip) for name, skip in ENDS.items()
        }
        yield judged("6", model, "c4", value, n, variants=variants)
        guessing = run.points("scores", model=model, task="c4").chance.max()
        for part, interval in _last_layers(rows, num_layers, guessing).items():
            yield judged(part, model, "c4", interval, n)


def _shallow_minus_deep(rows: pd.DataFrame, num_layers: int, skip: tuple[int, int]) -> Interval:
    """Return how much more the loss rises without a shallow block than without a deep one, in
    nats."""
    rises = lower_minus_upper(rows, num_layers, skip)
    weights = np.asarray(rows.weights.iloc[0], float)
    return ci95(resampled(rises[None], weights, "c4")[:, 0])


def _last_layers(rows: pd.DataFrame, num_layers: int, guessing: float) -> dict[str, Interval]:
    """Return how much more the loss rises where the last layer goes than where it alone stays, the
    least at any size (4d), and how much less where the last two or three stay, the most (4e).

    Up to half of the layers, at the sizes where no such loss is above that of guessing.
    """
    weights = np.asarray(rows.weights.iloc[0], float)
    kept = num_layers - rows.block_start - rows.block_size
    deepest = rows.assign(kept=kept)[kept < 4].pivot(index="block_size", columns="kept")
    known = (deepest.loss < guessing).all(axis=1)
    rises = deepest.examples[known].loc[: num_layers // 2]
    if rises.empty or num_layers < 3:
        return {}
    none, one, *few = np.array(rises.T.to_numpy().tolist())
    essential = resampled(none - one, weights, "c4")
    beneficial = resampled(np.concatenate(one - few), weights, "c4")
    return {"4d": ci95_max(essential, largest=False), "4e": ci95_max(beneficial, largest=True)}


def cost(run: RunTables) -> Iterator[Verdict]:
    """Yield claim 12: pruning cuts memory and latency, quantisation leaves the latency."""
    for model in run.models("cost"):
        rows = run.points("cost", model=model)
        rows = rows.sort_values(["fraction", "quantization"], na_position="first")
        plain = rows[rows.quantization.isna()]
        for part, task in {"12a": "weights", "12b": "prefill", "12c": "decode"}.items():
            for row in plain[plain.task == task].tail(1).itertuples():
                ratios, n, fewest = [row.ratio] * 3, {"count of bytes": 1}, 1
                if task != "weights":
                    ratios = [row.ratio, row.ratio_high, row.ratio_low]
                    n, fewest = {"turns": int(row.n)}, FEWEST_TURNS
                saved = tuple((1 - ratio) / row.fraction for ratio in ratios)
                yield judged(part, model, task, saved, n, fewest=fewest)
        for part, task in {"12e": "prefill", "12f": "decode"}.items():
            whole = rows[(rows.task == task) & (rows.fraction == 0)]
            for bf16, nf4 in pairwise(whole.itertuples()):
                share = nf4.value / bf16.value, nf4.low / bf16.high, nf4.high / bf16.low
                yield judged(part, model, task, share, {"turns": int(nf4.n)}, fewest=FEWEST_TURNS)


FUNCTIONS = {"4": depth, "5": islands, "6": damage, "8": robustness, "11": ranks, "12": cost}
