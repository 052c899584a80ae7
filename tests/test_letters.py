"""Biases of letters on made-up answers: a known one is found and removed; nothing appears alone."""

import numpy as np
import pandas as pd
import pytest
from conftest import Distances, real_task

from lib.blocks import UNPRUNED, Block
from replication import profiles
from replication.analysis import paired
from replication.beyond import biases, books, last_layers, orders
from replication.measure import request

N, LETTERS = 1000, 4
BIAS = np.array([0.0, 6.0, -3.0, 1.0])
WEIGHTS = np.ones(N)
OVERNIGHT = profiles.get("overnight")


def made_up(knowledge: float, bias=0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihoods of N questions, the right letter `knowledge` nats higher, and answers."""
    draw = np.random.default_rng(seed)
    answers = draw.integers(LETTERS, size=N)
    loglikelihoods = draw.normal(size=(N, LETTERS)) + bias
    loglikelihoods[np.arange(N), answers] += knowledge
    return loglikelihoods + draw.normal(size=(N, 1)), answers  # what a question's letters share


def score(loglikelihoods: np.ndarray, answers: np.ndarray, **columns) -> dict:
    """A score as tables have it; by default of the unpruned model."""
    return {
        "model": "m",
        "questions": "recorded",
        "strategy": "none",
        "treatment": "unpruned",
        "block_size": 0,
        "fraction": 0.0,
        "task": "mmlu",
        "value": 0.5,
        "choices": list(loglikelihoods),
        "answers": answers.tolist(),
        "weights": WEIGHTS,
        **columns,
    }


# ---- biases --------------------------------------------------------------------------------


def test_a_known_bias_is_found_and_removed():
    plain, answers = made_up(1.5)
    biased, _ = made_up(1.5, BIAS)
    assert biases.correct(biased, answers).mean() < 0.35
    assert biases.commonest_share(biased, WEIGHTS) > 0.9
    unbiased = biases.without_bias(biased, WEIGHTS)
    expected = biases.correct(plain, answers).mean()
    assert biases.correct(unbiased, answers).mean() == pytest.approx(expected, abs=0.02)
    assert biases.commonest_share(unbiased, WEIGHTS) < 0.32


def test_where_nothing_is_known_nothing_appears():
    nothing, answers = made_up(0.0, BIAS)
    unbiased = biases.without_bias(nothing, WEIGHTS)
    assert biases.correct(unbiased, answers).mean() == pytest.approx(0.25, abs=0.05)
    assert biases.letter_auc(nothing, answers).mean() == pytest.approx(0.5, abs=0.05)


def test_a_question_does_not_correct_itself():
    """Its own fold has no part in its bias: an outlier moves others, not its own fold."""
    loglikelihoods, _ = made_up(0.0)
    moved = loglikelihoods.copy()
    moved[0] += np.array([500.0, 0, 0, 0])
    before = biases.without_bias(loglikelihoods, WEIGHTS)
    after = biases.without_bias(moved, WEIGHTS)
    own = biases.fold_of(N) == 0
    own[0] = False
    assert np.array_equal(before[own], after[own])
    assert not np.allclose(before[~own][1:], after[~own][1:])


def test_weights_are_those_of_the_score():
    loglikelihoods, _ = made_up(0.0)
    weights = np.where(np.arange(N) < N // 2, 1.0, 0.0)
    unbiased = biases.without_bias(loglikelihoods, weights)
    relative = loglikelihoods - loglikelihoods.mean(axis=1, keepdims=True)
    others = (biases.fold_of(N) != 3) & (weights > 0)
    assert unbiased[3] == pytest.approx(relative[3] - relative[others].mean(axis=0))


def test_the_auc_of_a_letter_by_hand():
    """Leads of the first letter: 3, 1 where it is right; 2, 0 where it is wrong. 3 of 4 pairs.

    The leads of the second letter are these with the other sign, so its pairs are the same.
    """
    loglikelihoods = np.array([[3.0, 0], [1, 0], [2, 0], [0, 0]])
    influences = biases.letter_auc(loglikelihoods, np.array([0, 0, 1, 1]))
    assert influences.mean() == pytest.approx(0.75)


def test_a_bias_does_not_move_the_auc_of_a_letter():
    plain, answers = made_up(1.0)
    biased, _ = made_up(1.0, BIAS)
    auc = biases.letter_auc(plain, answers)
    assert biases.letter_auc(biased, answers) == pytest.approx(auc)
    assert auc.mean() > 0.7


def test_the_error_of_the_auc_is_that_of_repetitions():
    repetitions = [biases.letter_auc(*made_up(1.0, seed=seed)) for seed in range(40)]
    errors = [influences.std() / np.sqrt(N) for influences in repetitions]
    spread = np.std([influences.mean() for influences in repetitions], ddof=1)
    assert np.mean(errors) == pytest.approx(spread, rel=0.3)


def exits() -> pd.DataFrame:
    """Scores along an exit: a bias comes at the second layer, knowledge is lost at the third."""
    knowledge, bias, rows = [2.0, 2.0, 2.0, 0.0, 0.0], [0, 0, 1, 1, 1], []
    for questions, seed in (("recorded", 0), ("other", 1)):
        for size in range(5):
            answered = made_up(knowledge[size], bias[size] * BIAS, seed=seed)
            pruned = {"treatment": "unhealed", "strategy": "early exit"} if size else {}
            cut = {"questions": questions, "block_size": size, "fraction": size / 8}
            rows.append(score(*answered, **cut, **pruned))
    return pd.DataFrame(rows)


def test_a_bias_is_told_from_a_loss_of_knowledge():
    measured = biases.letter_measures(exits())
    of_sets = measured.assign(task=measured.questions)
    gains = paired(of_sets, "measure", biases.ACCURACY, biases.UNBIASED)
    gains = gains.set_index(["task", "block_size"]).difference
    assert gains["other", 1] == pytest.approx(0, abs=0.03)
    assert gains["other", 2] > 0.2 and gains["recorded", 2] > 0.2
    assert gains["other", 3] == pytest.approx(0, abs=0.05)
    halves = biases.halves(measured).set_index(["measure", "questions"]).fraction
    for questions in biases.QUESTIONS:
        assert halves[biases.ACCURACY, questions] < 2 / 8
        for measure in (biases.UNBIASED, biases.AUC):
            assert 2 / 8 < halves[measure, questions] < 3 / 8


def test_questions_with_another_number_of_letters_are_left_out():
    loglikelihoods, answers = made_up(1.5, BIAS)
    odd = score([*loglikelihoods[:-1], np.zeros(3)], answers)
    rows = biases.letter_measures(pd.DataFrame([odd]))
    assert rows.n.tolist() == [N - 1] * 3 and rows.chance.tolist() == [0.25, 0.25, 0.5]


def test_a_model_that_knows_nothing_has_no_column():
    answered = {"a": made_up(1.5), "b": made_up(0.0)}
    scores = [score(*values, model=model) for model, values in answered.items()]
    measured = biases.letter_measures(pd.DataFrame(scores))
    assert set(biases.knowing(measured).model) == {"a"}
    nothing = measured[measured.model == "b"]
    assert len(biases.knowing(nothing)) == len(nothing) > 0


def test_beside_healing_compares_on_the_same_questions():
    """Made up: healing restores the balance of the letters, and nothing else."""
    plain, answers = made_up(1.5)
    biased, _ = made_up(1.5, BIAS)
    cut = {"strategy": "early exit", "block_size": 6}
    scores = [score(plain, answers), score(biased, answers, treatment="unhealed", **cut)]
    scores.append(score(plain, answers, treatment="healed", **cut))
    measured = biases.letter_measures(pd.DataFrame(scores))
    (row,) = biases.beside_healing(measured).to_dict("records")
    assert row["unhealed, accuracy"] < 0.35 < 0.5 < row["healed, accuracy"] == row["unpruned"]
    unbiased = row["unhealed, accuracy, biases removed"]
    assert row["difference"] == pytest.approx(unbiased - row["healed, accuracy"])
    assert abs(row["difference"]) < 0.02 and 0 < row["standard_error"] < 0.01


# ---- options in cyclic orders ---------------------------------------------------------------


def asked_in_orders(bias: np.ndarray) -> pd.DataFrame:
    """Made-up scores: what is known of an option follows it, a letter's bias stays."""
    known, answers = made_up(1.5)
    letters = np.arange(LETTERS)
    scores = []
    for task, moved in orders.ORDERS.items():
        of_options = known + bias[(letters + moved) % LETTERS]
        scores.append(score(of_options, answers, task=task))
    return pd.DataFrame(scores)


def test_a_mean_over_cyclic_orders_has_no_bias():
    known, answers = made_up(1.5)
    scores = asked_in_orders(BIAS)
    rows = orders.by_order(scores).set_index("measure")
    value = rows.value
    assert value["mean option"] == pytest.approx(biases.correct(known, answers).mean())
    assert value["mean option"] - value["all orders"] > 0.3 and rows.same_letter.min() > 0.9
    assert value["biases removed"] == pytest.approx(value["mean option"], abs=0.03)
    unbiased = orders.by_order(asked_in_orders(0 * BIAS)).set_index("measure")
    assert unbiased.value["mean option"] == unbiased.value["as answered"]
    assert set(unbiased.same_option) == {1} and set(unbiased.same_letter) == {0}
    assert orders.by_order(scores[scores.task != "arc_easy_letters_2"]).empty


def options(text: str) -> dict[str, str]:
    """The options that a question lists, by letter."""
    return dict(line.split(". ", 1) for line in text.splitlines() if line[1:3] == ". ")


def test_moved_options_keep_their_question_and_their_examples():
    counts = {"arc_easy_questions": 30, "arc_easy_shots": 2}
    names = ("arc_easy_letters", "arc_easy_letters_1")
    first, moved = (real_task(name, **counts).examples for name in names)
    for one, other in zip(first, moved, strict=True):
        before, own = one["prompt"].rsplit("\n\n", 1)
        solved, others = other["prompt"].rsplit("\n\n", 1)
        assert solved == before and one["answer"] == other["answer"]
        assert other["choices"] == [*one["choices"][1:], one["choices"][0]]
        last = one["choices"][-1].strip()
        assert options(others)["A"] == options(own)[last]
        assert options(others)["B"] == options(own)["A"]


# ---- what is asked -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "experiment",
    [biases.around_healing, orders.option_orders, last_layers.last_layers, books.stories],
)
def test_only_the_main_model_is_asked(experiment):
    assert experiment("smollm2-135m", Distances(num_layers=30), OVERNIGHT) == []
    assert experiment(OVERNIGHT.main_model, Distances(num_layers=28), OVERNIGHT)


