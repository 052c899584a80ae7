"""The numbers that prose quotes: `python -m scripts.numbers` renews data/recorded/numbers.csv.

A row says on which page a number stands (`where`), how it stands there (`quoted`) and which cell of
which table it is (`source`). To quote another number, add a row of these three and run this.

A source is a table, the cells that tell its row, and a column, as in "healed.parquet | task=c4 |
block_size=9 | value". The table is a file of the recorded run, its figures or its benchmarks, or
one of TABLES, which notebooks show. "#claim" as a column counts the different claims of all such
rows, "#" the rows. " minus " between two sources is their difference, paired where both have
examples. `quoted` is rounded to the digits that it has; it may have a %, " ms" (of seconds), a
sign, the standard error ("0.47 ± 0.02") or the ends of the interval ("0.24 [0.22, 0.25]").
"""

import re
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd

from lib.evaluation import weighted_mean
from replication import analysis, paths, profiles, tables
from replication.analysis import curves, islands
from replication.beyond import which_block
from replication.beyond.letters import biases, translator
from replication.claims.bounds import half_up
from replication.figures import heatmaps

FILE = paths.RECORDED / "numbers.csv"
PROFILE = profiles.get(profiles.DRAW_ONLY_PROFILE)
FOLDERS = (
    paths.RECORDED / profiles.RECORD_PROFILE,
    paths.ROOT / "figures" / profiles.RECORD_PROFILE,
    paths.ROOT / "benchmarks" / "results",
)
COMPUTED = ("value", "standard_error", "low", "high", "n")
NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?")
SCALES = {"%": 100, " ms": 1000}


# ---- tables that notebooks show ------------------------------------------------------------


def measured(name: str) -> pd.DataFrame:
    """Return the rows of a recorded table that have a value."""
    return tables.read(name, PROFILE).dropna(subset="value").reset_index(drop=True)


def half_lost() -> pd.DataFrame:
    """Return where each curve has lost half of its lead (notebooks 02 and 10)."""
    scores = pd.concat([measured("exits"), measured("test_split"), measured("reasoning")])
    scores = scores[scores.task.isin(["mmlu", "arc_easy", "arc_easy_test", "hellaswag"])]
    ranking = analysis.boolq_ranking(measured("unhealed"))
    other = measured("letter_biases").query("questions == 'other'")
    transitions = analysis.transitions(pd.concat([scores, ranking, other, all_of_mmlu()]))
    letters = biases.transitions_by_measure(letter_measures())
    both = pd.concat([transitions.assign(measure=""), letters], ignore_index=True)
    return both.infer_objects()


def all_of_mmlu() -> pd.DataFrame:
    """Return scores of MMLU by letter on both sets of questions together, as task "mmlu, all"."""
    rows = []
    cut = ["model", "strategy", "treatment", "block_start", "block_size"]
    for _, sets in measured("letter_biases").groupby(cut, sort=False):
        if len(sets) < 2:
            continue
        both = {
            name: np.concatenate(list(sets[name])) for name in ("examples", "weights", "answers")
        }
        value, error = weighted_mean(both["examples"], both["weights"])
        letters = [
            np.average(both["answers"] == letter, weights=both["weights"]) for letter in range(4)
        ]
        row = sets.iloc[0].to_dict() | both | {"task": "mmlu, all", "n": sets.n.sum()}
        rows.append(row | {"value": value, "standard_error": error, "floor": max(letters)})
    return pd.DataFrame(rows)


def chosen_letters() -> pd.DataFrame:
    """Return the letter that is likeliest, a row a question of MMLU and cut."""
    scores = measured("letter_biases").explode("choices")
    return scores.assign(chosen=[choices.argmax() for choices in scores.choices])


def letter_measures() -> pd.DataFrame:
    """Return accuracies by letter as answered and with biases removed (notebook 10)."""
    arc = measured("forms").query("task == 'arc_easy_letters' and treatment != 'healed'")
    arc = arc.assign(questions="ARC-Easy, all")
    scores = pd.concat([measured("letter_biases"), arc])
    return biases.letter_measures(scores.assign(task=scores.questions))


def exits_by_letter() -> pd.DataFrame:
    """Return the letters of all questions of ARC-Easy after every exit, which the whole model's
    depths are (notebook 10)."""
    rows = measured("depths").query("block_size == 0 and reading == 'letters'")
    rows = rows[rows.task.isin(["arc_easy_letters", "arc_easy_symbols"])]
    symbols = rows.task.map(
        dict(zip(translator.by_symbol("arc_easy"), translator.NAMES, strict=True))
    )
    exits = {"strategy": "early exit", "repair": translator.EXIT, "questions": "ARC-Easy, 562"}
    return rows.assign(**exits, symbols=symbols, block_size=rows.depth.max() - rows.depth)


