"""What is read at a depth, as rows of a table: by letter, by a probe, by a lens.

Of questions with four options. A row is a cut, a depth and a reading.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from lib.evaluation import Task, weighted_mean
from replication.beyond.letters.biases import LETTERS, QUANTILE
from replication.figures.style import label
from replication.measure import fetching
from replication.measure.request import BLOCK, Request, load_task

NO_SCORE = {"depth": np.nan, "reading": None, "value": np.nan, "standard_error": np.nan, "n": 0}
NO_ROWS = ["model", *BLOCK, "task", "status", "choices"]


def table(requests: Sequence[Request]) -> pd.DataFrame:
    """Return a row a cut, depth and reading.

    value: its accuracy. By letter, `choices` has the letters' log-likelihoods; of a probe, `chosen`
    has what it chose, `null` its null, and `strength` the median over folds.
    """
    pairs = zip(requests, fetching.fetch(requests), strict=True)
    rows = [NO_SCORE | request.labels | row for request, result in pairs for row in result]
    return pd.DataFrame(rows, columns=None if rows else [*NO_ROWS, *NO_SCORE])


def answers_of(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of each question's right option, and its weight in the mean: (n,), (n,)."""
    answers = [example["answer"] for example in task.examples]
    weights = [example["weight"] for example in task.examples]
    return np.array(answers), np.array(weights, float)


def row_of(depth: int | None, reading: str, chosen: np.ndarray, answers, weights) -> dict:
    """Return a row of the table: how often a reading at a depth has chosen rightly."""
    is_right = (chosen == answers).astype(float)
    value, error = weighted_mean(is_right, weights)
    return {
        "depth": depth,
        "reading": reading,
        "value": value,
        "standard_error": error,
        "n": len(answers),
        "answers": answers,
        "weights": weights,
    }


def row_of_probe(depth: int | None, reading: str, choices: tuple, answers, weights) -> dict:
    """Return the row of what a probe chose: `choices`, as `probes` returns them.

    null: how often probes of shuffled answers choose rightly, at QUANTILE; None if there are none.
    """
    chosen, labels, strength = choices
    row = row_of(depth, reading, chosen[0], answers, weights)
    row |= {"chosen": chosen[0], "strength": strength, "null": None}
    if len(chosen) > 1:
        nulls = np.average(chosen[1:] == labels[1:], axis=1, weights=weights)
        row["null"] = float(np.quantile(nulls, QUANTILE))
    return row


def row_of_letters(depth: int, reading: str, letters: np.ndarray, answers, weights) -> dict:
    """Return that of the likeliest of the letters, (n, letters), and what they score."""
    likeliest = letters.argmax(axis=1)
    row = row_of(depth, reading, likeliest, answers, weights)
    row["choices"] = list(letters.round(3))
    return row


def load_four_options(params: dict) -> Task:
    """Return the task of a result's parameters, with its questions of as many options as there are
    LETTERS."""
    task = load_task(params)
    four = [example for example in task.examples if len(example["choices"]) == LETTERS]
    return replace(task, examples=tuple(four))


# ---- to draw --------------------------------------------------------------------------------


def by_panel(
    rows: pd.DataFrame, title: str, cuts: Iterable[tuple[str, int]]
) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the rows of each panel, by row (a model) and column: the whole model, then each of
    `cuts` (strategy and layers dropped) that was measured."""
    panels, several = {}, rows.model.nunique() > 1
    for model, of_model in rows.groupby("model", sort=False):
        row = f"{title}\n{label(model)}" if several else title
        whole = of_model[of_model.block_size == 0]
        panels[row, "whole" if several else f"{label(model)}\nwhole"] = whole
        for strategy, size in cuts:
            of_cut = of_model[(of_model.strategy == strategy) & (of_model.block_size == size)]
            if len(of_cut):
                panels[row, f"{strategy}, {size} layers"] = after_whole(whole, of_cut)
    return panels


def after_whole(whole: pd.DataFrame, of_cut: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a cut after those of the whole model, which it is before the dropped
    layers."""
    before = whole[whole.depth <= of_cut.block_start.max()]
    return pd.concat([before, of_cut])
