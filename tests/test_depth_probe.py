"""The answer at each depth: states and letters against a forward pass, probes on made-up states."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import Distances, three_questions

from lib import evaluation
from lib.blocks import UNPRUNED, Block
from lib.models import loading
from lib.models.decoder import decoder_layers, residual_stream
from lib.pruning import dropped
from lib.sweep import sweep
from replication import profiles
from replication.beyond.letters import depth_probe, jacobian_lens, probes, readings, states
from replication.measure import fetching

SMOKE = profiles.get("smoke")
N = 300


def test_states_and_letters_are_those_of_each_exit_of_the_cut_model():
    """HF's own forward, whose last hidden state is after the norm, without the deeper layers."""
    model, tokenizer = loading.load("tiny-random", dtype="float32")
    task, block = three_questions(), Block(2, 3)
    arrays = dict(states.read_last_of_cut(model, tokenizer, task, block, 2048))
    assert list(arrays) == [5, 6, 7, 8]
    for depth in (5, 6, 7, 8):
        with dropped(model, block), dropped(model, Block(depth - 3, 8 - depth)):
            (letters,) = sweep(model, tokenizer, [UNPRUNED], [task]).choices
            for i, example in enumerate(task.examples):
                ids = torch.tensor([tokenizer(example["prompt"]).input_ids])
                last = model.get_decoder()(input_ids=ids).last_hidden_state[0, -1]
                state = arrays[depth]["states"][i]
                np.testing.assert_allclose(state, last.detach(), atol=5e-3)
        np.testing.assert_allclose(arrays[depth]["letters"], np.stack(letters), atol=1e-4)


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_no_profile_probes_more_than_2000_questions(name):
    """The record's are all that its scores are of: a probe of n questions takes about n^3."""
    profile = profiles.get(name)
    for request_ in depth_probe.depths(profile.main_model, Distances(), profile):
        num_questions = request_.params["questions"] * request_.params.get("subjects", 1)
        assert num_questions <= 2000
        recorded = name == "overnight" and request_.params["task"] == "mmlu"
        assert not recorded or num_questions == 285


