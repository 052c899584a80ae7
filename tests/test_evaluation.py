"""Prompts, answer tokens and scores, on the pinned data sets and the embedded tokenizer."""

import numpy as np
import pytest
from conftest import real_task

from lib import tasks
from lib.data import prompts, sets
from lib.evaluation import Task, weighted_mean
from replication import profiles

SMOKE = profiles.get("smoke")


def hendrycks(subject: str, dev: list[dict], row: dict, k: int) -> str:
    """The prompt as the original's evaluate.py makes it, written out from its three functions."""
    about = ""
    for word in subject.split("_"):
        about += " " + word

    def formatted(row, answered):
        text = row["question"]
        for letter, choice in zip("ABCD", row["choices"], strict=True):
            text += f"\n{letter}. {choice}"
        text += "\nAnswer:"
        return text + (" {}\n\n".format("ABCD"[row["answer"]]) if answered else "")

    head = f"The following are multiple choice questions (with answers) about {about}.\n\n"
    return head + "".join(formatted(dev[i], True) for i in range(k)) + formatted(row, False)


def test_mmlu_prompt_is_hendrycks_to_the_letter():
    """Two spaces, the question as it is (some begin or end with a space), k examples in order."""
    subjects = sets.mmlu("wheels", 57, 20)
    expected = []
    questions = []
    for subject, rows in subjects.items():
        expected += [hendrycks(subject, rows["dev"], row, 2) for row in rows["test"]]
        questions += [row["question"] for row in rows["test"]]
    task = real_task("mmlu", mmlu_subjects=57, mmlu_questions=20, mmlu_shots=2)
    assert [example["prompt"] for example in task.examples] == expected
    assert any(question != question.strip() for question in questions)


@pytest.mark.parametrize("name, answers", [("boolq", ["No", "Yes"]), ("mmlu", list("ABCD"))])
def test_choices_are_read_as_after_the_whole_prompt(smollm2, name, answers):
    """They are tokenised after its last line only, with their space."""
    task = real_task(name)
    rows = task.rows(smollm2)
    for example, (row,) in zip(task.examples, rows, strict=True):
        texts = [f"{example['prompt']} {answer}" for answer in answers]
        expected = smollm2(texts).input_ids
        read = [[*row.tokens, token] for token in row.target_ids[0]]
        assert read == expected


def test_prompts_by_content_fit_and_have_as_many_examples_as_by_letter(smollm2):
    counts = {"mmlu_subjects": 57, "mmlu_questions": 1, "mmlu_shots": 5}
    letters = real_task("mmlu", **counts).rows(smollm2)
    content = real_task("mmlu_content", **counts).rows(smollm2)
    every = [row for rows in letters + content for row in rows]
    assert max(len(row.tokens) for row in every) <= 2048
    left_out = [{row.num_shots_dropped for row in rows} for rows in content]
    assert left_out == [{row.num_shots_dropped} for (row,) in letters]
    assert {1} in left_out  # so something was shortened at all


def test_the_score_of_a_text_is_its_loss(monkeypatch):
    """A document that is there twice counts once, with twice its weight."""
    documents = ["abc", "defgh", "abc", ""]
    monkeypatch.setattr(prompts.sets, "c4", lambda *arguments: documents)
    examples = prompts.c4("wheels", 4, 9)
    task = Task("c4", tuple(examples))
    logprobs = [
        [-1.0, -3.0],
        [-3.0, -3.0, -3.0, -3.0],
        [-1.0, -3.0],
        [],
    ]
    outputs = [[np.array(of_text)] for of_text in logprobs]
    values, weights = task.scores(outputs)
    assert values.tolist() == [2, 3, 2, 0]
    assert weights.tolist() == [4, 4, 0, 0]


@pytest.mark.parametrize(
    "name, loglikelihoods, accuracy",
    [
        ("boolq", [[-1.0, -0.5, -2.0]], 1),
        ("boolq", [[-1.0, -1.0, -2.0]], 1 / 2),  # an exact tie
        ("arc_easy", [[-3.0], [-2.0, -2.0], [-9.0]], 0),  # the sum over tokens
        ("hellaswag", [[-3.0], [-4.0, -4.0], [-9.0]], 1),  # -1.5, -1 and -9 a character
    ],
)
def test_scores_of_choices(name, loglikelihoods, accuracy):
    task = Task(name, ({"choices": [" ab", " abcdefgh", " x"], "answer": 1, "weight": 1},))
    outputs = [np.array(of_row) for of_row in loglikelihoods]
    assert task.scores([outputs])[0].tolist() == [pytest.approx(accuracy)]


def test_mmlu_weights_count_subjects_alike():
    task = real_task("mmlu", mmlu_questions=150)
    by_subject = {}
    for example in task.examples:
        weights = by_subject.setdefault(example["group"], [])
        weights.append(example["weight"])
    assert len({len(weights) for weights in by_subject.values()}) > 1
    for weights in by_subject.values():
        assert sum(weights) == pytest.approx(1)


def test_an_example_of_weight_zero_counts_nothing():
    with_it = weighted_mean(np.array([1.0, 2, 5, 9]), np.array([1.0, 1, 2, 0]))
    assert with_it == weighted_mean(np.array([1.0, 2, 5]), np.array([1.0, 1, 2]))
    assert np.isnan(weighted_mean(np.ones(2), np.zeros(2))).all()


def test_a_task_is_registered_twice_but_not_another_of_its_name(monkeypatch):
    """A cell that is run again does the former. Of a call that fails nothing is left."""
    monkeypatch.setattr(tasks, "_specs", dict(tasks.TASK_SPECS))

    def row(label="Riddles"):
        return tasks.multiple_choice("arc_easy", dict, label)

    tasks.register({"riddles": row()})
    tasks.register({"riddles": row()})
    with pytest.raises(ValueError, match="There is a task 'riddles' already"):
        tasks.register({"puns": row("Puns"), "riddles": row("Others")})
    assert "puns" not in tasks._specs


def test_chance_and_majority():
    assert real_task("mmlu").chance(100) == 0.25
    assert real_task("c4").chance(32_000) == pytest.approx(10.3735, abs=1e-4)
    boolq = real_task("boolq", boolq_questions=3270)
    assert boolq.chance(100) == 0.5
    assert boolq.majority == pytest.approx(0.62, abs=0.005)


def test_evenly_spaced_reaches_the_end_of_a_sorted_file():
    numbers = list(range(10))
    assert sets.evenly_spaced(numbers, 4) == [0, 2, 5, 7]


def test_healing_and_measuring_share_no_document():
    held_out = set(sets.c4("validation", "wheels", None))
    assert not set(sets.healing_texts("wheels", 10**6)) & held_out
    assert {example["text"] for example in real_task("c4").examples} <= held_out
