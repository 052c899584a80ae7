"""What a score tells beyond its value: answers, ties, margins, floors."""

from dataclasses import replace
from itertools import chain

import numpy as np
import pandas as pd
import pytest
from conftest import measured_scores, real_task, score
from scipy.stats import mannwhitneyu

from lib.evaluation import TASK_SPECS, Task
from lib.models import loading
from lib.sweep import baseline_scores
from replication import analysis, profiles
from replication.analysis import curves

ONE = {"answer": 0, "weight": 1}
TWO = {"answer": 1, "weight": 3}
A_TO_C = {"choices": [" A", " B", " C"]}
LETTERS = [ONE | A_TO_C, ONE | A_TO_C, TWO | A_TO_C]
WORDS = {"choices": [" no", " \u00e4hhh"]}
TEXTS = [ONE | WORDS, TWO | WORDS]


def test_what_the_answers_tell():
    """With the weights of the score: the last question counts three times."""
    probabilities = [
        [0.5, 0.25, 0.25],
        [0.4, 0.4, 0.2],
        [0.2, 0.2, 0.6],
    ]
    loglikelihoods = [np.log(of_question) for of_question in probabilities]
    stats = Task("boolq", LETTERS).answer_stats(loglikelihoods)
    assert stats["ties"] == 1
    assert stats["commonest"] == pytest.approx(3 / 5)


def test_margin_is_of_what_is_compared_and_bytes_are_of_the_text():
    """Compared are log-likelihoods per character, of 2 and 4; the answers have 2 and 5 bytes."""
    loglikelihoods = [np.array([-2.0, -3.0]), np.array([-4.0, -2.0])]
    stats = Task("hellaswag", TEXTS).answer_stats(loglikelihoods)
    margins = [-1 + 0.75, -0.5 + 2]
    assert stats["margin"] == pytest.approx(np.average(margins, weights=[1, 3]))
    nats, length = 2 + 3 * 2, 2 + 3 * 5
    assert stats["bits_per_byte"] == pytest.approx(nats / np.log(2) / length)


def test_floors_that_need_no_model():
    assert Task("boolq", LETTERS).baselines() == {"letter": 3 / 5}
    first = ONE | {"choices": [" yes", " no"]}
    second = TWO | {"choices": [" up", " on", " x"]}
    floors = Task("arc_easy", [first, second]).baselines()
    assert floors == {"letter": 3 / 4, "shortest": 0}
    tied = ONE | {"choices": [" on", " no", " yes"]}
    assert Task("arc_easy", [tied]).baselines()["shortest"] == 1 / 2


def test_the_choices_own_likelihood(output):
    """Of each choice after "Answer:" alone, by the unpruned model; scored as the task is.

    The floor of a score is the best that reads no question; of a loss it is that of guessing.
    """
    model, tokenizer = loading.load("tiny-random", dtype="float32", device="cpu")
    task = real_task("hellaswag", hellaswag_questions=6)
    start = len(tokenizer("Answer:").input_ids)
    right = []
    for example in task.examples:
        likelihoods = []
        for choice in example["choices"]:
            ids = tokenizer("Answer:" + choice, return_tensors="pt").input_ids
            scores = model(ids).logits[0, start - 1 : -1].log_softmax(-1)
            own = scores.gather(1, ids[0, start:, None]).sum().item()
            likelihoods.append(own / len(choice.strip()))
        right.append(np.argmax(likelihoods) == example["answer"])
    baselines = baseline_scores(model, tokenizer, task, 256)
    assert baselines["own"] == pytest.approx(np.mean(right))
    profile = replace(profiles.get("smoke"), hellaswag_questions=6)
    table = measured_scores("tiny-random", profile, [], ["hellaswag", "c4"])
    assert table.floor.tolist() == [max(0.25, *baselines.values()), table.chance[1]]


def test_no_blind_baseline_reads_its_question(smollm2):
    """Rows hold "Answer:" and a choice, whatever else an example of the task holds."""
    blind = tuple(smollm2("Answer:").input_ids)
    completing = [name for name, spec in TASK_SPECS.items() if spec.completes and not spec.score]
    for name in completing:
        questions = real_task(name).without_question().rows(smollm2)
        for row in chain.from_iterable(questions):
            choice = tuple(token for (token,) in row.target_ids)
            assert row.tokens == (*blind, *choice[:-1]), name


# ---- floors in figures and verdicts --------------------------------------------------------


@pytest.mark.parametrize(
    "known, floor, gap",
    [
        ({"majority": np.nan}, 0.25, 7.5),
        ({"majority": 0.38}, 0.38, 1),
        ({"majority": 0.38, "floor": 0.35}, 0.35, 2.5),
        ({"task": "c4", "value": 3.0, "floor": 10.0}, 10.0, 350),
    ],
)
def test_the_floor_decides_where_it_is_known(known, floor, gap):
    """A score has its gap above the floor, a loss below."""
    fixed = {"task": "boolq", "value": 0.40, "standard_error": 0.02, "chance": 0.25}
    score = pd.Series(fixed | known)
    assert curves.floor(score) == floor
    assert curves.gap(score) == pytest.approx(gap)
    assert curves.no_signal(score) == (gap < 4)


def test_the_ranking_of_boolq_is_the_area_under_the_roc_curve():
    """Against scipy's U, and DeLong's standard error as his paper has it."""
    draw = np.random.default_rng(0)
    answers = draw.integers(2, size=80)
    odds = np.round(draw.normal(answers, 1.5), 1)  # rounded, so that some are equal
    choices = [np.array([0.0, o]) for o in odds]
    questions = {"answers": answers, "choices": choices, "examples": odds, "weights": np.ones(80)}
    boolq = score(0, 70, task="boolq", chance=0.5, majority=0.6, commonest=1.0, **questions)
    (row,) = analysis.boolq_ranking(pd.DataFrame([boolq])).to_dict("records")
    yes, no = odds[answers == 1], odds[answers == 0]
    area = mannwhitneyu(yes, no).statistic / len(yes) / len(no)
    assert row["value"] == pytest.approx(area)
    assert np.mean(row["examples"]) == pytest.approx(area)
    assert row["floor"] == row["chance"] == 0.5
    lead = yes[:, None] - no
    pairs = np.sign(lead) / 2 + 0.5
    of_yes = pairs.mean(axis=1).var(ddof=1) / len(yes)
    of_no = pairs.mean(axis=0).var(ddof=1) / len(no)
    error = np.sqrt(of_yes + of_no)
    assert row["standard_error"] == pytest.approx(error, rel=0.01)
