"""The criteria that read states: of one text, and of the damage map's texts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.similarity import block_distances, of_text
from replication import measure, profiles
from replication.beyond import which_block
from replication.measure import damage

SMOKE = replace(profiles.get("smoke"), damage_sequences=6, damage_tokens=20)


def test_states_of_a_text(llama):
    """The last token's distances are the map's; all tokens' and the updates are by hand."""
    ids = torch.randint(3, 90, (17,), generator=torch.Generator().manual_seed(5))
    states = of_text(llama, ids)
    batch = {"input_ids": ids[None].repeat(2, 1), "attention_mask": torch.ones(2, 17)}
    expected = block_distances(llama, [batch])
    np.testing.assert_allclose(states["last"], expected.matrix, atol=1e-6)
    hidden = llama(ids[None], output_hidden_states=True).hidden_states
    x, y = hidden[1][0].double(), hidden[3][0].double()
    cosines = torch.cosine_similarity(x, y, dim=-1)
    assert states["every"][1, 3] == pytest.approx((cosines.arccos() / np.pi).mean().item())
    assert states["influence"][1, 3] == pytest.approx(1 - cosines.mean().item())
    step = (hidden[2] - hidden[1])[0].norm(dim=-1) / hidden[1][0].norm(dim=-1)
    np.testing.assert_allclose(states["update"][1], step.detach(), rtol=1e-5)


def test_states_are_of_the_damage_maps_texts(loaded_llama):
    table = measure.table(which_block.states, ["tiny-random"], SMOKE)
    assert set(table.n) == {SMOKE.damage_sequences}
    states = table[table.criterion == "all tokens"]
    damages = measure.table(damage.damage, ["tiny-random"], SMOKE)
    for column in ("block_start", "block_size"):
        assert states[column].tolist() == damages[column].tolist()
    assert states.weights.iloc[0].tolist() == (damages.weights[0] + 1).tolist()
