"""The numbers that prose quotes: `python -m scripts.numbers` renews data/recorded/numbers.csv.

A row says on which page a number stands (`where`), how it stands there (`quoted`) and what it is
(`source`). All else is computed from the recorded run; no model is loaded. To quote another number,
add a row of these three and run this; `--find exits arc_easy` prints the sources with these words.

A source is the name of a measurement: a table, and the cells that tell its row. ": kept" after it
is the column kept. " minus " between two is their difference, paired where both have the same
examples. `quoted` is rounded to the digits that it has; it may have a %, a sign, the standard error
("0.47 ± 0.02") or the ends of the 95 % interval ("0.24 [0.22, 0.25]").
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from lib.blocks import simple_block
from lib.evaluation import weighted_mean
from lib.models import registry
from replication import analysis, claims, paths, profiles, tables
from replication.analysis import islands, statistics
from replication.beyond import (
    biases,
    dose,
    orders,
    repair,
    which_block,
)
from replication.claims.bounds import half_up
from replication.claims.tables import RunTables
from replication.figures import heatmaps
from replication.measure import distance_maps

FILE = paths.RECORDED / "numbers.csv"
PROFILE = profiles.get(profiles.DRAWN)
NAMES = {"doses": "dose", "last_layers": "last layers", "more_seeds": "more seeds"}
COMPUTED = ("value", "standard_error", "low", "high", "n")
NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?")
SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-1.5b"
CELLS = {  # that tell the rows of a table apart, and how a source names them
    "model": "{}",
    "task": "{}",
    "quantization": "{}",
    "variant": "{}",
    "repair": "{}",
    "criterion": "{}",
    "blocks": "{}",
    "measure": "{}",
    "threshold": "threshold {}",
    "island": "island {}",
    "strategy": "{}",
    "block_start": "from layer {:.0f}",
    "block_size": "without {:.0f}",
    "steps": "{:.0f} steps",
    "treatment": "{}",
}
EARLY = 9  # layers: SmolLM2 has lost three quarters before it or well after it
STEPPED = ("dose", "gap of strategies")  # tables of healings of several lengths
PLACED = ("damage", "distances", "states", "every place")  # tables of blocks at several places


# ---- what the recorded run measured --------------------------------------------------------


@cache
def measurements() -> dict[str, dict]:
    """Every row of every table, and single numbers, by name."""
    run = claims.gather(PROFILE)
    single = dict(verdicts(run))
    run.tables.update(dict(score_tables(run)))
    run.tables.update(dict(result_tables(run)))
    rows = {}
    for name, table in run.tables.items():
        for row in table.to_dict("records"):
            rows.setdefault(row_name(name, row), row)
    single |= dict(curve_numbers(run))
    for numbers in (single_numbers(run), training_losses()):
        single |= {name: {"value": value} for name, value in numbers}
    return rows | single


def row_name(table: str, row: dict) -> str:
    """The table and the cells of a row that tell it apart."""
    cells = dict(row)
    if "model" in cells:
        cells["model"] = registry.label(cells["model"])
    unpruned = cells.get("strategy") == "none"
    hidden = ["block_start"] * (table not in PLACED) + ["strategy", "block_size"] * unpruned
    hidden += ["steps"] * (table not in STEPPED)
    cells |= dict.fromkeys(hidden)
    parts = [
        words.format(cells[cell]) for cell, words in CELLS.items() if pd.notna(cells.get(cell))
    ]
    return ", ".join([table, *parts])


def measured_rows(name: str) -> pd.DataFrame:
    """The rows of a recorded table that have a value."""
    return tables.read(name, PROFILE).dropna(subset="value").reset_index(drop=True)


def score_tables(run: RunTables) -> Iterator[tuple[str, pd.DataFrame]]:
    """What no claim is judged by: scores, distances and states."""
    for name in ("exits", "forms", "books", "doses", "last_layers", "stories", "more_seeds"):
        yield NAMES.get(name, name), measured_rows(name)
    by_letter = measured_rows("letter_biases")
    other = by_letter[by_letter.questions == "other"]
    yield "half lost, other questions", analysis.transitions(other).drop(columns="block_size")
    by_letter = biases.letter_measures(by_letter.assign(task=by_letter.questions))
    yield "letters", by_letter
    half = biases.halves(by_letter)
    yield "letters, half lost", half.assign(task=half.questions).drop(columns="block_size")
    healed = measured_rows("around_healing")
    healed = healed.assign(task=healed.questions)
    yield "letters around healing", biases.letter_measures(healed)
    in_orders = tables.read("option_orders", PROFILE)
    yield "orders", orders.by_order(in_orders).assign(task="arc_easy_letters")
    placed = measured_rows("every_place")
    yield "every place", placed.assign(rank=placed.value.rank(ascending=False))
    costs = run.tables["cost"]
    yield "cost", costs.assign(milliseconds=1000 * costs.value)
    yield "repairs", tables.read("linear_maps", PROFILE)
    yield "other repairs", tables.read("repairs", PROFILE, [SMALL])
    distances = heatmaps.distance_table(run.maps)
    ranks = distances.groupby(["model", "block_size"]).value.rank()
    yield "distances", distances.assign(rank=ranks)
    yield "islands", islands.tabled(run.maps, (0.04, 0.1)).drop(columns="block_size")
    names = ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
    recorded = {name: distance_maps.recorded(name)[0] for name in names}
    recorded = islands.tabled(recorded, (0.03, 0.06, 0.08))
    yield "islands of the recorded maps", recorded.drop(columns="block_size")
    yield "states", tables.read("states", PROFILE)


def result_tables(run: RunTables) -> Iterator[tuple[str, pd.DataFrame]]:
    """What the tables of scores, damage and times say."""
    of_run = run.tables
    ranking = analysis.boolq_ranking(of_run["scores"])
    yield "AUC", ranking
    others = pd.concat([of_run["scores"], of_run["stories"]])
    others = others[others.task.isin(["hellaswag", "arc_easy_test"])]
    half = analysis.transitions(pd.concat([of_run["exits"], others, ranking]))
    yield "half lost", half.drop(columns="block_size")
    arc = of_run["forms"].query("task == 'arc_easy_letters' and treatment != 'healed'")
    yield "letters of ARC-Easy", biases.letter_measures(arc)
    for name, by in {"forms": "form", "books": "book"}.items():
        kept = analysis.kept(of_run[name], by)
        yield f"lead left, {name}", kept.rename(columns={"questions": "task", by: "variant"})
    seeds = analysis.spread(pd.concat([of_run["seeds"], of_run["more seeds"]]))
    yield "spread of seeds", seeds.assign(value=seeds.sd)
    steps = of_run["dose"][["tokens", "steps"]].drop_duplicates()
    yield "gap of strategies", dose.gap_left(of_run["dose"]).merge(steps)
    yield "repaired", repair.summary(of_run["repairs"])
    yield "timed repairs", pd.read_csv(paths.ROOT / "benchmarks/results/repairs.csv")
    judged = which_block.head_to_head(of_run["damage"], of_run["states"], run.maps)
    yield "choice", judged
    yield "choices", which_block.summary(judged)
    yield "distance and damage", analysis.rank_correlation(of_run["damage"], run.maps)


# ---- single numbers ------------------------------------------------------------------------


def verdicts(run: RunTables) -> Iterator[tuple[str, dict]]:
    """The statistic of every claim and model, and how many verdicts there are of each kind."""
    judged = claims.verdicts(run)
    for verdict in judged:
        interval = {"value": verdict.statistic, "low": verdict.low, "high": verdict.high}
        yield f"claim {verdict.claim}, {verdict.model}", interval
    signs = Counter(sign for verdict in judged for sign in {verdict.light, verdict.light[0]})
    for sign, count in signs.items():
        yield f"verdicts {sign}", {"value": count}
    yield "verdicts judged", {"value": len(judged) - signs["–"]}
    yield "parts of claims", {"value": len({verdict.claim for verdict in judged})}


def curve_numbers(run: RunTables) -> Iterator[tuple[str, dict]]:
    """How sharply lines fall, how straight they are, how far the strategies are apart."""
    for task in ("mmlu", "arc_easy"):
        cut = {"model": LARGE, "task": task, "strategy": "early exit", "treatment": "unhealed"}
        width = statistics.width(run.line("exits", **cut))
        yield f"quarter to three quarters lost, {task}, early exit", interval(width)
    for model in (SMALL, LARGE):
        cut = {"model": model, "task": "c4", "strategy": "similarity"}
        healed = run.line("scores", **cut, treatment="healed")
        unhealed = run.line("scores", **cut, treatment="unhealed")
        shallow = replace(healed, fractions=healed.fractions[:-1], values=healed.values[:, :-1])
        for depths, line in {"all": healed, "all but the deepest": shallow}.items():
            left = statistics.bend(line, unhealed)
            name = f"variance left by a straight line, {registry.label(model)}, unhealed, {depths}"
            yield name, interval(left)
    cut = {"model": SMALL, "task": "arc_easy_test", "strategy": "similarity"}
    line = run.line("scores", **cut, treatment="unhealed")
    layers = run.maps[SMALL].num_layers
    quarter, three = (layers * line.crossing(share) for share in (0.25, 0.75))
    early, late = three[three < EARLY], three[three >= EARLY]
    yield "layers with a quarter lost, median", {"value": np.median(quarter)}
    yield "layers with three quarters lost, early draws, median", {"value": np.median(early)}
    yield "layers with three quarters lost, other draws, median", {"value": np.median(late)}
    c4 = run.points("dose", task="c4").set_index(["strategy", "block_size", "steps"])
    for steps in (128, 512):
        simple, similar = c4.loc["simple", 12, steps], c4.loc["similarity", 12, steps]
        gap = {"value": simple.value - similar.value, "weights": simple.weights}
        gap["examples"] = np.subtract(simple.examples, similar.examples)
        yield f"simple above similarity, c4, without 12, {steps} steps", gap


def single_numbers(run: RunTables) -> Iterator[tuple[str, float]]:
    """Spreads, sums and counts."""
    of_run, maps = run.tables, run.maps
    tokens = PROFILE.heal_steps * PROFILE.heal_batch * PROFILE.heal_tokens
    yield "tokens of healing, share of the paper's", tokens / profiles.PAPER_TOKENS
    healed = of_run["seeds"][of_run["seeds"].treatment == "healed"]
    for task, value in healed.groupby("task").value:
        yield f"standard deviation of seeds, {task}", value.std()
    stacked = of_run["stacked"].pivot(index="block_size", columns="format", values="value")
    rises = stacked - stacked.loc[0]
    for size, share in (rises["nf4"] / rises["16 bits"] - 1).iloc[1:].items():
        yield f"rise of the loss in NF4 above that in 16 bits, without {size}", share
    depth = analysis.depth_statistics(maps)
    for row, distances in zip(depth.itertuples(), maps.values(), strict=True):
        sizes = row.without_first * (distances.num_layers // 2)
        yield f"sizes with the last layer least alike but for the first, {row.model}", sizes
    dropped = run.points("scores", model=SMALL, task="c4", strategy="simple")
    yield "largest loss of simple pruning", dropped.value.max()
    placed = of_run["every place"]
    correlation = spearmanr(maps[LARGE].row(3), placed.value).statistic
    yield "distance and letters at every place, rank correlation", correlation
    step = of_run["timed repairs"].set_index(["model", "repair"]).seconds
    for steps in (16, 32, 64):
        yield f"minutes of {steps} steps", steps * step[SMALL, "LoRA"] / 60
    for model in (SMALL, LARGE):
        times = step[model, "full map"] / step[model, "LoRA"]
        yield f"steps in the time of a map, {registry.label(model)}", times
    shared = {}
    for size in range(1, maps[SMALL].num_layers - 1):
        simple = simple_block(maps[SMALL].num_layers, size)
        start = maps[SMALL].best_start(size)
        both = min(simple.stop, start + size) - max(simple.start, start)
        shared[size] = max(0, both) / size
        yield f"share of layers of both strategies, without {size}", shared[size]
    yield "size with half of the layers shared", min(n for n in shared if shared[n] >= 0.5)


def training_losses() -> Iterator[tuple[str, float]]:
    """Means of the first and the last four steps of the healings without 9 layers."""
    for row in tables.read("trainings", PROFILE, [SMALL]).itertuples():
        if row.block_size == 9 and row.status == "ok":
            place = f"from layer {row.block_start}, without 9"
            name = f"training loss, {place}, {row.steps} steps"
            yield f"{name}, first steps", np.mean(row.losses[:4])
            yield f"{name}, last steps", np.mean(row.losses[-4:])


def interval(values: tuple[float, float, float]) -> dict[str, float]:
    """A statistic and the ends of its interval, by name."""
    return dict(zip(("value", "low", "high"), values, strict=True))


# ---- the table -----------------------------------------------------------------------------


def measured(source: str) -> dict:
    """value, standard_error, low, high, n of a source, as far as it has them.

    Raises KeyError if there is no such measurement.
    """
    first, *others = [column_of(name) for name in source.split(" minus ")]
    for second in others:
        first = difference(first, second)
    return first


def column_of(source: str) -> dict:
    """The row of a measurement; with ": column" behind its name, that column as its value."""
    name, _, column = source.partition(": ")
    row = measurements()[name]
    if not column:
        return row
    ends = {end: row.get(f"{column}_{end}", row.get(end)) for end in ("low", "high")}
    return {"value": row[column], "n": row.get("n"), **ends}


def difference(first: dict, second: dict) -> dict:
    """The first minus the second, paired if they have the same examples."""
    pair = first.get("examples"), second.get("examples")
    if any(of is None for of in pair) or len(pair[0]) != len(pair[1]):
        return {"value": first["value"] - second["value"]}
    weights = np.asarray(first["weights"], float)
    value, error = weighted_mean(np.subtract(*pair), weights)
    return {"value": value, "standard_error": error, "n": len(weights)}


def requoted(quoted: str, measurement: dict) -> str:
    """`quoted` with the numbers of a measurement, each rounded to its digits."""
    ends = ["standard_error"] if "±" in quoted else ["low", "high"] if "[" in quoted else []
    numbers = [float(measurement[column]) for column in ("value", *ends)]
    if numbers[0] < 0 and quoted[0] not in "+-":  # the words around it say which way
        value, *rest = numbers
        numbers = [-value, *(rest if "±" in quoted else [-end for end in reversed(rest)])]
    if "%" in quoted:
        numbers = [100 * number for number in numbers]
    remaining = iter(numbers)
    return NUMBER.sub(lambda match: rounded(next(remaining), like=match[0]), quoted)


def rounded(number: float, like: str) -> str:
    """A number with the digits, the plus sign and the thousands commas that `like` has."""
    digits = len(like.partition(".")[2])
    sign, comma = "+" if like[0] == "+" else "", "," if "," in like else ""
    return format(half_up(number, digits), f"{sign}z{comma}.{digits}f")


def renewed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with what follows from where, quoted and source made anew."""
    rows = []
    for row in table.itertuples():
        measurement = measured(row.source)
        quoted = requoted(row.quoted, measurement)
        if "[" not in quoted:
            measurement = measurement | {"low": None, "high": None}
        numbers = {column: measurement.get(column) for column in COMPUTED}
        rows.append({"where": row.where, "quoted": quoted, **numbers, "source": row.source})
    return pd.DataFrame(rows).astype(dict.fromkeys(COMPUTED, float))


def read() -> pd.DataFrame:
    """The table as it is committed."""
    return pd.read_csv(FILE, dtype={"quoted": str} | dict.fromkeys(COMPUTED, float))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.numbers", description=__doc__)
    parser.add_argument("--find", nargs="+", metavar="WORD", help="print sources with these words")
    words = parser.parse_args(argv).find
    if words:
        print(*(name for name in measurements() if all(w in name for w in words)), sep="\n")
        return 0
    table = read()
    try:
        new = renewed(table)
    except KeyError as error:
        print(f"{FILE.name}: no measurement is called {error}.", file=sys.stderr)
        return 2
    for old, row in zip(table.quoted, new.itertuples(), strict=True):
        if old != row.quoted:
            print(f"{row.where}: {old} is {row.quoted} now ({row.source})")
    new.to_csv(FILE, index=False, float_format="%.7g", lineterminator="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