def lens() -> pd.DataFrame:
    """Return what the Jacobian lens and the exits (reading "letters") answer, with the bounds over
    texts as low and high (notebook 10)."""
    exits = exits_by_letter().query("task == 'arc_easy_letters'")
    rows = biases.letter_measures(pd.concat([measured("lens"), exits]))
    is_answered = rows.measure == biases.ACCURACY
    for end in ("low", "high"):
        rows[end] = rows[f"texts_{end}"].where(is_answered, rows[f"unbiased_{end}"])
    return rows


def readouts() -> pd.DataFrame:
    """Return what a readout that was fitted on other questions answers (notebook 10)."""
    names = ("letter_biases", "forms", "translated")
    letter_scores = translator.scores_by_letter(*map(measured, names))
    of_cuts = exits_by_letter().query("block_size in [5, 6, 7]")
    read = biases.readouts(pd.concat([letter_scores, of_cuts], ignore_index=True), translator.CUT)
    shared = read.fitted_on.str.startswith("ARC-Easy") & read.judged_on.str.startswith("ARC-Easy")
    return read[~shared]  # fitted on some of the questions that they are judged on


def maps():
    """Return the recorded distances by model."""
    return tables.maps(PROFILE)


def qwen_islands() -> pd.DataFrame:
    """Return the islands of the Qwens' maps at lower thresholds (notebook 08)."""
    qwens = {name: of_model for name, of_model in maps().items() if "qwen" in name}
    return islands.islands_table(qwens, (0.03, 0.06))


def noise_islands() -> pd.DataFrame:
    """Return the mean number of islands of streams that only grow (notebook 08); index: model."""
    counts = {name: islands.islands_of_noise(of.matrix) for name, of in maps().items()}
    return pd.DataFrame(counts).mean().reset_index(name="mean")


def ranked_distances() -> pd.DataFrame:
    """Return each block's distance and its rank among those of its size."""
    distances = heatmaps.distance_table(maps())
    ranks = distances.groupby(["model", "block_size"]).value.rank()
    return distances.assign(rank=ranks)


def judged() -> pd.DataFrame:
    """Return the block that each criterion chooses of every size, and its damage (notebook 12)."""
    return which_block.head_to_head(measured("damage"), measured("states"), maps())


def rise_in_nf4() -> pd.DataFrame:
    """Return how much more the loss rises in NF4 than in 16 bits, as a share (notebook 09)."""
    losses = measured("stacked").pivot(index="block_size", columns="format", values="value")
    rises = losses - losses.loc[0]
    return (rises["nf4"] / rises["16 bits"] - 1).rename("value").reset_index()


def rank_correlation() -> pd.DataFrame:
    """Return how distance and damage correlate (notebook 12)."""
    return analysis.rank_correlation(analysis.beside_distances(measured("damage"), maps()))


SECOND = ("second_model", "letter_biases")
TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "half_lost": half_lost,
    "first_half_lost": lambda: analysis.transitions(measured("test_split"), curves.first_crossings),
    "letter_measures": letter_measures,
    "lens": lens,
    "translated_symbols": lambda: biases.letter_measures(
        measured("translated").query("task == 'arc_easy_symbols'")
    ),
    "chosen_letters": chosen_letters,
    "mmlu": all_of_mmlu,
    "second_letters": lambda: biases.letter_measures(
        measured("second_model").query("form == 'letters'")
    ),
    "exits_by_letter": lambda: biases.letter_measures(exits_by_letter()),
    "readouts": readouts,
    "second": lambda: biases.by_letter_and_content(*map(measured, SECOND)),
    "islands": lambda: islands.islands_table(maps(), (0.02, 0.1)),
    "qwen_islands": qwen_islands,
    "noise_islands": noise_islands,
    "judged": judged,
    "choices": lambda: which_block.summary(judged()),
    "rank_correlation": rank_correlation,
    "distances": ranked_distances,
    "rise_in_nf4": rise_in_nf4,
    "peers": lambda: (  # means over seeds
        table("peers.csv")
        .groupby(["model", "layers", "method"])
        .mean(numeric_only=True)
        .reset_index()
    ),
    "seed_sd": lambda: measured("seeds").groupby(["task", "treatment"]).value.std().reset_index(),
}


