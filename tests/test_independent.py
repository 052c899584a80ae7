"""The recorded verdicts once more, from the recorded tables, with pandas and numpy alone.

A test asks the project for its numbers to compare with, or takes those of the pages; the last one
compares the pages with the verdicts that the test before it has asked for.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import isotonic_regression

pytestmark = pytest.mark.record
RECORDED = Path(__file__).parent.parent / "data" / "recorded" / "overnight"
LAYERS = {"smollm2-135m": 30, "qwen2.5-coder-1.5b": 28}
COUNTS = {  # how much the recorded run measures of each task
    "mmlu": {"subjects": 57, "questions": 5, "shots": 5, "shot_order": 0},
    "arc_easy_test": {"questions": 2376, "shots": 0},
    "arc_easy": {"questions": 570, "shots": 0},
    "c4": {"sequences": 96, "max_tokens": 200},
}


@cache
def scores() -> pd.DataFrame:
    """The parameters of each score that was measured, once, and what it is of."""
    tables = [pd.read_parquet(file) for file in sorted(RECORDED.glob("*.parquet"))]
    rows = pd.concat([table for table in tables if {"task", "request"} <= set(table)])
    rows = rows[rows.value.notna()].drop_duplicates("request").reset_index(drop=True)
    params = pd.DataFrame(map(json.loads, rows.request))
    params = params.assign(examples=rows.examples, weights=rows.weights, floor=rows.floor)
    return params[params.kind == "scores"]


def distances(model: str) -> np.ndarray:
    table = pd.read_parquet(RECORDED / "similarity.parquet")
    matrix = np.zeros((LAYERS[model] + 1,) * 2)
    for row in table[table.model == model].itertuples():
        matrix[row.block_start, row.block_start + row.block_size] = row.value
    return matrix


def curve(model: str, task: str, strategy: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Fractions, scores and floor of an unhealed line."""
    rows = scores()
    for parameter, value in ({"model": model, "task": task} | COUNTS[task]).items():
        rows = rows[rows[parameter] == value]
    rows = rows[rows.recipe.isna() & rows.quantization.isna()]
    layers, matrix = LAYERS[model], distances(model)
    values = {}
    for row in rows.itertuples():
        size = int(row.block_size)
        most_similar = np.argmin(np.diagonal(matrix, size))
        chosen = most_similar if strategy == "similarity" else layers - 1 - size
        if size == 0 or row.block_start == chosen:
            values[size] = np.average(row.examples, weights=row.weights)
    sizes = sorted(values)
    floor = rows.floor[rows.block_size == 0].iloc[0]
    return np.array(sizes) / layers, np.array([values[size] for size in sizes]), floor


def lost(values: np.ndarray, floor: float, is_loss: bool = False) -> np.ndarray:
    share = (values[0] - values) / (values[0] - floor)
    return np.minimum(share, 1) if is_loss else share


def crossing(fractions: np.ndarray, share_lost: np.ndarray, share: float) -> float:
    """Where the line through these shares, made to never fall, passes a share."""
    line = isotonic_regression(share_lost).x
    after = int(np.argmax(line > share))
    if not line[after] > share:
        return np.nan
    ends = slice(after - 1, after + 1)
    return np.interp(share, line[ends], fractions[ends])