def made_up(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """States of more dimensions than questions, one of which tells each place; right places."""
    draw = np.random.default_rng(seed)
    answers = draw.integers(4, size=N)
    states = draw.normal(size=(N, 400))
    states[:, :4] += 12 * np.eye(4)[answers]
    return states, answers


def test_a_probe_finds_what_is_there_and_nothing_else():
    inputs, answers = made_up()
    chosen, taught, strength = probes.cross_fitted_places(inputs, inputs, answers, shuffles=20)
    right = (chosen == taught).mean(axis=1)
    assert right[0] > 0.8 and right[1:].max() < 0.4
    assert strength in probes.STRENGTHS
    moved = np.roll(inputs, 7, axis=1)  # the same, in another code
    own, *_ = probes.cross_fitted_places(moved, moved, answers)
    others, *_ = probes.cross_fitted_places(inputs, moved, answers)
    assert (own == answers).mean() > 0.8 and (others == answers).mean() < 0.5


def test_the_null_is_of_probes_of_shuffled_answers_judged_by_these(monkeypatch):
    inputs, answers = made_up()
    examples = [{"answer": answer, "weight": 1, "choices": "ABCD"} for answer in answers]
    task, letters = evaluation.Task("mmlu", tuple(examples)), np.zeros((N, 4))
    monkeypatch.setattr(readings, "load_four_options", lambda params: task)
    monkeypatch.setattr(states, "last_of_cut", lambda *_: ({5: inputs}, {5: letters}))
    monkeypatch.setattr(depth_probe, "SHUFFLES", 20)
    rows = depth_probe._measured({"block_size": 0})
    assert [row["value"] > 0.8 for row in rows if row["reading"] == depth_probe.PROBE] == [True]
    assert [0.25 < row["null"] < 0.36 for row in rows if row.get("null")] == [True]


def test_a_question_has_no_part_in_the_probe_that_reads_it():
    """Its answer changed, it is read as before."""
    inputs, answers = made_up()
    changed = answers.copy()
    changed[::5] = 3 - answers[::5]
    before, after = (probes.cross_fitted_places(inputs, inputs, of)[0] for of in (answers, changed))
    assert np.array_equal(before[0, ::5], after[0, ::5])
    assert not np.array_equal(before, after)


def test_ridge_is_that_of_the_normal_equations():
    inputs, answers = made_up()
    inputs, targets = inputs[:, :30], np.eye(4)[answers][:, None]
    outputs = probes.ridge(inputs[:200], targets[:200], inputs[200:])
    x, t = inputs[:200] - inputs[:200].mean(0), targets[:200, 0] - targets[:200, 0].mean(0)
    for strength, output in zip(probes.STRENGTHS, outputs, strict=True):
        penalty = strength * np.trace(x @ x.T) / 200 * np.eye(30)
        a = np.linalg.solve(x.T @ x + penalty, x.T @ t)
        expected = (inputs[200:] - inputs[:200].mean(0)) @ a + targets[:200, 0].mean(0)
        np.testing.assert_allclose(output[:, 0], expected, atol=1e-8)


def test_every_depth_is_measured_kept_and_drawn(output, monkeypatch):
    requests = depth_probe.depths("tiny-random", Distances(start=1), replace(SMOKE, mmlu_shots=1))
    table = readings.table(requests)
    assert table.value.notna().all()
    whole = table[(table.block_size == 0) & (table.task == "mmlu")]
    assert whole.depth.tolist() == [depth for depth in range(1, 9) for _ in range(2)]
    cut = table[(table.block_size == 3) & (table.strategy == "similarity")]
    assert set(cut.depth) == {4, 5, 6, 7, 8}
    assert (
        set(cut.reading)
        == set(table.reading)
        == {"letters", "in the state"} | {"the whole model's probe"}
    )
    monkeypatch.setitem(fetching.MEASURE, "depths", lambda *a: pytest.fail("measured again"))
    again = readings.table(requests)
    assert again.value.tolist() == table.value.tolist()
    figure = depth_probe.figure_depth(again)
    assert set(figure.table.reading) >= {*depth_probe.LOOKS}


LAYER_NORMS = {"phi", "gpt_neox", "gpt2", "bloom"}  # whose shift no four derivatives tell


def whole_jacobian(model, ids: torch.Tensor, depth: int, positions: list[int], letters: list[int]):
    """The derivatives of the final states (positions, D) and of the last logits of `letters` by the
    states (T, D) that layer `depth` reads."""
    states = {}
    with torch.no_grad(), residual_stream(model, states.__setitem__, [depth]):
        model(ids, use_cache=False)

    def outputs(state: torch.Tensor):
        def instead(module, args, kwargs):
            if args:
                return (state[None], *args[1:]), kwargs
            return args, kwargs | {"hidden_states": state[None]}

        def note(module, args, output):
            noted.append(output if isinstance(output, torch.Tensor) else output[0])

        noted, layers = [], decoder_layers(model)
        before = layers[depth].register_forward_pre_hook(instead, with_kwargs=True)
        with before, layers[-1].register_forward_hook(note):
            logits = model(ids, use_cache=False).logits
        return noted[0][0, positions], logits[0, -1, letters]

    return torch.autograd.functional.jacobian(outputs, states[depth][0])


def test_both_lenses_are_those_of_the_whole_jacobian(model, architecture):
    """Its sums by hand, of texts of three lengths, of which the published lens skips the shortest;
    read by the model's own norm and head."""
    draw, depth, letters = torch.Generator().manual_seed(1), 3, [4, 7, 9, 11]
    texts = [torch.randint(3, 90, (1, length), generator=draw) for length in (20, 18, 17)]
    state = torch.randn(32, generator=draw)
    transport, last = torch.zeros(32, 32), torch.zeros(4)
    for ids in texts:
        valid = list(range(16, ids.shape[1] - 1))
        of_final, of_logits = whole_jacobian(model, ids, depth, valid or [0], letters)
        for i, later in enumerate(valid):
            for t in valid:
                if t <= later:
                    transport += of_final[i, :, t] / len(valid) / 2
        last += of_logits[:, -1] @ state / len(texts)
    by_text = jacobian_lens.derivatives(model, [ids[0].tolist() for ids in texts], letters, [depth])
    ours = {form: of_texts.mean(axis=0)[:, 0] @ state.numpy() for form, of_texts in by_text.items()}
    np.testing.assert_allclose(ours["last token"], last, rtol=1e-3, atol=1e-5)
    assert ("published" not in ours) == (architecture in LAYER_NORMS)
    if "published" in ours:
        decoder, moved = model.get_decoder(), transport @ state
        normed = getattr(decoder, "embedding_norm", getattr(decoder, "norm", None))(moved[None])
        expected = model.get_output_embeddings().weight[letters].detach() @ normed[0].detach()
        scale = moved.square().mean().sqrt()  # of all letters
        np.testing.assert_allclose(ours["published"], expected * scale, rtol=1e-3, atol=1e-5)


def test_other_texts_move_the_bounds_of_a_lens(monkeypatch):
    """Texts that agree have none; of two halves that read opposite letters, either may prevail."""
    monkeypatch.setattr(jacobian_lens, "RESAMPLES", 200)
    draw = np.random.default_rng(0)
    right, weights = draw.integers(4, size=N), np.ones(N)
    agreeing = np.tile(np.eye(4)[right], (10, 1, 1))
    bounds = jacobian_lens.over_texts(agreeing, right, weights)
    assert bounds.pop("num_texts") == 10
    np.testing.assert_allclose([*bounds.values()], 1)
    opposed = np.concatenate([agreeing, np.tile(np.eye(4)[3 - right], (11, 1, 1))])
    bounds = jacobian_lens.over_texts(opposed, right, weights)
    np.testing.assert_allclose([bounds["texts_low"], bounds["texts_high"]], [0, 1])
    # one text in ten has a bias of its own: removed, it has no part
    biased = agreeing.copy()
    biased[0] += [0, 0, 0, 30]
    bounds = jacobian_lens.over_texts(biased, right, weights)
    assert bounds["texts_low"] < 0.4 and bounds["unbiased_low"] > 0.9
