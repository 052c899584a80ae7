"""What a model can answer: a task that the whole model cannot answer is not asked of its cuts.

The whole model needs a score SIGNAL standard errors above its floor; of BoolQ, an AUC so far above
one half will do. The recorded run knows that of its models, where it asked them as many questions.
Any other model is asked whole first.
"""

import json
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.evaluation import TASK_SPECS
from replication import tables
from replication.analysis.answers import boolq_ranking
from replication.analysis.curves import SIGNAL, gap, unclear
from replication.measure import cache as results
from replication.measure.request import Request, of_whole_model
from replication.profiles import DRAW_ONLY_PROFILE, PROFILES

OF_CUT = ("recipe", "healing_version", "healing_data")  # parameters that a whole model has not
READ = ["model", "task", "block_size", "steps", "n", "value", "standard_error"]
READ += ["chance", "majority", "floor", "choices", "answers", "request"]


class Known(NamedTuple):
    """What is known of a whole model and a task: how many standard errors it is above its floor,
    of how many questions, and how many were to be asked."""

    gap: float
    n: int
    questions: int


@cache
def recorded() -> dict[tuple[str, str], Known]:
    """Return what the recorded run knows, by model and task: the largest gap, most questions."""
    known = {}
    for _, table in tables.read_all(tables.folder(PROFILES[DRAW_ONLY_PROFILE])):
        if not set(READ) <= set(table):
            continue
        is_whole = (table.block_size == 0) & (table.steps == 0) & table.value.notna()
        for score in table.loc[is_whole, READ].to_dict("records"):
            gap, questions = largest_gap(score), _questions(json.loads(score["request"]))
            one = Known(gap, int(score["n"]), questions)
            if np.isfinite(gap):
                key = score["model"], score["task"]
                known[key] = Known(*map(max, known.get(key, one), one))
    return known


def largest_gap(score: dict) -> float:
    """Return how many standard errors a score is above its floor; of BoolQ, if that is more, how
    many its AUC is above one half."""
    scores = pd.DataFrame([score])
    if score["task"] == "boolq":
        scores = pd.concat([scores, boolq_ranking(scores)])
    return max(gap(row) for row in scores.itertuples() if pd.notna(row.value))


def whole_of(request: Request) -> Request:
    """Return the request of the same questions to the whole model."""
    params = {
        name: value
        for name, value in request.params.items()
        if name not in OF_CUT and not name.startswith("map")
    }
    return Request("scores", of_whole_model(params), request.labels)


def needs_signal(request: Request) -> bool:
    """Return whether a request is of right answers, in a profile that asks where there is a signal
    only; not of one that is asked anyway, as its labels say."""
    if request.labels.get("asked_anyway"):
        return False
    spec = TASK_SPECS.get(request.params.get("task"))
    if spec is None or spec.unit != "accuracy":
        return False
    profile = PROFILES[request.labels["profile"]]
    return profile.needs_signal and (not spec.signal_task or is_known(request))


def is_known(request: Request) -> bool:
    """Return whether the recorded run decides: it has the whole model's score of the task, or of
    that which decides for it, and the same score of as many questions as are asked now would say
    the same."""
    known = recorded().get(_key(request))
    if known is None:
        return False
    if known.gap >= SIGNAL or TASK_SPECS[request.params["task"]].signal_task:
        return True
    # of more questions the same score is more standard errors above its floor, by the root
    more = max(1, _questions(request.params) / known.questions)
    return known.gap * np.sqrt(more) < SIGNAL


def _questions(params: dict) -> int:
    return (params.get("questions") or 0) * params.get("subjects", 1)


def _key(request: Request) -> tuple[str, str]:
    task = request.params["task"]
    return request.params["model"], TASK_SPECS[task].signal_task or task


def is_futile(request: Request) -> bool:
    """Return whether the whole model cannot answer the task: by the record, else by its own score,
    once that is stored."""
    return why_futile(request) is not None


def why_futile(request: Request) -> str | None:
    """Return the status of a score that is not asked: its source lacks the questions, or the whole
    model is at its floor, or not above it by so many questions. None of one that is asked."""
    if request.status_of_data or not needs_signal(request):
        return request.status_of_data
    if is_known(request):
        known = recorded()[_key(request)]
    else:
        whole = whole_of(request)
        if whole.params == request.params or "revision" not in request.params:
            return None
        stored = results.load(whole.kind, whole.params)
        if stored is None:
            return None
        known = Known(largest_gap(stored[0]), stored[0]["n"], _questions(whole.params))
    return unclear(known.gap, known.n) if known.gap < SIGNAL else None


def to_measure(requests: Iterable[Request]) -> list[Request]:
    """Return the requests without those of no question, or of questions that their source lacks,
    and without those that the record shows to be futile."""
    return [
        one
        for one in requests
        if one.params.get("questions") != 0
        and not one.status_of_data
        and not (needs_signal(one) and is_known(one) and is_futile(one))
    ]


def to_measure_first(requests: Iterable[Request]) -> list[Request]:
    """Return the requests to whole models that decide what is asked of cuts: of models that the
    record does not know."""
    unknown = [one for one in requests if one.kind == "scores" and needs_signal(one)]
    unknown = [one for one in unknown if not one.status_of_data]
    wholes = [whole_of(one) for one in unknown if not is_known(one)]
    return list({str(one.params): one for one in wholes}.values())