def test_other_questions_are_others_and_have_a_key_of_their_own():
    counts = {"mmlu_subjects": 57, "mmlu_questions": 5, "mmlu_shots": 0}
    parts = [real_task(task, **counts).examples for task in ("mmlu", "mmlu_other")]
    texts = [{example["prompt"] for example in part} for part in parts]
    assert [len(part) for part in texts] == [285, 285] and not texts[0] & texts[1]
    first, other = (request.of_task(task, OVERNIGHT) for task in ("mmlu", "mmlu_other"))
    assert "other_than" not in first  # as it was recorded
    assert other == first | {"task": "mmlu_other", "other_than": OVERNIGHT.mmlu_questions}


def test_biases_are_asked_along_both_cuts():
    distances = Distances(start=13, num_layers=28)
    requests = biases.letter_biases("qwen2.5-coder-1.5b", distances, OVERNIGHT)
    assert len(requests) == 2 * (1 + 10 + 6)
    cuts = {(r.params["task"], r.labels["strategy"], r.block) for r in requests}
    for task in ("mmlu", "mmlu_other"):
        assert {(task, "early exit", Block(22, 6)), (task, "similarity", Block(13, 6))} <= cuts
        assert (task, "none", UNPRUNED) in cuts
    paper = biases.letter_biases("mistral-7b", Distances(20, 32), profiles.get("paper"))
    assert {r.params["task"] for r in paper} == {"mmlu"}  # there are no others


