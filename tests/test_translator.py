"""A translator at the exit: maps fitted in one pass; every exit is scored and stored once."""

import pytest
import torch
from conftest import Characters, Distances, tiny

from lib.blocks import Block
from lib.healing import linear
from lib.similarity import calibration_batches
from replication import profiles
from replication.beyond import repair, translator

SMOKE = profiles.get("smoke")


@pytest.mark.parametrize("names", [["full"], ["full", "folded"]])
def test_blocks_fitted_in_one_pass_have_the_maps_of_each_by_itself(names):
    model, blocks = tiny("llama"), [Block(3, 3), Block(2, 4), Block(2, 2)]
    texts = ["a text of some length", "another one", "a third", "and a fourth text", "five"] * 3
    batches = list(calibration_batches(texts, Characters(), max_tokens=16, batch_tokens=64))
    together = linear.fitted_all(model, blocks, names, batches)
    for block in blocks:
        alone = linear.fitted(model, block, names, batches)
        assert together[block].keys() == alone.keys() == set(names)
        for name, (mapped, _) in alone.items():
            assert torch.allclose(together[block][name][0].change, mapped.change, atol=1e-4)


def test_every_exit_is_scored_as_it_is_and_translated_and_stored(output, monkeypatch):
    requests = translator.translated("tiny-random", Distances(start=1), SMOKE)
    table = translator.table(requests)
    assert table.value.notna().all()
    c4 = table[table.task == "c4"].pivot(index="block_size", columns="repair", values="value")
    assert (c4["plain cut"] != c4["full map"]).loc[3:].all()
    gains = translator.gains(table).set_index(["task", "measure", "block_size"])
    expected = c4["full map"][3] - c4["plain cut"][3]
    assert gains.gain["c4", "loss", 3] == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr(repair, "_measure", lambda missing: pytest.fail("measured again"))
    assert translator.table(requests).value.tolist() == table.value.tolist()
