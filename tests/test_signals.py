"""What is asked of which model, and what stands behind a run's own points."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import Distances, measured_scores, note_above

from lib import tasks
from lib.blocks import UNPRUNED, Block
from lib.data import sets
from replication import claims, figures, paths, profiles, tables
from replication.beyond import letters
from replication.measure import experiments, request, scores, signals
from replication.measure.signals import Known
from replication.run.jobs import by_job
from replication.run.notebooks import NOTEBOOKS

SMOLLM2, QWEN = "smollm2-135m", "qwen2.5-coder-1.5b"


def tasks_of(name: str) -> set:
    """Return the tasks of all requests of `quick`."""
    profile = profiles.get("quick", [name])
    jobs = by_job(name, profile, NOTEBOOKS, Distances(30))
    tasks = {one.params.get("task") for requests in jobs.values() for one in requests}
    return tasks - {None}


def test_quick_asks_smollm2_what_it_can_answer_and_others_more():
    quick = profiles.get("quick")
    assert tasks_of(SMOLLM2) == {"arc_easy", "c4"}
    assert {"mmlu", "boolq", "arc_easy", "c4"} <= tasks_of("olmo-2-1b")
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
    assert table.status["arc_easy", 2] == "no answer: the whole model is no better than its floor"
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


def whole(gap: float, **columns) -> dict:
    """Return a whole model's score of ARC-Easy so many standard errors above its floor."""
    score = {"model": SMOLLM2, "task": "arc_easy", "block_size": 0, "steps": 0, "n": 90}
    score |= {"value": 0.25 + gap * 0.05, "standard_error": 0.05, "floor": 0.25}
    score["request"] = '{"questions": 90}'
    return score | {"chance": 0.25, "majority": 0.25, "choices": None, "answers": None} | columns


def test_the_record_knows_the_clearest_score_of_a_whole_model(tmp_path, monkeypatch):
    """Of more questions, say; not one of a cut or a healed model."""
    monkeypatch.setattr(paths, "RECORDED", tmp_path)
    others = whole(9, block_size=3), whole(9, steps=8), whole(np.nan)
    some = whole(3, n=170, request='{"questions": 10, "subjects": 18}')
    for name, rows in {"few": [whole(2), *others], "many": [whole(6)], "some": [some]}.items():
        place = tables.file(name, profiles.get("recorded"))
        tables.write_file(pd.DataFrame(rows), place)
    (known,) = signals.recorded.__wrapped__().values()
    assert known == (pytest.approx(6), 170, 180)


@pytest.mark.parametrize("is_recorded", [True, False])
@pytest.mark.parametrize(
    "gap, why",
    [
        (0.5, "no answer: the whole model is no better than its floor"),
        (1.5, "no answer: 90 questions do not tell the whole model from its floor"),
        (3.9, "no answer: 90 questions do not tell the whole model from its floor"),
        (4.1, None),
    ],
)
def test_a_cut_is_asked_where_the_whole_model_is_four_errors_above_its_floor(
    monkeypatch, is_recorded, gap, why
):
    quick = profiles.get("quick")
    known = Known(gap, 90, quick.arc_easy_questions)
    monkeypatch.setattr(
        signals, "recorded", lambda: {(SMOLLM2, "arc_easy"): known} if is_recorded else {}
    )
    monkeypatch.setattr(signals.results, "load", lambda *_: [whole(gap)])
    cut = request.score(SMOLLM2, quick, "arc_easy", Block(3, 2))
    cut = replace(cut, params=cut.params | {"revision": "that of the weights"})
    assert signals.why_futile(cut) == why
    assert signals.is_futile(cut) == bool(why)


@pytest.mark.parametrize(
    "gap, questions, decides", [(2.6, 50, True), (2.6, 16, False), (1, 16, True), (6, 16, True)]
)
def test_what_few_recorded_questions_do_not_tell_more_may(monkeypatch, gap, questions, decides):
    """GSM8K: 16 problems did not tell the 1.5B from 0, and 50 were never asked for it."""
    known = {(SMOLLM2, "gsm8k"): Known(gap, questions, questions)}
    monkeypatch.setattr(signals, "recorded", lambda: known)
    overnight = replace(profiles.get("overnight"), gsm8k_generated=50)
    cut = request.score(SMOLLM2, overnight, "gsm8k", Block(3, 2))
    assert signals.needs_signal(cut)
    assert signals.is_known(cut) == decides


