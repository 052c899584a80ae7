"""The answer at the options' ends: states against a forward pass, the probe on made-up states."""

from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Distances, three_questions

from lib import evaluation
from lib.blocks import UNPRUNED, Block
from lib.models import loading
from lib.pruning import dropped
from lib.sweep import sweep
from replication import profiles
from replication.beyond.letters import option_ends, option_lines, probes, readings, route, states
from replication.measure import fetching

SMOKE = profiles.get("smoke")
N = 300


@pytest.mark.parametrize("block", [Block(2, 3), Block(5, 3)], ids=["within", "with the last"])
def test_states_and_letters_are_those_of_each_exit_of_the_cut_model(block):
    """HF's own forward, whose last hidden state is after the norm, without the deeper layers: at
    the last token, and at the newline of each option's line."""
    model, tokenizer = loading.load("tiny-random", dtype="float32")
    task, depths = three_questions(), [*range(block.stop, 9)]
    read = states.read_at_option_ends(model, tokenizer, task, [UNPRUNED, block], 2048)
    assert read[UNPRUNED]["depths"].tolist() == [*range(1, 9)]
    arrays = read[block]
    assert arrays["depths"].tolist() == depths
    assert len(arrays["states"]) == len(arrays["letters"]) == len(depths)
    for place, depth in enumerate(depths):
        with dropped(model, block), dropped(model, Block(depth - 3, 8 - depth)):
            (letters,) = sweep(model, tokenizer, [UNPRUNED], [task]).choices
            for i, example in enumerate(task.examples):
                ids = torch.tensor([tokenizer(example["prompt"]).input_ids])
                lines = example["prompt"].split("\n")
                assert [line[:2] for line in lines[-5:-1]] == ["A.", "B.", "C.", "D."]
                until = ["\n".join(lines[:stop]) + "\n" for stop in range(-4, 0)]
                ends = [len(tokenizer(text).input_ids) - 1 for text in until]
                final = model.get_decoder()(input_ids=ids).last_hidden_state[0, [*ends, -1]]
                np.testing.assert_allclose(arrays["states"][place, i], final.detach(), atol=5e-3)
        np.testing.assert_allclose(arrays["letters"][place], np.stack(letters), atol=1e-4)


def by_number(answers: np.ndarray) -> np.ndarray:
    """Folds that do not depend on the answers."""
    return np.arange(len(answers)) % 5


def test_the_option_that_is_right_is_read_by_a_probe_that_all_options_share(monkeypatch):
    """Planted in a direction, under what the question as a whole does; not in shuffled answers."""
    draw = np.random.default_rng(0)
    answers = draw.integers(4, size=N)
    inputs = draw.normal(size=(N, 4, 60)) + 5 * draw.normal(size=(N, 1, 60))
    inputs[np.arange(N), answers, :3] += 8
    readings = probes.cross_fitted_options(inputs, answers, shuffles=20, factors=[10.0])
    for chosen, labels, _ in readings:
        assert (chosen[0] == labels[0]).mean() > 0.8
    shuffled = (readings[0][0][1:] == readings[0][1][1:]).mean(axis=1)
    assert shuffled.max() < 0.4 and 0.2 < shuffled.mean() < 0.3
    assert readings[1][2] == pytest.approx(10 * readings[0][2])
    # a question has no part in the probe that reads it
    monkeypatch.setattr(probes, "stratified", by_number)
    inputs = draw.normal(size=(N, 4, 60))
    changed, first = answers.copy(), by_number(answers) == 0
    changed[first] = (answers[first] + 1) % 4
    before, after = (probes.cross_fitted_options(inputs, of)[0][0][0] for of in (answers, changed))
    assert np.array_equal(before[first], after[first])
    assert not np.array_equal(before, after)


def test_folds_hold_each_place_alike():
    answers = np.repeat([0, 1, 2, 3], [50, 10, 25, 15])
    folds = probes.stratified(answers)
    counts = np.array([np.bincount(answers[folds == fold], minlength=4) for fold in range(5)])
    assert (np.ptp(counts, axis=0) == 0).all()


def test_what_an_option_shares_with_its_question_by_hand():
    prompt = "Question: old one\nA. x\nAnswer: A\n\nWhat is a red thing?\nA. a red one\nB. blue"
    example = {"prompt": f"{prompt}\nAnswer:", "choices": [" A", " B"], "answer": 0}
    question, options = option_lines.lines_of(example)
    assert question.strip() == "What is a red thing?" and options == ["a red one", "blue"]
    inputs = option_ends.lengths_and_words(evaluation.Task("mmlu", (example,)))
    assert (inputs[0, 0] > inputs[0, 1]).all()  # longer, and with "a" and "red"


def test_every_depth_is_measured_kept_and_drawn(output, monkeypatch):
    requests = option_ends.option_ends("tiny-random", Distances(start=1), SMOKE)
    reader = Mock(wraps=states.read_at_option_ends)
    monkeypatch.setattr(states, "read_at_option_ends", reader)
    table = readings.table(requests)
    assert reader.call_count == len(option_ends.TASKS)  # one pass has all cuts of a task
    assert table.value.notna().all()
    by_letter = table[table.task == "arc_easy_letters"]
    whole, cut = by_letter[by_letter.block_size == 0], by_letter[by_letter.block_size == 3]
    everywhere = {"letters", "at the last token", "at the options", *option_ends.CONTROLS}
    assert set(whole.reading) == everywhere | {option_ends.GAUSSIAN, option_ends.WORDS}
    assert whole[whole.reading == "letters"].depth.tolist() == [*range(1, 9)]
    assert set(cut[cut.strategy == "similarity"].depth) == {4, 5, 6, 7, 8}
    monkeypatch.setitem(fetching.MEASURE, "option_ends", lambda *a: pytest.fail("again"))
    again = readings.table(requests)
    assert again.value.tolist() == table.value.tolist()
    assert set(option_ends.figure_options(again).table.reading) == {*option_ends.LOOKS}
    moved = again.assign(reading="as it is", layers=None)
    drawn = route.figure_route(again, moved).table
    assert set(drawn.reading) == {*route.LANES}
    of_exit = drawn[drawn.panel.str.endswith("early exit")]
    assert set(of_exit.depth) == {*range(1, 9 - int(of_exit.block_size.max()))}


ROUTE = {  # of each panel, what the four places score at its last depth; and what is lost first
    "whole": ([0.8, 0.8, 0.8, 0.8], None),
    "hidden": ([0.8, 0.8, 0.8, 0.4], route.ACCURACY),
    "unwritten": ([0.8, 0.8, 0.3, 0.3], route.UNBIASED),
    "not carried": ([0.8, 0.5, 0.5, 0.5], route.LAST),
}


@pytest.mark.parametrize("name", ROUTE)
def test_an_answer_is_lost_where_less_than_half_of_a_lead_arrives(name):
    values, lost = ROUTE[name]
    panel = pd.DataFrame({"reading": list(route.LANES), "value": values, "depth": 8})
    passed = route.handed_on(panel)
    assert next(iter(passed.index[passed < route.HALF]), None) == lost