def test_orders_are_asked_at_the_same_cuts():
    requests = orders.option_orders(OVERNIGHT.main_model, Distances(num_layers=28), OVERNIGHT)
    for task in orders.ORDERS:
        sizes = {r.block.size for r in requests if r.params["task"] == task}
        assert sizes == {0, 1, 3, 5, 6, 7}


def test_cuts_keep_none_one_two_or_three_of_the_last_layers():
    requests = last_layers.last_layers(OVERNIGHT.main_model, Distances(num_layers=28), OVERNIGHT)
    for kept, strategy in last_layers.KEPT.items():
        stops = {r.block.stop for r in requests if r.labels["strategy"] == strategy}
        assert stops == {28 - kept}
    patched = [r for r in requests if r.labels["strategy"] == last_layers.PATCHED]
    blocks = {last_layers.FirstTokenPatched(27 - n, n) for n in (1, 3, 5, 7)}
    assert {r.block for r in patched} == blocks
    assert {r.params["task"] for r in patched} == {"arc_easy", "arc_easy_letters"}
    assert last_layers.blocks(4, 3, [1, 2]) == []  # a layer before the block has to stay


def test_the_loss_of_a_cut_is_that_of_its_block_in_the_damage_map():
    blocks = [(l, n) for n in range(1, 6) for l in range(6 - n + 1)]
    damages = pd.DataFrame(blocks, columns=["block_start", "block_size"])
    damages = damages.assign(model="m", value=10 * damages.block_start + damages.block_size)
    scores = pd.DataFrame({"model": ["m"], "block_size": [2]})
    losses = last_layers.losses(damages, scores).set_index(["strategy", "block_size"]).value
    kept = last_layers.KEPT
    assert losses[kept[0], 2] == 42 and losses[kept[1], 1] == 41 and losses[kept[3], 2] == 12
    assert set(losses.index.get_level_values("block_size")) == {1, 2}
