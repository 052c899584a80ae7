"""What a score tells beyond its value: answers, ties, margins, floors; stored small."""

from dataclasses import replace
from itertools import chain

import numpy as np
import pandas as pd
import pytest
from conftest import measured_scores, real_task, score
from scipy.stats import mannwhitneyu

from lib import evaluation
from lib.blocks import Block
from lib.evaluation import KINDS, Task
from lib.models import loading
from lib.sweep import baseline_scores
from replication import analysis, profiles
from replication.analysis import curves

COUNTS = {"arc_easy_questions": 6, "hellaswag_questions": 6}
ONE, TWO = {"answer": 0, "weight": 1}, {"answer": 1, "weight": 3}
LETTERS = [example | {"choices": [" A", " B", " C"]} for example in (ONE, ONE, TWO)]
TEXTS = [example | {"choices": [" no", " \u00e4hhh"]} for example in (ONE, TWO)]


def test_what_the_answers_tell():
    """With the weights of the score: the last question counts three times."""
    probabilities = [[0.5, 0.25, 0.25], [0.4, 0.4, 0.2], [0.2, 0.2, 0.6]]
    stats = Task("boolq", LETTERS).answer_stats([np.log(p) for p in probabilities])
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


def test_the_choices_own_likelihood():
    """Of each choice after "Answer:" alone, by the unpruned model; scored as the task is."""
    model, tokenizer = loading.load("tiny-random", dtype="float32", device="cpu")
    task = real_task("hellaswag", **COUNTS)
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


def test_no_blind_baseline_reads_its_question(smollm2):
    """Rows hold "Answer:" and a choice, whatever else an example of the task holds."""
    blind = tuple(smollm2("Answer:").input_ids)
    completing = [name for name, kind in KINDS.items() if kind.completes and not kind.score]
    for name in completing:
        questions = real_task(name).without_question().rows(smollm2)
        for row in chain.from_iterable(questions):
            choice = tuple(token for (token,) in row.target_ids)
            assert row.tokens == (*blind, *choice[:-1]), name


# ---- what is stored ------------------------------------------------------------------------


def test_a_stored_score_says_what_was_answered(output):
    profile = replace(profiles.get("smoke"), **COUNTS)
    table = measured_scores("tiny-random", profile, [Block(1, 2)], ["arc_easy", "c4"])
    unpruned, pruned, c4, _ = table.itertuples()
    task = real_task("arc_easy", **COUNTS)
    assert list(pruned.answers) == [example["answer"] for example in task.examples]
    pairs = zip(pruned.choices, pruned.answers, strict=True)
    again = [evaluation.accuracy_with_ties(choices, answer) for choices, answer in pairs]
    assert again == list(pruned.examples)
    assert np.average(again, weights=pruned.weights) == pytest.approx(pruned.value)
    assert unpruned.floor >= unpruned.chance
    assert unpruned.floor >= max(task.baselines().values())
    assert c4.floor == c4.chance


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
    asked = {"answers": answers, "choices": choices, "examples": odds, "weights": np.ones(80)}
    boolq = score(0, 70, task="boolq", chance=0.5, majority=0.6, commonest=1.0, **asked)
    (row,) = analysis.boolq_ranking(pd.DataFrame([boolq])).to_dict("records")
    yes, no = odds[answers == 1], odds[answers == 0]
    area = mannwhitneyu(yes, no).statistic / len(yes) / len(no)
    assert row["value"] == pytest.approx(area)
    assert np.mean(row["examples"]) == pytest.approx(area)
    assert row["floor"] == row["chance"] == 0.5
    pairs = np.array([[(a > b) + (a == b) / 2 for b in no] for a in yes])
    of_yes = pairs.mean(axis=1).var(ddof=1) / len(yes)
    of_no = pairs.mean(axis=0).var(ddof=1) / len(no)
    assert row["standard_error"] == pytest.approx(np.sqrt(of_yes + of_no), rel=0.01)
