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
def scores() -> dict[str, tuple[dict, pd.Series]]:
    """The parameters and the row of each score that was measured, once."""
    rows = {}
    for file in sorted(RECORDED.glob("*.parquet")):
        table = pd.read_parquet(file)
        for _, row in table[table.value.notna()].iterrows() if "task" in table else ():
            if "request" in row and json.loads(row.request)["kind"] == "scores":
                rows[row.request] = json.loads(row.request), row
    return rows


def distances(model: str) -> np.ndarray:
    table = pd.read_parquet(RECORDED / "similarity.parquet")
    matrix = np.zeros((LAYERS[model] + 1,) * 2)
    for row in table[table.model == model].itertuples():
        matrix[row.block_start, row.block_start + row.block_size] = row.value
    return matrix


def curve(model: str, task: str, strategy: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Fractions, scores and floor of an unhealed line."""
    layers, matrix = LAYERS[model], distances(model)
    of_size, floor = {}, None
    for params, row in scores().values():
        counts = {key: params.get(key) for key in COUNTS[task]}
        same = params["model"] == model and params["task"] == task and counts == COUNTS[task]
        if not same or "recipe" in params or params["quantization"]:
            continue
        start, size = params["block_start"], params["block_size"]
        chosen = {
            "similarity": np.argmin(np.diagonal(matrix, size)) if size else 0,
            "simple": layers - 1 - size,
        }[strategy]
        floor = row.floor if not size else floor
        if not size or start == chosen:
            of_size[size] = np.average(row.examples, weights=row.weights)
    sizes = sorted(of_size)
    return np.array(sizes) / layers, np.array([of_size[s] for s in sizes]), floor


def lost(values: np.ndarray, floor: float, is_loss: bool = False) -> np.ndarray:
    share = (values[0] - values) / (values[0] - floor)
    return np.minimum(share, 1) if is_loss else share


def never_falling(values: np.ndarray) -> np.ndarray:
    """Pool adjacent violators."""
    pools = []
    for value in values:
        pools.append([value, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, n) = pools[-2:]
            pools[-2:] = [[(a * m + b * n) / (m + n), m + n]]
    return np.repeat([p[0] for p in pools], [p[1] for p in pools])


def crossing(fractions: np.ndarray, share_lost: np.ndarray, share: float) -> float:
    line = never_falling(share_lost)
    after = int(np.argmax(line > share))
    if not line[after] > share:
        return np.nan
    part = (share - line[after - 1]) / (line[after] - line[after - 1])
    return fractions[after - 1] + part * (fractions[after] - fractions[after - 1])


def recomputed(model: str, task: str) -> dict[str, float]:
    """Parts of claims on a model, by its question set."""
    fractions, scores, floor = curve(model, task, "similarity")
    gone = lost(scores, floor)
    half = crossing(fractions, gone, 0.5)
    beyond = fractions >= half + 0.15
    parts = {"1": half}
    parts["2a"] = crossing(fractions, gone, 0.75) - crossing(fractions, gone, 0.25)
    parts["2b"] = np.mean(1 - gone[beyond]) if beyond.any() else np.nan
    fractions, losses, chance = curve(model, "c4", "similarity")
    if len(losses):  # else not recorded yet
        mine = lost(losses, chance, is_loss=True)
        parts["3a"] = crossing(fractions, mine, 0.5) - half
        simple = lost(curve(model, "c4", "simple")[1], chance, is_loss=True)
        parts["7a"] = np.mean((simple - mine)[1:])
    matrix, layers = distances(model), LAYERS[model]
    middle, quarter = layers // 2, layers // 4
    sizes = range(1, quarter + 1)
    upper = [np.mean([matrix[l, l + n] for l in range(middle, layers - n)]) for n in sizes]
    lower = [np.mean([matrix[l, l + n] for l in range(1, middle - n + 1)]) for n in sizes]
    parts["4a"] = np.mean(upper) - np.mean(lower)
    last = [np.argmax(np.diagonal(matrix, n)) == layers - n for n in range(1, middle + 1)]
    parts["4b"] = np.mean(last)
    return parts


@pytest.mark.parametrize("cut", [("similarity", 7), ("early exit", 5), ("simple", 3)])
def test_content_minus_its_prior_is_found_again(cut):
    from replication.beyond import prior

    table = pd.read_parquet(RECORDED / "priors.parquet")
    theirs = prior.without_prior(table).set_index(["strategy", "block_size"]).loc[cut]
    of_cut = table[(table.strategy == cut[0]) & (table.block_size == cut[1])].set_index("task")
    content, alone = of_cut.loc["arc_easy"], of_cut.loc["arc_easy_alone"]
    options = zip(content.choices, alone.choices, content.answers, strict=True)
    right = [(after - before).argmax() == answer for after, before, answer in options]
    assert theirs.PMI == pytest.approx(np.mean(right), abs=0.01)
    assert theirs.gain == pytest.approx(np.mean(right) - content.value, abs=0.01)


def test_the_recorded_verdicts_are_found_again():
    from lib.models import registry
    from scripts import readme

    statistics = {(v.model, v.claim, v.task): v.statistic for v in readme._verdicts()}
    no_questions = {key[:2]: value for key, value in statistics.items() if key[2] in ("", "c4")}
    compared = 0
    judged = [("smollm2-135m", "arc_easy_test"), ("qwen2.5-coder-1.5b", "mmlu")]
    for model, task in [*judged, ("qwen2.5-coder-1.5b", "arc_easy")]:
        for part, value in recomputed(model, task).items():
            label = registry.label(model)
            others = no_questions.get((label, part), np.nan)
            theirs = statistics.get((label, part, task), others)
            if np.isfinite(theirs):
                assert value == pytest.approx(theirs, abs=0.005), (model, part)
                compared += 1
    assert compared >= 13


def test_readmes_show_the_recorded_run():
    """`python -m scripts.readme` brings them up to date."""
    from scripts import readme

    for name, parts in readme.PARTS.items():
        text = (RECORDED.parents[2] / name).read_text(encoding="utf-8")
        assert readme.renewed(text, parts) == text, name
