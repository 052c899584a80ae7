"""Each silent error of the pitfall lab changes what its figure shows."""

import numpy as np
import pitfalls
import pytest
import torch
from conftest import run_elsewhere

from lib import pruning, similarity
from lib.models import decoder, loading
from replication import paths, profiles
from replication.measure import request

SMOKE = profiles.get("smoke")
NAME = SMOKE.main_model


@pytest.fixture(scope="module")
def loaded():
    return loading.load_cached(NAME, **SMOKE.load_kwargs)


@pytest.fixture
def batch(ids):
    """Right-padded, of three lengths."""
    lengths = torch.tensor([[28], [17], [9]])
    mask = (torch.arange(ids.shape[1]) < lengths).long()
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
    largest = (wrong - right).abs().max(axis=1)
    assert wrong.notna().all().all()
    assert (largest > least).all()


def test_the_labs_own_arithmetic_makes_no_difference(llama, batch):
    states = similarity.last_token_states(llama, batch)
    own = pitfalls._steps(states.unbind(1))
    expected = similarity.block_distances(llama, [batch]).row(1)
    assert np.allclose(own, expected, atol=1e-7)


BLOCKS = [pruning.Block(2, 2), pruning.Block(2, 4)]


def test_a_stale_configuration_changes_scores(loaded):
    task = request.load_task(request.task_params("c4", SMOKE))
    right, wrong = right_and_wrong(pitfalls.stale_configuration(*loaded, BLOCKS, task))
    (scores,) = wrong.to_numpy()
    assert scores[0] == right.iloc[0]
    assert (scores[1:] != right.iloc[1:]).all()
    model, _ = loaded
    assert len(decoder.decoder_layers(model)) == model.config.num_hidden_layers


def test_a_cache_without_blocks_in_its_keys_has_one_score(loaded):
    task = request.load_task(request.task_params("c4", SMOKE))
    right, wrong = right_and_wrong(pitfalls.unkeyed_cache(*loaded, BLOCKS, task))
    assert right.nunique() == 3
    assert (wrong.iloc[0] == right.iloc[0]).all()


@pytest.mark.real
def test_the_lab_runs(tmp_path, monkeypatch):
    """Its notebook ends with a picture and its table."""
    run_elsewhere(paths.ROOT / "exercises" / "pitfall_lab.ipynb", tmp_path, monkeypatch)
    for name in ("pitfalls.png", "pitfalls.csv"):
        assert (tmp_path / "figures" / "smoke" / name).exists()