def recomputed(model: str, task: str) -> dict[str, float]:
    """Parts of claims on a model, by its question set."""
    fractions, answers, floor = curve(model, task, "similarity")
    gone = lost(answers, floor)
    quarter, half, three_quarters = (crossing(fractions, gone, s) for s in (0.25, 0.5, 0.75))
    parts = {"1": half, "2a": three_quarters - quarter}
    beyond = fractions >= half + 0.15
    parts["2b"] = np.mean(1 - gone[beyond]) if beyond.any() else np.nan
    fractions, losses, chance = curve(model, "c4", "similarity")
    similar = lost(losses, chance, is_loss=True)
    parts["3a"] = crossing(fractions, similar, 0.5) - half
    _, losses, _ = curve(model, "c4", "simple")
    simple = lost(losses, chance, is_loss=True)
    parts["7a"] = np.mean((simple - similar)[1:])
    matrix, layers = distances(model), LAYERS[model]
    middle = layers // 2

    def mean_within(first: int, stop: int) -> float:
        """The mean distance of the blocks within these layers, mean over sizes."""
        by_size = []
        for n in range(1, layers // 4 + 1):
            of_size = [matrix[l, l + n] for l in range(first, stop - n + 1)]
            by_size.append(np.mean(of_size))
        return np.mean(by_size)

    parts["4a"] = mean_within(middle, layers - 1) - mean_within(1, middle)
    last = [np.argmax(np.diagonal(matrix, n)) == layers - n for n in range(1, middle + 1)]
    parts["4b"] = np.mean(last)
    return parts


def biases_removed(loglikelihoods: np.ndarray) -> np.ndarray:
    """Minus each letter's mean over the questions whose number has another remainder by five."""
    relative = loglikelihoods - loglikelihoods.mean(axis=1)[:, None]
    remainder = np.arange(len(relative)) % 5
    means = [relative[remainder != r].mean(axis=0) for r in range(5)]
    return relative - np.array(means)[remainder]


def areas_of(loglikelihoods: np.ndarray, answers: np.ndarray) -> list[float]:
    """How often each letter is likelier, against the others of its question, where it is right."""
    areas = []
    for letter in range(loglikelihoods.shape[1]):
        others = [k for k in range(loglikelihoods.shape[1]) if k != letter]
        lead = loglikelihoods[:, letter] - loglikelihoods[:, others].mean(axis=1)
        right, wrong = lead[answers == letter], lead[answers != letter]
        pairs = right[:, None] - wrong[None, :]
        areas.append(np.mean((pairs > 0) + (pairs == 0) / 2))
    return areas


def read_out(fit: np.ndarray, right: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """The letters that ridge regression (1) gives to judged questions; log-likelihoods (n, 4)."""
    x, other = (of - of.mean(axis=1)[:, None] for of in (fit, judged))
    mean, target = x.mean(axis=0), np.eye(4)[right]
    both = np.vstack([x - mean, np.eye(4)])  # the ridge, as four more questions
    targets = np.vstack([target - target.mean(axis=0), np.zeros((4, 4))])
    a = np.linalg.lstsq(both, targets, rcond=None)[0]
    return ((other - mean) @ a + target.mean(axis=0)).argmax(axis=1)


def of_table(name: str, **cells) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihoods and right letters of the questions with four options, of a recorded score."""
    table = pd.read_parquet(RECORDED / f"{name}.parquet")
    for column, value in cells.items():
        table = table[table[column] == value]
    row = table[table.value.notna()].iloc[0]
    four = [i for i, options in enumerate(row.choices) if len(options) == 4]
    return np.stack([row.choices[i] for i in four]), np.asarray(row.answers)[four]


MAIN = {"model": "qwen2.5-coder-1.5b"}
EXIT = MAIN | {"strategy": "early exit"}
READ_OUT = {  # by symbols and sets: what is fitted, what is judged, the accuracy on the pages
    ("A to D", "ARC-Easy", "other"): (
        ("forms", EXIT | {"task": "arc_easy_letters", "block_size": 6}),
        ("letter_biases", EXIT | {"task": "mmlu_other", "block_size": 6}),
        0.47,
    ),
    ("P to S", "MMLU, few", "ARC-Easy"): (
        ("translated", {"task": "mmlu_short_symbols", "repair": "plain cut", "block_size": 6}),
        ("translated", {"task": "arc_easy_symbols", "repair": "plain cut", "block_size": 6}),
        0.53,
    ),
    ("A to D", "MMLU, few", "ARC-Easy"): (
        ("forms", MAIN | {"task": "mmlu", "strategy": "simple", "block_size": 5}),
        ("forms", MAIN | {"task": "arc_easy_letters", "strategy": "simple", "block_size": 5}),
        0.35,
    ),
}


@pytest.mark.parametrize("name", READ_OUT)
def test_a_readout_from_another_set_is_found_again(name):
    from scripts import numbers

    (fit_table, fit_cells), (table, cells), quoted = READ_OUT[name]
    judged, right = of_table(table, **cells)
    accuracy = np.mean(read_out(*of_table(fit_table, **fit_cells), judged) == right)
    assert accuracy == pytest.approx(quoted, abs=0.005)
    rows = numbers.table("readouts")
    strategy, size = cells.get("strategy", "early exit"), cells["block_size"]
    rows = rows[(rows.strategy == strategy) & (rows.block_size == size)]
    rows = rows[rows.repair.eq("plain cut") & rows.model.eq(MAIN["model"])]
    (row,) = rows.set_index(["symbols", "fitted_on", "judged_on"]).loc[[name]].itertuples()
    assert row.value == pytest.approx(accuracy)
    relative = judged - judged.mean(axis=1)[:, None]
    assert row.spread == pytest.approx(np.std(relative.mean(axis=0)))
    theirs = [row.auc_1, row.auc_2, row.auc_3, row.auc_4]
    assert theirs == pytest.approx(areas_of(judged, right), abs=1e-3)  # ties
    assert row.unbiased == pytest.approx(np.mean(biases_removed(judged).argmax(axis=1) == right))


def test_accuracies_by_depth_are_found_again():
    """Of the letters and of lenses by the likeliest, of a probe by the place that it chose."""
    names = "depths", "option_ends", "lens"
    table = pd.concat([pd.read_parquet(RECORDED / f"{name}.parquet") for name in names])
    for row in table[table.value.notna()].itertuples():
        if row.reading in ("letters", "last token", "published"):
            choices = np.stack(row.choices)
            chosen, (second, first) = choices.argmax(axis=1), np.sort(choices)[:, -2:].T
            rounded = (first - second < 0.0015).mean()  # stored in thousandths of a nat
        else:
            chosen, rounded = row.chosen, 0
        right = np.equal(chosen, row.answers)
        expected = np.average(right, weights=row.weights)
        assert row.value == pytest.approx(expected, abs=rounded + 1e-6)


def test_the_recorded_verdicts_are_found_again():
    from lib.models import registry
    from scripts import readme

    statistics = {}
    for verdict in readme._verdicts():
        task = "" if verdict.task == "c4" else verdict.task  # of no questions
        statistics[verdict.model, verdict.claim, task] = verdict.statistic
    compared = 0
    qwen = "qwen2.5-coder-1.5b"
    for model, task in (("smollm2-135m", "arc_easy_test"), (qwen, "mmlu"), (qwen, "arc_easy")):
        for part, value in recomputed(model, task).items():
            label = registry.label(model)
            of_no_questions = statistics.get((label, part, ""), np.nan)
            theirs = statistics.get((label, part, task), of_no_questions)
            if np.isfinite(theirs):
                assert value == pytest.approx(theirs, abs=0.005), (model, part)
                compared += 1
    assert compared >= 20


def test_readmes_show_the_recorded_run():
    """`python -m scripts.readme` brings them up to date."""
    from scripts import readme

    for name, parts in readme.PARTS.items():
        text = (RECORDED.parents[2] / name).read_text(encoding="utf-8")
        assert readme.renewed(text, parts) == text, name