@cache
def table(name: str) -> pd.DataFrame:
    """Return a table by its name. Raises KeyError if there is none."""
    if name in TABLES:
        return TABLES[name]()
    files = [folder / name for folder in FOLDERS if (folder / name).is_file()]
    if not files:
        raise KeyError(f"no table {name}")
    read = pd.read_parquet if name.endswith(".parquet") else pd.read_csv
    return read(files[0])


# ---- a quote -------------------------------------------------------------------------------


def row_of(source: str) -> dict:
    """Return value, standard_error, low, high, n and examples of a source, as far as it has them.

    Raises KeyError if there are no such rows, or several that differ in this column.
    """
    name, *cells, column = source.split(" | ")
    rows = table(name)
    for cell in cells:
        key, _, text = cell.partition("=")
        is_number = rows[key].dtype.kind in "fiu"
        wanted = float(text or "nan") if is_number else text
        rows = rows[rows[key] == wanted] if text else rows[rows[key].isna()]
    if column.startswith("#"):
        return {"value": rows[column[1:]].nunique() if column[1:] else len(rows)}
    if not rows[column].nunique(dropna=False) == 1:
        raise KeyError(f"{len(rows)} rows of {source}")
    row = rows.iloc[0].to_dict()
    if column == "value":
        return row
    ends = {end: row.get(f"{column}_{end}", row.get(end)) for end in ("low", "high")}
    return {"value": row[column], "n": row.get("n"), **ends}


def measurement_of(source: str) -> dict:
    """Return what a source is, or the difference of two: the first minus the second."""
    first, *others = map(row_of, source.split(" minus "))
    for second in others:
        first = difference(first, second)
    return first


def difference(first: dict, second: dict) -> dict:
    """Return the first minus the second, paired if they have the same examples."""
    pair = first.get("examples"), second.get("examples")
    if any(examples is None for examples in pair) or len(pair[0]) != len(pair[1]):
        return {"value": first["value"] - second["value"]}
    weights = np.asarray(first["weights"], float)
    paired = np.subtract(*pair)
    value, error = weighted_mean(paired, weights)
    both = {"examples": paired, "weights": weights}
    return {"value": value, "standard_error": error, "n": len(weights), **both}


def requoted(quoted: str, measurement: dict) -> str:
    """Return `quoted` with the numbers of a measurement, each rounded to its digits."""
    ends = ["standard_error"] if "±" in quoted else ["low", "high"] if "[" in quoted else []
    numbers = [float(measurement[column]) for column in ("value", *ends)]
    if numbers[0] < 0 and quoted[0] not in "+-":  # the words around it say which way
        value, *rest = numbers
        numbers = [-value, *(rest if "±" in quoted else [-end for end in reversed(rest)])]
    for unit, scale in SCALES.items():
        if unit in quoted:
            numbers = [scale * number for number in numbers]
    remaining = iter(numbers)
    return NUMBER.sub(lambda match: rounded(next(remaining), like=match[0]), quoted)


def rounded(number: float, like: str) -> str:
    """Return a number with the digits, the plus sign and the thousands commas that `like` has."""
    digits = len(like.partition(".")[2])
    sign, comma = "+" if like[0] == "+" else "", "," if "," in like else ""
    return format(half_up(number, digits), f"{sign}z{comma}.{digits}f")


def renewed(quotes: pd.DataFrame) -> pd.DataFrame:
    """Return the quotes with what follows from where, quoted and source made anew."""
    rows = []
    for row in quotes.itertuples():
        measurement = measurement_of(row.source)
        quoted = requoted(row.quoted, measurement)
        if "[" not in quoted:
            measurement = measurement | {"low": None, "high": None}
        numbers = {column: measurement.get(column) for column in COMPUTED}
        rows.append({"where": row.where, "quoted": quoted, **numbers, "source": row.source})
    new = pd.DataFrame(rows)
    new[[*COMPUTED]] = new[[*COMPUTED]].apply(pd.to_numeric, errors="coerce")  # a claim's n is text
    return new.astype(dict.fromkeys(COMPUTED, float))


def read() -> pd.DataFrame:
    """Return the quotes as they are committed."""
    return pd.read_csv(FILE, dtype={"quoted": str} | dict.fromkeys(COMPUTED, float))


def main() -> int:
    quotes = read()
    try:
        new = renewed(quotes)
    except KeyError as error:
        print(f"{FILE.name}: {error}", file=sys.stderr)
        return 2
    for old, row in zip(quotes.quoted, new.itertuples(), strict=True):
        if old != row.quoted:
            print(f"{row.where}: {old} is {row.quoted} now ({row.source})")
    new.to_csv(FILE, index=False, float_format="%.7g", lineterminator="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