def test_the_whole_model_of_a_cut_is_no_healed_one():
    """It is asked the same, whatever repairs the cut."""
    quick = profiles.get("quick")
    of = SMOLLM2, quick, "arc_easy"
    healing = profiles.recipe(SMOLLM2, quick)
    cuts = [
        request.score(*of, Block(3, 2)),
        request.score(*of, Block(3, 2), healing),
        request.mapped(*of, Block(3, 2), "full"),
    ]
    for cut in cuts:
        assert signals.whole_of(cut).params == request.score(*of, UNPRUNED).params


def test_claims_judge_no_accuracy_that_is_not_drawn(tmp_path, monkeypatch):
    """Of fewer than 30 questions; a loss of 20 texts they do."""
    monkeypatch.setattr(paths, "TABLES", tmp_path)
    recorded = tables.read("unhealed", profiles.get("recorded"), [SMOLLM2])
    for n, judged in ((29, {"c4"}), (30, {"c4", "arc_easy"})):
        accuracies = recorded[recorded.task == "arc_easy"].assign(n=n)
        losses = recorded[recorded.task == "c4"].assign(n=20)
        tables.write(pd.concat([accuracies, losses]), "unhealed", profiles.get("quick"))
        scores = claims.gather(profiles.get("quick")).tables["scores"]
        assert set(scores.task) == judged


@pytest.mark.parametrize("draw", [figures.figure_1d, figures.figure_5], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", [SMOLLM2, "olmo-2-1b"])
def test_beside_a_run_stands_the_recorded_model_that_answers_all(draw, name):
    """Figures 1d and 5: MMLU, BoolQ (its accuracy is the paper's axis) and the loss, in full
    strength; behind a model of the run its own record."""
    own = run_of(SMOLLM2, 90).assign(model=name)
    rows = tables.to_draw(own, profiles.get("quick"), "unhealed", "healed")
    figure = draw(rows, [name])
    tasks = {"mmlu", "boolq", "boolq_ranking", "arc_easy", "c4"}
    cuts = figure.table[(figure.table.block_size > 0) & figure.table.value.notna()]
    beside = cuts[cuts.model == f"recorded: {QWEN}"]
    assert set(beside[beside.treatment == "healed"].task) == tasks
    full = [line for axis in figure.axes for line, *_ in axis.containers if line.get_alpha() == 1]
    drawn = {tuple(line.get_ydata()) for line in full}
    whole = rows[(rows.model == f"recorded: {QWEN}") & (rows.block_size == 0)]
    for task in ("mmlu", "boolq", "arc_easy"):
        assert whole.set_index("task").value[task] in {values[0] for values in drawn}
    above = note_above(figure)
    assert "Qwen2.5-Coder-1.5B" in above and above.endswith("all points are the recorded run's.")
    pale = [line for axis in figure.axes for line, *_ in axis.containers if line.get_alpha() < 1]
    assert bool(pale) == (name == SMOLLM2)


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
    assert not [text for axis in figure.axes for text in axis.texts]  # none on a curve
    names = [text.get_text() for text in figure.legends[0].texts]
    assert "recorded: SmolLM2-135M" in names
    assert ("SmolLM2-135M" in names) == drawn
    lines = [line for axis in figure.axes for line, *_ in axis.containers]
    assert {line.get_alpha() for line in lines} == {0.35 if drawn else 1.0, 1.0}
    own_lines = [line for line in lines if set(line.get_ydata()) == {0.5}]
    assert [line.get_alpha() for line in own_lines] == [1.0] * drawn
    said = "Qwen2.5-Coder: all" if drawn else "All"
    assert f"{said} points are the recorded run's." in note_above(figure)
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
        assert points.index.str.removeprefix(tables.RECORD_PREFIX).unique().tolist() == [model]
        assert points[model] == points[tables.RECORD_PREFIX + model] > 30


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_a_task_whose_questions_a_source_lacks_is_left_out_with_a_status(name, output, monkeypatch):
    """In every profile: nothing of it is planned or measured, and its rows say why."""
    on_hub = sets.Hub("someone/riddles", "data/{split}-*.parquet", "main")
    monkeypatch.setitem(tasks._specs, "riddles", tasks.multiple_choice(on_hub, dict, "Riddles"))
    profile = replace(profiles.PROFILES[name], models=("tiny-random",))
    requests = experiments.unhealed("tiny-random", Distances(), profile, ["riddles"])
    if profile.source == "hub":
        assert signals.to_measure(requests) == requests
        return
    assert requests and not signals.to_measure(requests) and not signals.to_measure_first(requests)
    table = scores.table(requests)
    assert set(table.status) == {"its questions are not in the wheels"}
    assert table.value.isna().all()
