"""Each silent error of the pitfall lab changes what its figure shows."""

import nbformat
import numpy as np
import papermill
import pitfalls
import pytest
import torch

from lib import evaluation, pruning, similarity
from lib.models import decoder, loading
from replication import paths, profiles
from replication.measure import request

SMOKE = profiles.get("smoke")
NAME = SMOKE.main_model
LAB = paths.ROOT / "exercises" / "pitfall_lab.ipynb"


@pytest.fixture(scope="module")
def loaded():
    return loading.load_cached(NAME, **SMOKE.load_kwargs)


@pytest.fixture
def batch(ids):
    """Right-padded, of three lengths."""
    mask = (torch.arange(ids.shape[1]) < torch.tensor([[28], [17], [9]])).long()
    return {"input_ids": ids.cpu() * mask, "attention_mask": mask}


def right_and_wrong(pair):
    """The right values, and those of each wrong way."""
    table = pair.beside
    return table.loc[pitfalls.RIGHT], table.drop(pitfalls.RIGHT)


DISTANCES = [
    (pitfalls.final_norm, 0.004),
    (pitfalls.half_precision, 1e-4),
    (pitfalls.last_token, 0.01),
    (pitfalls.averages, 1e-3),
]


@pytest.mark.parametrize("pitfall, least", DISTANCES)
def test_distances_differ(llama, batch, pitfall, least):
    right, wrong = right_and_wrong(pitfall(llama, batch))
    assert np.isfinite(wrong).all().all()
    assert ((wrong - right).abs().max(axis=1) > least).all()


@pytest.mark.real
@pytest.mark.parametrize("pitfall, least", DISTANCES)
def test_distances_differ_in_the_embedded_model(pitfall, least):
    quick = profiles.get("quick")
    model, _ = loading.load_cached(quick.main_model, **quick.load_kwargs)
    batch = pitfalls.texts_of_unequal_length(quick.main_model, quick)
    right, wrong = right_and_wrong(pitfall(model, batch))
    assert ((wrong - right).abs().max(axis=1) > least).all()


def quick_model():
    quick = profiles.get("quick")
    return quick, *loading.load_cached(quick.main_model, **quick.load_kwargs)


@pytest.mark.real
def test_a_letter_is_expected_with_its_space():
    """And by the whole model more than a cut one can blur."""
    quick, model, tokenizer = quick_model()
    task = evaluation.task_of(request.of_task("arc_easy_letters", quick.limited(16)))
    right, wrong = right_and_wrong(pitfalls.bare_letter(model, tokenizer, [], task))
    assert (wrong.iloc[0] < 0.1 * right).all()


@pytest.mark.real
def test_three_errors_hide_in_the_embedded_model():
    """As the lab says: the same minimum, and a loss that hardly rises with random layers."""
    quick, model, tokenizer = quick_model()
    batch = pitfalls.texts_of_unequal_length(quick.main_model, quick)
    for pitfall in (pitfalls.half_precision, pitfalls.averages):
        right, wrong = right_and_wrong(pitfall(model, batch))
        assert (wrong.idxmin(axis=1) == right.idxmin()).all()
    assert right.min() > 10 / 180
    task = evaluation.task_of(request.of_task("c4", quick.limited(16)))
    blocks = [pruning.Block(13, 6)]
    right, wrong = right_and_wrong(pitfalls.stale_configuration(model, tokenizer, blocks, task))
    assert 0 < abs(wrong.iloc[0, 1] - right.iloc[1]) < 0.05


def test_the_arccos_of_a_mean_is_never_the_smaller_one(llama, batch):
    right, wrong = right_and_wrong(pitfalls.averages(llama, batch))
    assert right.max() < 0.5  # below a right angle
    assert (wrong.loc["arccos of the mean cosine"] >= right).all()


def test_the_labs_own_arithmetic_makes_no_difference(llama, batch):
    states = similarity.last_token_states(llama, batch).unbind(1)
    expected = similarity.block_distances(llama, [batch]).row(1)
    assert np.allclose(pitfalls._steps(states), expected, atol=1e-7)


def test_scores_differ(loaded):
    model, tokenizer = loaded
    task = evaluation.task_of(request.of_task("c4", SMOKE))
    blocks = [pruning.Block(2, 2), pruning.Block(2, 4)]
    right, wrong = right_and_wrong(pitfalls.stale_configuration(model, tokenizer, blocks, task))
    assert wrong.iloc[0, 0] == right.iloc[0]
    assert (wrong.iloc[0, 1:] != right.iloc[1:]).all()
    right, wrong = right_and_wrong(pitfalls.unkeyed_cache(model, tokenizer, blocks, task))
    assert (wrong.iloc[0] == right.iloc[0]).all() and right.nunique() == 3
    assert len(decoder.decoder_layers(model)) == model.config.num_hidden_layers


def test_an_inclusive_end_moves_the_curve_by_one(loaded):
    task = evaluation.task_of(request.of_task("c4", SMOKE))
    blocks = [pruning.Block(1, size) for size in (1, 2, 3)]
    right, wrong = right_and_wrong(pitfalls.inclusive_end(*loaded, blocks, task))
    assert wrong.iloc[0, :-1].tolist()[1:] == right.iloc[2:].tolist()
    assert wrong.iloc[0, 0] == right.iloc[0]


def test_another_token_is_another_probability(loaded):
    task = evaluation.task_of(request.of_task("arc_easy_letters", SMOKE))
    right, wrong = right_and_wrong(pitfalls.bare_letter(*loaded, [pruning.Block(1, 2)], task))
    assert right.between(0, 1).all() and (wrong.iloc[0] != right).all()


def test_the_lab_runs(output, tmp_path, monkeypatch):
    """Its notebook, from another folder, ends with a picture and its table."""
    monkeypatch.setenv("DEEPER_LAYERS_OUTPUT", str(output))
    monkeypatch.setenv("PYTHONPATH", str(paths.ROOT))  # not that of the tests
    done = tmp_path / "done.ipynb"
    papermill.execute_notebook(
        str(LAB), str(done), {"PROFILE": "smoke"}, cwd=str(tmp_path), progress_bar=False
    )
    for suffix in (".png", ".csv"):
        assert (paths.FIGURES / "smoke" / f"pitfalls{suffix}").exists()
    drawn = [o for c in nbformat.read(done, 4).cells for o in c.get("outputs", []) if "data" in o]
    assert sum("image/png" in o.data for o in drawn) >= 9
