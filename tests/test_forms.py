"""The same questions asked in other ways: by letter and by content, with and without a passage."""

import numpy as np
import pandas as pd
import pytest
from conftest import Distances, real_task, score

from replication import analysis, profiles
from replication.beyond import books, letters
from replication.beyond.letters import MEASURES
from replication.measure import experiments, scores

SMOKE = profiles.get("smoke")


def test_both_forms_ask_the_same_questions():
    """The answer by letter is the line of the answer's text."""
    examples = {}
    for task in ("mmlu", "mmlu_content", "arc_easy", "arc_easy_letters"):
        examples[task] = real_task(task, arc_easy_questions=570).examples
    assert len(examples["arc_easy"]) == 565  # five are solved examples
    for by_letter, by_content in (("mmlu", "mmlu_content"), ("arc_easy_letters", "arc_easy")):
        for one, other in zip(examples[by_letter], examples[by_content], strict=True):
            assert (one["answer"], one["weight"]) == (other["answer"], other["weight"])
            choices = zip(one["choices"], other["choices"], strict=True)
            listed = "".join(f"\n{letter[1:]}. {text[1:]}" for letter, text in choices)
            assert one["prompt"].endswith(f"{listed}\nAnswer:")


def test_the_test_split_asks_other_questions():
    """ARC-Easy's test split, of a file of requests: four or so to each question."""
    test = real_task("arc_easy_test", arc_easy_test_questions=9999, arc_easy_shots=0).examples
    validation = real_task("arc_easy", arc_easy_questions=570, arc_easy_shots=0).examples
    assert len(test) == 2376
    prompts = {example["prompt"] for example in test}
    assert not prompts & {example["prompt"] for example in validation}


def test_a_closed_book_is_asked_without_its_passage():
    books_of = {r.params["task"]: r.labels["book"] for r in books.books("m", Distances(), SMOKE)}
    for task, closed in books.CLOSED.items():
        assert (books_of[task], books_of[closed]) == ("open", "closed")
        pairs = zip(real_task(task).examples, real_task(closed).examples, strict=True)
        assert all(one["prompt"].endswith(f"\n{other['prompt']}") for one, other in pairs)


def test_no_place_gives_sciq_away():
    places = [example["answer"] for example in real_task("sciq", book_questions=12).examples]
    assert np.bincount(places).tolist() == [3, 3, 3, 3]


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


def test_the_share_kept_of_both_forms_and_their_difference():
    both = pd.concat([table("letters", [75, 25, 25]), table("content", [75, 75, 50])])
    shares = analysis.kept(both, "form").set_index(["form", "block_size"])
    assert shares.kept["letters", 1] == pytest.approx(0)
    assert shares.kept["content"].tolist() == pytest.approx([1, 0.5])
    assert shares.apart["content", 1] == pytest.approx(1)
    assert shares.apart_low["content", 1] > 0
    assert np.isnan(shares.apart["letters", 1])
    pair = pd.concat([table("letters", [26, 25]), table("content", [75, 70])])
    silent = analysis.kept(pair, "form").set_index("form").kept.isna()
    assert silent.to_dict() == {"letters": True, "content": False}


def test_the_forms_are_compared_at_the_same_cuts():
    """Where one form was not asked at a depth, as after a time limit."""
    by_letter = table("letters", [75, 60, 50, 25])
    both = pd.concat([by_letter[by_letter.block_size != 2], table("content", [75, 60, 50, 25])])
    differences = analysis.kept(both, "form").set_index(["form", "block_size"]).apart["content"]
    assert differences.fillna(-1).tolist() == pytest.approx([0, -1, 0])


def test_measures_of_stored_answers_are_those_of_the_scores(output):
    """Accuracy, margin and bits per byte as `Task.answer_stats` has them, from what was stored."""
    unpruned = scores.table(experiments.unpruned("tiny-random", SMOKE, ["mmlu", "arc_easy"]))
    again = letters.measures(unpruned)
    columns = ("value", "margin", "commonest", "bits_per_byte")
    for column, measure in zip(columns, MEASURES, strict=True):
        mine = again[again.measure == measure].set_index("task").value
        theirs = unpruned.set_index("task")[column]
        np.testing.assert_allclose(mine, theirs[mine.index], atol=2e-3)
