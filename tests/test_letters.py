"""Biases of letters on made-up answers: a known one is found and removed; nothing appears alone."""

import numpy as np
import pandas as pd
import pytest
from conftest import Distances, real_task

from lib.blocks import UNPRUNED, Block
from replication import profiles
from replication.beyond import biases, last_layers, orders
from replication.measure import request

N, LETTERS = 2000, 4
BIAS = np.array([0.0, 6.0, -3.0, 1.0])
WEIGHTS = np.ones(N)


def made_up(knowledge: float, bias=0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihoods of N questions, the right letter `knowledge` nats higher, and answers."""
    draw = np.random.default_rng(seed)
    answers = draw.integers(LETTERS, size=N)
    loglikelihoods = draw.normal(size=(N, LETTERS)) + bias
    loglikelihoods[np.arange(N), answers] += knowledge
    return loglikelihoods + draw.normal(size=(N, 1)), answers  # what a question's letters share


def test_a_known_bias_is_found_and_removed():
    plain, answers = made_up(1.5)
    biased, _ = made_up(1.5, BIAS)
    raw = biases.correct(biased, answers).mean()
    assert raw < 0.35 and biases.commonest_share(biased, WEIGHTS) > 0.9
    unbiased = biases.without_bias(biased, WEIGHTS)
    assert biases.correct(unbiased, answers).mean() == pytest.approx(
        biases.correct(plain, answers).mean(), abs=0.01
    )
    assert biases.commonest_share(unbiased, WEIGHTS) < 0.3


def test_where_nothing_is_known_nothing_appears():
    nothing, answers = made_up(0.0, BIAS)
    unbiased = biases.without_bias(nothing, WEIGHTS)
    assert biases.correct(unbiased, answers).mean() == pytest.approx(0.25, abs=0.03)
    assert biases.letter_auc(nothing, answers).mean() == pytest.approx(0.5, abs=0.03)
    loss = biases.calibrated_losses(nothing, answers, WEIGHTS).mean()
    assert np.log(4) - 0.005 < loss < np.log(4) + 0.02


def test_a_question_does_not_correct_itself():
    """Its own fold has no part in its bias: an outlier moves others, not its own fold."""
    loglikelihoods, answers = made_up(0.0)
    moved = loglikelihoods.copy()
    moved[0] += np.array([500.0, 0, 0, 0])
    own = biases.fold_of(N) == 0
    own[0] = False
    for corrected in (
        lambda x: biases.without_bias(x, WEIGHTS),
        lambda x: biases.calibrated_losses(x, answers, WEIGHTS),
    ):
        before, after = map(corrected, (loglikelihoods, moved))
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
    repetitions = [biases.letter_auc(*made_up(1.0, seed=seed)) for seed in range(60)]
    errors = [influences.std() / np.sqrt(N) for influences in repetitions]
    spread = np.std([influences.mean() for influences in repetitions], ddof=1)
    assert np.mean(errors) == pytest.approx(spread, rel=0.25)


def test_calibration_finds_a_known_temperature_and_bias():
    """Log-likelihoods ten times too sure, and biased: each loss is that of the plain ones."""
    plain, answers = made_up(2.0)
    spoilt = 10 * plain + BIAS
    losses = biases.calibrated_losses(plain, answers, WEIGHTS)
    assert biases.calibrated_losses(spoilt, answers, WEIGHTS) == pytest.approx(losses, rel=1e-9)
    assert losses.mean() < 0.9
    opposite = biases.calibrated_losses(-plain, answers, WEIGHTS)  # no scale is below 0
    shares = np.bincount(answers[biases.fold_of(N) != 0]) / (biases.fold_of(N) != 0).sum()
    assert opposite[0] == pytest.approx(-np.log(shares[answers[0]]))


def test_rows_have_the_columns_of_a_score():
    loglikelihoods, answers = made_up(1.5, BIAS)
    score = {"model": "m", "task": "mmlu", "value": 0.3, "choices": list(loglikelihoods)}
    score |= {"answers": answers.tolist(), "weights": WEIGHTS, "n": N}
    odd = score | {"choices": [*loglikelihoods[:-1], np.zeros(3)]}
    rows = biases.letter_measures(pd.DataFrame([score, odd])).set_index("measure")
    assert rows.n.tolist() == [N] * 4 + [N - 1] * 4
    assert rows.value["accuracy, biases removed"].iloc[0] > rows.value["accuracy"].iloc[0] + 0.2
    assert rows.chance.iloc[:4].tolist() == [0.25, 0.25, 0.5, pytest.approx(np.log(4))]


def exits(profile) -> pd.DataFrame:
    """Scores along an exit: a bias comes at the second layer, knowledge is lost at the third."""
    knowledge, bias, rows = [2.0, 2.0, 2.0, 0.0, 0.0], [0, 0, 1, 1, 1], []
    for questions, seed in (("recorded", 0), ("other", 1)):
        for size in range(5):
            loglikelihoods, answers = made_up(knowledge[size], bias[size] * BIAS, seed=seed)
            row = {"model": "smollm2-135m", "task": "mmlu", "questions": questions, "value": 0.5}
            row |= {"treatment": "unhealed" if size else "unpruned", "block_size": size}
            row |= {"strategy": "early exit" if size else "none", "fraction": size / 8}
            row |= {"choices": list(loglikelihoods), "answers": answers.tolist(), "n": N}
            rows.append(row | {"weights": WEIGHTS, "profile": profile.name})
    return pd.DataFrame(rows)


def test_a_bias_is_told_from_a_loss_of_knowledge(output):
    measured = biases.letter_measures(exits(profiles.get("smoke")))
    gains = biases.gains(measured).set_index(["questions", "block_size"]).difference
    assert gains["other", 1] == pytest.approx(0, abs=0.02)
    assert gains["other", 2] > 0.2 and gains["recorded", 2] > 0.2
    assert gains["other", 3] == pytest.approx(0, abs=0.03)
    halves = biases.halves(measured).set_index(["measure", "questions"]).fraction
    for questions in biases.QUESTIONS:
        assert halves["accuracy", questions] < 2 / 8
        for measure in biases.MEASURES[1:3]:
            assert 2 / 8 < halves[measure, questions] < 3 / 8
    assert len(biases.figure_biases(measured).table) == len(measured)


# ---- questions -------------------------------------------------------------------------------


def test_other_questions_are_others_and_as_many():
    texts = []
    for task in ("mmlu", "mmlu_other"):
        examples = real_task(task, mmlu_subjects=57, mmlu_questions=5, mmlu_shots=0).examples
        texts.append({example["prompt"] for example in examples})
    assert [len(part) for part in texts] == [285, 285] and not texts[0] & texts[1]


def test_other_questions_have_a_key_of_their_own():
    smoke = profiles.get("smoke")
    first, other = (request.of_task(task, smoke) for task in ("mmlu", "mmlu_other"))
    assert "other_than" not in first  # as it was recorded
    assert other == first | {"task": "mmlu_other", "other_than": smoke.mmlu_questions}


def test_biases_are_asked_along_both_cuts():
    overnight, distances = profiles.get("overnight"), Distances(start=13, num_layers=28)
    requests = biases.letter_biases("qwen2.5-coder-1.5b", distances, overnight)
    assert len(requests) == 2 * (1 + 10 + 6)
    cuts = {(r.params["task"], r.labels["strategy"], r.block) for r in requests}
    for task in ("mmlu", "mmlu_other"):
        assert {(task, "early exit", Block(22, 6)), (task, "similarity", Block(13, 6))} <= cuts
        assert (task, "none", UNPRUNED) in cuts


def test_no_other_questions_are_asked_where_all_are():
    requests = biases.letter_biases("mistral-7b", Distances(20, 32), profiles.get("paper"))
    assert {r.params["task"] for r in requests} == {"mmlu"}


def test_beside_healing_compares_on_the_same_questions():
    """Made up: healing restores the balance of the letters, and nothing else."""
    biased, answers = made_up(1.5, BIAS)
    versions = {"unpruned": made_up(1.5)[0], "unhealed": biased, "healed": made_up(1.5)[0]}
    scores = [
        {"model": "m", "questions": "MMLU", "treatment": treatment, "value": 0.3}
        | {"strategy": "none" if treatment == "unpruned" else "early exit"}
        | {"block_size": 0 if treatment == "unpruned" else 6, "weights": WEIGHTS}
        | {"choices": list(loglikelihoods), "answers": answers.tolist()}
        for treatment, loglikelihoods in versions.items()
    ]
    (row,) = biases.beside_healing(biases.letter_measures(pd.DataFrame(scores))).to_dict("records")
    assert row["as_answered"] < 0.35 < 0.5 < row["healed"]
    assert row["biases_removed"] == pytest.approx(row["healed"], abs=0.01)
    assert row["removed_minus_healed"] == pytest.approx(0, abs=0.01)
    assert 0 < row["standard_error"] < 0.005 and row["auc"] == pytest.approx(row["auc_healed"])
    assert row["unpruned"] == row["healed"]


def test_around_healing_asks_the_main_model_only():
    profile = profiles.get("overnight")
    wanted = biases.around_healing(profile.main_model, Distances(num_layers=28), profile)
    healed = {(r.params["task"], r.labels["strategy"]) for r in wanted if r.recipe}
    assert ("mmlu", "early exit") in healed and ("arc_easy_letters", "similarity") in healed
    assert biases.around_healing("smollm2-135m", Distances(num_layers=30), profile) == []


def test_a_model_that_knows_nothing_has_no_column():
    rows = [
        {"model": model, "treatment": "unpruned", "block_size": 0, "value": 0.3, "weights": WEIGHTS}
        | {"choices": list(loglikelihoods), "answers": answers.tolist()}
        for model, (loglikelihoods, answers) in {"a": made_up(1.5), "b": made_up(0.0)}.items()
    ]
    measured = biases.letter_measures(pd.DataFrame(rows))
    assert set(biases.knowing(measured).model) == {"a"}
    nothing = measured[measured.model == "b"]
    assert len(biases.knowing(nothing)) == len(nothing) > 0


# ---- options in cyclic orders ---------------------------------------------------------------


def asked_in_orders(knowledge: float, bias: np.ndarray) -> pd.DataFrame:
    """Made-up scores: what is known of an option follows it, a letter's bias stays."""
    known, answers = made_up(knowledge)
    letters = np.arange(orders.OPTIONS)
    scores = [
        {"model": "m", "strategy": "early exit", "block_size": 6, "task": task, "value": 0.3}
        | {"choices": list(known + bias[(letters + moved) % orders.OPTIONS])}
        | {"answers": answers.tolist(), "weights": WEIGHTS}
        for task, moved in orders.ORDERS.items()
    ]
    return pd.DataFrame(scores)


def test_a_mean_over_cyclic_orders_has_no_bias():
    known, answers = made_up(1.5)
    rows = orders.by_order(asked_in_orders(1.5, BIAS)).set_index("measure")
    value = rows.value
    assert value["mean option"] == pytest.approx(biases.correct(known, answers).mean())
    assert value["mean option"] - value["all orders"] > 0.3 and rows.same_letter.min() > 0.9
    assert value["biases removed"] == pytest.approx(value["mean option"], abs=0.02)
    assert set(rows.n) == {N} and rows.standard_error.between(0, 0.02).all()
    unbiased = orders.by_order(asked_in_orders(1.5, 0 * BIAS)).set_index("measure")
    assert unbiased.value["mean option"] == unbiased.value["as answered"]
    assert set(unbiased.same_option) == {1} and set(unbiased.same_letter) == {0}


def test_a_cut_that_lacks_an_order_has_no_row():
    scores = asked_in_orders(1.5, BIAS)
    nothing = orders.by_order(scores[scores.task != "arc_easy_letters_2"])
    assert nothing.empty
    assert nothing.pivot_table("value", ["strategy", "block_size"], "measure").empty  # as in 10


def test_orders_are_asked_of_the_main_model_at_the_same_cuts():
    profile = profiles.get("overnight")
    requests = orders.option_orders(profile.main_model, Distances(num_layers=28), profile)
    cuts = {task: {r.block for r in requests if r.params["task"] == task} for task in orders.ORDERS}
    assert len(set(map(frozenset, cuts.values()))) == 1
    assert {block.size for block in cuts["arc_easy_letters"]} == {0, 1, 3, 5, 6, 7}
    assert orders.option_orders("smollm2-135m", Distances(num_layers=30), profile) == []


def test_moved_options_keep_their_question_and_their_examples():
    counts = {"arc_easy_questions": 30, "arc_easy_shots": 2}
    first, moved = (
        real_task(name, **counts).examples for name in ("arc_easy_letters", "arc_easy_letters_1")
    )
    for one, other in zip(first, moved, strict=True):
        *_, last = one["choices"]
        assert other["choices"] == [*one["choices"][1:], one["choices"][0]]
        assert one["answer"] == other["answer"]
        before, own = one["prompt"].rsplit("\n\n", 1)
        assert other["prompt"].startswith(before)
        listed, others = (
            dict(line.split(". ", 1) for line in text.splitlines() if line[1:3] == ". ")
            for text in (own, other["prompt"].rsplit("\n\n", 1)[1])
        )
        assert others["A"] == listed[last.strip()] and others["B"] == listed["A"]


# ---- the last layers -----------------------------------------------------------------------


def test_cuts_keep_none_one_two_or_three_of_the_last_layers():
    profile = profiles.get("overnight")
    requests = last_layers.last_layers(profile.main_model, Distances(num_layers=28), profile)
    kept = {
        name: {28 - r.block.stop for r in requests if r.labels["strategy"] == name}
        for name in last_layers.KEPT.values()
    }
    assert kept == {name: {count} for count, name in last_layers.KEPT.items()}
    patched = [r for r in requests if r.labels["strategy"] == last_layers.PATCHED]
    assert {r.block for r in patched} == {
        last_layers.FirstTokenPatched(27 - n, n) for n in (1, 3, 5, 7)
    }
    assert {r.params["task"] for r in patched} == {"arc_easy", "arc_easy_letters"}
    assert {r.block.size for r in requests} == {0, 1, 3, 5, 7}
    assert last_layers.last_layers("smollm2-135m", Distances(num_layers=30), profile) == []
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
