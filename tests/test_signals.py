"""What is asked of which model, and what stands behind a run's own points."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import Distances, measured_scores

from lib.blocks import Block
from replication import figures, profiles, tables
from replication.beyond import letters
from replication.measure import request, signals
from replication.run.jobs import by_job
from replication.run.notebooks import NOTEBOOKS

SMOLLM2 = "smollm2-135m"


def asked_of(name: str) -> set:
    """Return the tasks of all requests of `quick`."""
    profile = profiles.get("quick", [name])
    jobs = by_job(name, profile, NOTEBOOKS, Distances(30))
    tasks = {one.params.get("task") for requests in jobs.values() for one in requests}
    return tasks - {None}


def test_quick_asks_smollm2_what_it_can_answer_and_others_more():
    quick = profiles.get("quick")
    assert asked_of(SMOLLM2) == {"arc_easy", "c4"}
    assert {"mmlu", "boolq", "arc_easy", "c4"} <= asked_of("olmo-2-1b")
    assert min(quick.arc_easy_questions, quick.boolq_questions) >= 60
    assert quick.mmlu_subjects * quick.mmlu_questions >= 60
    assert quick.c4_sequences >= 20


def test_a_model_that_the_record_does_not_know_is_asked_whole_first(output, monkeypatch):
    """tiny-random guesses: its cuts are not asked, and their rows say why; the loss is measured.

    Where another task would decide, they are asked all the same.
    """
    smoke = replace(profiles.get("smoke"), needs_signal=True)
    monkeypatch.setitem(profiles.PROFILES, "smoke", smoke)
    table = measured_scores("tiny-random", smoke, [Block(1, 2)], ["arc_easy", "c4"])
    table = table.set_index(["task", "block_size"])
    assert table.value.notna().tolist() == [True, False, True, True]
    assert table.status["arc_easy", 2] == signals.NOT_ASKED
    variant = request.score("tiny-random", smoke, "arc_easy_symbols", Block(1, 2))
    assert not signals.needs_signal(variant)


def test_boolq_needs_only_to_be_ordered():
    """Always yes scores the floor, and yet the log-odds tell the answers apart: a signal."""
    answers = np.arange(60) % 2
    score = {"task": "boolq", "n": 60, "value": 0.5, "standard_error": 0.06, "chance": 0.5}
    score |= {"majority": 0.5, "floor": 0.5, "answers": answers}
    score["choices"] = [np.array([-3.0, -2.0 + answer]) for answer in answers]
    assert signals.largest_gap(score) > 4
    assert signals.largest_gap(score | {"task": "arc_easy"}) == 0


@pytest.mark.record
def test_boolq_is_healed_at_three_depths():
    """Figure 6, by a model whose log-odds order the questions."""
    healed = tables.read("healed", profiles.get("recorded"))
    boolq = healed[(healed.task == "boolq") & healed.value.notna()]
    assert boolq.groupby("model").block_size.nunique().max() >= 3


@pytest.mark.record
def test_every_recorded_row_has_a_value_or_its_reason():
    for name, rows in tables.read_all(tables.folder(profiles.get("recorded"))):
        if "status" in rows:
            assert tables.NotMeasured.status not in set(rows.status), name


def run_of(model: str, n: int, value=0.5) -> pd.DataFrame:
    """Return rows of `unhealed` with other numbers, as a run with n questions has them."""
    rows = tables.read("unhealed", profiles.get("recorded"), [model])
    return rows[rows.task == "arc_easy"].assign(n=n, value=value, standard_error=0.01)


@pytest.mark.parametrize("n, drawn", [(29, 0), (30, 1)])
def test_few_questions_are_not_drawn_and_the_record_stands_behind(n, drawn):
    quick = profiles.get("quick")
    rows = tables.to_draw(run_of(SMOLLM2, n), quick, "unhealed")
    figure = figures.figure_2_arc_easy(rows)
    own = figure.table[figure.table.model == SMOLLM2]
    assert own.value.notna().any() == drawn
    behind = figure.table[figure.table.model == f"recorded: {SMOLLM2}"]
    assert behind.value.notna().sum() > 9
    assert (behind.n >= tables.FEWEST).all()
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert "recorded: SmolLM2-135M" in texts
    assert ("SmolLM2-135M" in texts) == drawn
    lines = [line for axis in figure.axes for line, *_ in axis.containers]
    assert {line.get_alpha() for line in lines} == {0.35, 1.0 if drawn else 0.35}
    assert len({line.get_color() for line in lines}) == 3  # of as many models
    uncut = run_of(SMOLLM2, n).query("block_size == 0")
    shown = tables.or_recorded(uncut, quick, "unhealed")
    assert SMOLLM2 not in set(shown.model)
    losses = run_of(SMOLLM2, n).assign(task="c4")
    assert tables.without_few(losses).equals(losses)


@pytest.mark.record
def test_a_model_that_is_recorded_too_is_drawn_before_its_record():
    """In the figures that show one model of several: a run's own, not the recorded one."""
    model, quick = "qwen2.5-coder-1.5b", profiles.get("quick")
    forms, exits = (
        tables.to_draw(tables.read(name, profiles.get("recorded"), [model]), quick, name)
        for name in ("forms", "exits")
    )
    for figure in (letters.figure_letters(forms), letters.figure_cuts(exits, forms)):
        points = figure.table[figure.table.value.notna()].model.value_counts()
        assert points.index.str.removeprefix(tables.RECORD).unique().tolist() == [model]
        assert points[model] == points[tables.RECORD + model] > 30
