"""A question as one object: what it asks, how that is measured, where it is drawn."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import isfunction

import pandas as pd

from lib import evaluation
from lib.evaluation import TaskSpec
from replication import measure
from replication.measure import cache, fetching
from replication.measure.fetching import Measure


@dataclass(frozen=True)
class Question:
    """One question of our own. All but its notebook may be empty."""

    notebook: str  # the file that draws it, without its ending: it begins with the number
    experiments: tuple[measure.Experiment, ...] = ()  # what is asked of each model
    tasks: Mapping[str, TaskSpec] = field(default_factory=dict)  # that only it asks
    kinds: Mapping[str, Measure] = field(default_factory=dict)  # of results: what measures them
    # of an experiment whose rows are not scores: what makes them of its requests
    tables: Mapping[str, Callable[..., pd.DataFrame]] = field(default_factory=dict)
    # of a kind, of which a table's row is not one result: the results of a model's rows
    results_of: Mapping[str, Callable[[pd.DataFrame], Iterable]] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)  # and their captions


def register(questions: Iterable[Question]) -> None:
    """Let `measure` know the tasks, kinds and tables of questions.

    Raises ValueError for a name that stands for something else already, for experiments that are
    no functions, and for a table of no experiment.
    """
    questions = tuple(questions)
    for question in questions:
        _check(question)
    for question in questions:
        evaluation.register(question.tasks)
        _add(question.kinds, fetching.MEASURE)
        _add(question.tables, measure.TABLES)
        _add(question.results_of, cache.RESULTS_OF)


def _check(question: Question) -> None:
    """Raise ValueError for experiments that are no functions, and for a table of none of them."""
    experiments = question.experiments
    if not isinstance(experiments, tuple) or not all(map(isfunction, experiments)):
        raise ValueError(
            f"The experiments of {question.notebook} must be a tuple of functions, "
            f"as (positions,), not {experiments!r}."
        )
    names = [experiment.__name__ for experiment in experiments]
    if unknown := [name for name in question.tables if name not in names]:
        raise ValueError(
            f"{question.notebook} has a table {unknown[0]!r}, but no experiment of that name: "
            f"choose among {', '.join(names) or 'none'}."
        )


def _add(own: Mapping, known: dict) -> None:
    for name, value in own.items():
        if known.setdefault(name, value) != value:
            raise ValueError(f"There is a {name!r} already: choose another name.")
