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
