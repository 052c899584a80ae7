"""The paper's 13 claims, judged from a run's measurements.

A claim has parts, each a row of claims.csv with its bounds. A row of LINES judges a part, or one of
the FUNCTIONS judges all parts of a claim; each gives a verdict for every model that was measured.
replication.claims.bounds says what makes a verdict.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd

from lib.models import registry
from replication.analysis import statistics
from replication.analysis.bootstrap import Interval, ci95, ci95_max, resampled, resampled_map
from replication.analysis.curves import SIGNAL, Curve, first_crossings, over_chance
from replication.analysis.depth import jump, last_is_least, lower_minus_upper, shallow_and_deep
from replication.analysis.islands import THRESHOLD, shallower
from replication.claims.bounds import CRITERIA, Verdict, less_healing, rounded, verdict_of
from replication.claims.tables import NOT_HEALED, UNHEALED, RunTables
from replication.profiles import STRATEGIES
from replication.profiles.recipes import PUBLISHED

FEWEST_TURNS = 5  # of a latency
HEALED = {"strategy": "similarity", "treatment": "healed"}
SIMPLE = {"strategy": "simple", "treatment": "unhealed"}
SIMPLE_HEALED = {"strategy": "simple", "treatment": "healed"}
EXIT = {"strategy": "early exit", "treatment": "unhealed"}
C4 = {"task": "c4"}
QUESTIONS = ("mmlu", "boolq", "arc_easy_test", "arc_easy")  # the test split has more questions
SHARED = ("mmlu", "boolq", "arc_easy")  # that models of one family are compared on
BY_CONTENT = "arc_easy"  # judges these parts again, where MMLU has judged them by letter
ALSO_BY_CONTENT = ("1", "1b", "2a", "2b", "4c")
VARIED = ("ablation", "variant", "format")  # columns that tell several unpruned scores apart
THRESHOLDS = (THRESHOLD / 2, 2 * THRESHOLD)  # other definitions of an island
OTHER_QWEN = (
    "another Qwen than the paper's: needs a map of Qwen-7B or Qwen-14B "
    "(53 or 99 minutes of a T4 by the plan, CONTRIBUTING.md)"
)
ENDS = {  # other definitions of claim 6: layers that no block may have at either end
    "without the last two layers": (1, 2),
    "with the first and the last": (0, 0),
}


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
    "12d": (statistics.interaction, FORMATS, "stacked"),
    "13a": (statistics.least_harm, [UNHEALED | {"task": "hellaswag"}]),
    "13b": (statistics.least_harm, [UNHEALED | {"task": "gsm8k"}]),
}
FEWEST_AND_MOST, MOST_AND_FEWEST = (0, -1), (-1, 0)
ABLATIONS = {  # part: a statistic, the table and ablation of its healed lines, their task, which
    "9a": (statistics.largest_change, "prompts", "order", {}, None),
    "9b": (statistics.shift, "prompts", "number", {}, FEWEST_AND_MOST),
    "9c": (statistics.gain_where_flat, "prompts", "number", {}, FEWEST_AND_MOST),
    "10a": (statistics.largest_change, "seeds", "seeds", {}, None),
    "10b": (statistics.largest_change, "seeds", "seeds", C4, None),
    "11a": (statistics.gain, "ranks", "similarity", {}, MOST_AND_FEWEST),
    "11b": (statistics.gain, "ranks", "similarity", C4, MOST_AND_FEWEST),
}
AGAIN = {  # by table and ablation: the others in which its parts are judged again
    ("seeds", "seeds"): [("more_seeds", "more seeds")],
    ("ranks", "similarity"): [
        ("ranks", "simple"),
        ("more_ranks", "similarity"),
        ("more_ranks", "simple"),
    ],
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
# about healing: not testable where healing changed nothing in their lines (3c: in its questions);
# 2e and 2f judge the change itself, 9 is about prompts
OF_CHANGES = ("2c", "2d", "3b", "3c", "7b", "7c", "7d", "7e", "10a", "10b", "11a", "11b")


def verdicts(run: RunTables) -> list[Verdict]:
    """Return every part of every claim, in claims.csv's order: its verdicts, or that it was not
    run."""
    every = []
    for part, line in LINES.items():
        every += on_lines(run, part, *line)
    for judge in FUNCTIONS.values():
        every += judge(run)
    ran = {verdict.claim for verdict in every}
    every += [verdict_of(part) for part in CRITERIA if part not in ran]
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
        claim_lines = ClaimLines(run, part, model, lines, table)
        task, signals = claim_lines.question_set()
        is_complete = all(claim_lines.curves(task))
        answered = not signals or max(signals.values()) >= SIGNAL
        if answered and is_complete:
            yield claim_lines.verdict(statistic, task)
            by_content = part in ALSO_BY_CONTENT and task == "mmlu"
            if by_content and signals.get(BY_CONTENT, 0) >= SIGNAL:
                yield claim_lines.verdict(statistic, BY_CONTENT)
        elif not answered and (is_complete or not CRITERIA[part].heals):
            yield claim_lines.silent(signals)


@dataclass(frozen=True)
class ClaimLines:
    """The lines of a model that judge a part of a claim."""

    run: RunTables
    part: str
    model: str
    lines: list[dict]
    table: str = "scores"

    def curves(self, task: str) -> list[Curve | None]:
        """Return the curve of each line, None for one that was not measured."""
        columns = {"model": self.model, "task": task}
        return [self.run.line(self.table, **columns | line) for line in self.lines]

    def question_set(self) -> tuple[str, dict[str, float]]:
        """Return the task that judges the lines, and the signal of each that may."""
        first = self.lines[0]
        tasks = [first["task"]] if "task" in first else QUESTIONS
        complete = [task for task in tasks if all(self.curves(task))] or tasks
        variant = {key: first[key] for key in VARIED if key in first}
        signals = self.run.signals(self.table, self.model, complete, **variant)
        answered = [task for task, signal in signals.items() if signal >= SIGNAL]
        best, *_ = answered or signals or complete
        return best, signals

    def verdict(self, statistic: Callable, task: str) -> Verdict:
        """Return the verdict of a statistic of lines that were all measured."""
        curves, part = self.curves(task), self.part
        pairs = zip(self.lines, curves, strict=True)
        variants = {name: statistic(*map(other, curves)) for name, other in DEFINITIONS.items()}
        reservation = self._unpacked() if part == "12d" else ""
        if CRITERIA[part].heals:
            reservation = less_healing(self._tokens(task))
        untestable = self._untestable(task)
        return verdict_of(
            part,
            self.model,
            task,
            statistic(*curves),
            {line.get("task", task): curve.n for line, curve in pairs},
            unjudged=("not testable here", untestable) if untestable else None,
            variants=variants,
            reservation=reservation,
        )

    def _tokens(self, task: str) -> float:
        """Return the most tokens that one of the lines was healed on."""
        columns = {"model": self.model, "task": task}
        points = [self.run.points(self.table, **columns | line) for line in self.lines]
        return max(rows.tokens.max() for rows in points)

    def _untestable(self, task: str) -> str:
        """Return why the part cannot be judged on the model, although its lines were measured."""
        if self.part == "1b" and np.isinf(jump(self.run.maps[self.model].matrix)):
            return "the best start never jumps"
        if self.part == "3b" and (why := statistics.no_jump(*self.curves(task))):
            return why
        return self._unchanged(task) if self.part in OF_CHANGES else ""

    def _unchanged(self, task: str) -> str:
        """Return why healing says nothing: no healed line is certainly another than unhealed."""
        healed = [line for line in self.lines if line["treatment"] == "healed"]
        if self.part == "3c":
            healed = [line for line in healed if "task" not in line]
        why = ""
        for line in healed:
            unhealed = line | {"treatment": "unhealed"}
            if "variant" in line:
                unhealed["variant"] = NOT_HEALED
            curves = replace(self, lines=[unhealed, line]).curves(task)
            why = statistics.unchanged(*curves) if all(curves) else ""
            if not why:
                break
        return why

    def _unpacked(self) -> str:
        """Return why 16 bits of the model are not 16; "" if they are."""
        if registry.resolve(self.model).kind not in ("asset", "gguf"):
            return ""
        return "the 16-bit weights are unpacked from a file of fewer bits"

    def silent(self, signals: dict[str, float]) -> Verdict:
        """Return why the model cannot be judged: it does not know, or was asked too little."""
        task, best = max(signals.items(), key=lambda pair: pair[1])
        each = ", ".join(f"{name} {signal:.1f}" for name, signal in signals.items())
        why = f"no signal: standard errors above the floor: {each} (of {SIGNAL})"
        if best < 1:
            return verdict_of(self.part, self.model, unjudged=("not testable here", why))
        count = self.run.points(self.table, model=self.model, task=task).n.max()
        enough = rounded(count * (SIGNAL / best) ** 2)
        why += f"; about {enough} {task} examples would show one"
        return verdict_of(self.part, self.model, unjudged=("can't tell", why))


def ablations(run: RunTables) -> Iterator[Verdict]:
    """Yield claims 9 to 11: what the examples, the seed of healing and its rank change.

    The table has the variants in order: the given order, no example, the lowest rank come first.
    """
    for part, (statistic, *first, task, places) in ABLATIONS.items():
        first = tuple(first)
        for source in (first, *AGAIN.get(first, ())):
            table, ablation = source
            healed = {"ablation": ablation, "treatment": "healed"}
            variants = run.points(table, **healed).variant.unique()
            lines = [healed | task | {"variant": variant} for variant in variants]
            if len(lines) > 1:
                lines = [lines[place] for place in places or range(len(lines))]
                for verdict in on_lines(run, part, statistic, lines, table):
                    yield verdict if source == first else _named(verdict, run, source, first)


def _named(verdict: Verdict, run: RunTables, source: tuple, first: tuple) -> Verdict:
    """Return a verdict whose task names what `source` has otherwise than `first`: the strategy, the
    length of its healings."""
    (table, ablation), names = source, [verdict.task]
    if ablation in STRATEGIES and ablation != first[1]:
        names.append(ablation)
    if table != first[0]:
        steps = run.points(table, treatment="healed").steps.max()
        names.append(f"{steps:.0f} steps")
    return replace(verdict, task=", ".join(names))


def robustness(run: RunTables) -> Iterator[Verdict]:
    """Yield claim 8: within a family deeper models keep their answers longer, to one task."""
    models = run.models("scores")
    for family in dict.fromkeys(map(registry.family, models)):
        relatives = [model for model in models if registry.family(model) == family]
        depths = sorted((run.maps[model].num_layers, model) for model in relatives)
        (fewest, shallow), (most, deep) = depths[0], depths[-1]
        of_shallow, of_deep = _answered(run, shallow), _answered(run, deep)
        shared = [task for task in SHARED if of_shallow.get(task) and of_deep.get(task)]
        if fewest == most or not shared:
            continue
        first, second = of_shallow[shared[0]], of_deep[shared[0]]
        difference = statistics.later(first, second)
        task = f"{shared[0]}, minus {registry.label(shallow)}"
        yield verdict_of("8", deep, task, difference, {"examples": min(first.n, second.n)})


def _answered(run: RunTables, model: str) -> dict[str, Curve | None]:
    """Return the unhealed curves of the question sets that a model answers."""
    lines = {}
    for task, signal in run.signals("scores", model, SHARED).items():
        if signal >= SIGNAL:
            lines[task] = run.line("scores", model=model, task=task, **UNHEALED)
    return lines


def depth(run: RunTables) -> Iterator[Verdict]:
    """Yield claim 4: deeper blocks are more similar, blocks with the last layer the most
    dissimilar."""
    for model, distances in run.maps.items():
        maps = resampled_map(distances)
        n = {"texts": distances.num_sequences}
        shallow, deep = shallow_and_deep(maps)
        differences, shares = {}, {}
        for name, first in SHALLOWEST.items():
            if first <= distances.num_layers // 4:  # so that each half has blocks of all sizes
                lower, upper = shallow_and_deep(maps, first)
                differences[name] = ci95(upper - lower)
                shares[name] = ci95(last_is_least(maps, first))
        yield verdict_of("4a", model, "", ci95(deep - shallow), n, variants=differences)
        yield verdict_of("4b", model, "", ci95(last_is_least(maps)), n, variants=shares)


def jumps(run: RunTables) -> Iterator[Verdict]:
    """Yield claim 1b: half is lost where the best start jumps to the shallow layers."""
    for model, distances in run.maps.items():
        of_model = replace(run, tables={"scores": run.points("scores", model=model)})
        statistic = partial(statistics.after, jump(resampled_map(distances)))
        yield from on_lines(of_model, "1b", statistic, [UNHEALED])


def islands(run: RunTables) -> Iterator[Verdict]:
    """Yield claim 5: Qwens have islands of similar blocks in shallow layers.

    The paper's Qwens are of the first generation; others say nothing of its claim.
    """
    for model, distances in run.maps.items():
        if "qwen" not in model.lower():
            continue
        maps = resampled_map(distances)
        is_papers = model in PUBLISHED
        yield verdict_of(
            "5",
            model,
            "",
            _shallower(maps, THRESHOLD),
            {"texts": distances.num_sequences},
            variants={f"threshold {at:g}": _shallower(maps, at) for at in THRESHOLDS},
            unjudged=None if is_papers else ("not testable here", OTHER_QWEN),
        )


def _shallower(maps: np.ndarray, threshold: float) -> Interval:
    """Return the number of islands shallower than the main region that growth does not make."""
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
        yield verdict_of("6", model, "c4", value, n, variants=variants)
        scores = run.points("scores", model=model, task="c4")
        if scores.empty:  # no notebook has made that table yet
            continue
        guessing = scores.chance.max()
        for part, interval in _last_layers(rows, num_layers, guessing).items():
            yield verdict_of(part, model, "c4", interval, n)


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
    kept = num_layers - rows.block_start - rows.block_size
    deepest = rows.assign(kept=kept)[kept < 4]
    by_size = deepest.pivot(index="block_size", columns="kept")
    is_known = (by_size.loss < guessing).all(axis=1)
    rises = by_size.examples[is_known].loc[: num_layers // 2]
    if rises.empty or num_layers < 3:
        return {}
    weights = np.asarray(rows.weights.iloc[0], float)
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
                # bytes are counted, not timed: no interval, no turns
                ratios, n, fewest = [row.ratio] * 3, {"count of bytes": 1}, 1
                if task != "weights":
                    ratios = [row.ratio, row.ratio_high, row.ratio_low]
                    n, fewest = {"turns": int(row.n)}, FEWEST_TURNS
                saved = tuple((1 - ratio) / row.fraction for ratio in ratios)
                yield verdict_of(part, model, task, saved, n, fewest=fewest)
        for part, task in {"12e": "prefill", "12f": "decode"}.items():
            whole = rows[(rows.task == task) & (rows.fraction == 0)]
            for bf16, nf4 in pairwise(whole.itertuples()):
                share = nf4.value / bf16.value, nf4.low / bf16.high, nf4.high / bf16.low
                n = {"turns": int(nf4.n)}
                yield verdict_of(part, model, task, share, n, fewest=FEWEST_TURNS)


FUNCTIONS = {
    "1": jumps,
    "4": depth,
    "5": islands,
    "6": damage,
    "8": robustness,
    "9": ablations,
    "12": cost,
}
