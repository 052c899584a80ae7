"""Repairs of a cut: linear maps are least squares and fold in."""

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from conftest import ARCHITECTURES, SIZE, Characters, Distances, score, tiny

from lib import evaluation
from lib.blocks import Block
from lib.healing import linear
from lib.healing.linear import FFN, STREAM
from lib.models.decoder import decoder_layers
from lib.pruning import dropped
from lib.sweep import sweep
from replication import profiles
from replication.beyond import repair

SMOKE = profiles.get("smoke")
BLOCK = Block(3, 2)
DIM = 6


# ---- least squares -------------------------------------------------------------------------


def planted(change: torch.Tensor, count: int = 400, seed: int = 0) -> linear.Moments:
    """Moments of tokens whose block is linear: y = x + x A."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, DIM, generator=generator).double()
    return linear.moments(x, x + x @ change, x)


@pytest.fixture
def change():
    return torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(9)).double()


def test_a_planted_linear_block_is_recovered(change):
    fit, held = planted(change), planted(change, 100, 1)
    solution, ridge, error = linear.solved(fit, held)
    torch.testing.assert_close(solution, change, atol=1e-6, rtol=1e-6)
    assert ridge == min(linear.RIDGES)
    assert abs(error) < 1e-9


def of_one_number(both: float) -> linear.Moments:
    """Moments of states of one number, with z^2 = 1 and both = z (y - x)."""
    one = torch.ones(1, 1).double()
    return linear.Moments(one, both * one, 1.0)


def test_held_out_texts_choose_the_ridge_and_all_texts_make_the_map():
    """By hand: the map of the texts of the fit is 1 / (1 + ridge), that of the others 1 / 11.

    So the ridge is 10. It leaves 1 - (1/11)^2 of the held-out change. Of both, z^2 is 2, and so is
    its mean, in units of which the ridge is: the map is (1 + 1/11) / (2 + 10 * 2) = 6/121.
    """
    fit, held = of_one_number(1.0), of_one_number(1 / 11)
    change, ridge, error = linear.solved(fit, held)
    assert ridge == 10 and error == pytest.approx(120 / 121)
    assert change.item() == pytest.approx(6 / 121)


# ---- a map in place of a block -------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_folded_in_is_the_map_applied(name, ids):
    """Where biases and transposed weights are, too."""
    model = tiny(name)
    generator = torch.Generator().manual_seed(3)
    change = 0.1 * torch.randn(32, 32, generator=generator).to(ids.device)
    module = linear.projection(model, BLOCK.start - 1)
    with dropped(model, BLOCK), torch.inference_mode():
        hook = module.register_forward_hook(lambda m, args, out: out + out @ change)
        expected = model(ids).logits
        hook.remove()
        plain = model(ids).logits
    assert not torch.allclose(plain, expected, atol=1e-2)
    linear.fold(model, BLOCK, change)
    with dropped(model, BLOCK), torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gemma2", "qwen3_moe"])
def test_what_cannot_be_folded(name):
    """A norm after the FFN, or experts: no projection's output is what the stream gets."""
    with pytest.raises(ValueError, match="as it is|cannot be healed"):
        linear.projection(tiny(name), 2)


def calibration(texts: slice = slice(None), padding: int = 0) -> dict:
    """Some of eight texts of five tokens."""
    rows = torch.arange(40).reshape(8, 5)[texts] + 3
    pad = torch.nn.functional.pad
    return {
        "input_ids": pad(rows, (0, padding)),
        "attention_mask": pad(torch.ones_like(rows), (0, padding)),
    }


@pytest.mark.parametrize("name", ["llama", "falcon"])
def test_every_fourth_text_is_held_out_however_texts_are_batched(name, monkeypatch):
    """Texts 0 and 4 of 8 and no other, by the states of the model itself; padding is no token.

    Falcon adds attention, in place, to what its FFN gives.
    """
    monkeypatch.setitem(ARCHITECTURES, "falcon", lambda: transformers.FalconConfig(**SIZE))
    model, added = tiny(name), []
    module = linear.projection(model, BLOCK.start - 1)
    hook = module.register_forward_hook(lambda m, args, output: added.append(output.clone()))
    with torch.inference_mode():
        rows = calibration()["input_ids"]
        states = model(rows.to(model.device), output_hidden_states=True).hidden_states
    hook.remove()
    before, after = states[BLOCK.start], states[BLOCK.stop]
    batches = [calibration(slice(first, first + 3), padding=4) for first in (0, 3, 6)]
    parts = linear._gathered(model, [BLOCK], [STREAM, FFN], batches)
    for part, texts in zip(parts, ([1, 2, 3, 5, 6, 7], [0, 4]), strict=True):
        x, y = before[texts].flatten(0, 1), after[texts].flatten(0, 1)
        for kind, z in {STREAM: before, FFN: added[0]}.items():
            expected = linear.moments(x, y, z[texts].flatten(0, 1))
            gathered = part[BLOCK, kind]
            torch.testing.assert_close(gathered.inputs, expected.inputs, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(gathered.both, expected.both, atol=1e-4, rtol=1e-4)
            assert gathered.change == pytest.approx(expected.change, rel=1e-4)


def test_the_sweep_reads_a_full_map(llama):
    """As applied to the output of the layer before the cut."""
    examples = tuple({"text": text, "max_tokens": 20} for text in ("abcdefgh", "xyz"))
    task = evaluation.Task("c4", examples)
    block, _ = linear.fitted(llama, BLOCK, ["full"], [calibration()])["full"]
    with linear.reading_ffn(llama, [block]):
        scores = sweep(llama, Characters(), [BLOCK, block], [task])
    plain, mapped_loss = scores.value[-2:]

    def mapped(module, args, out):
        x = out[0] if isinstance(out, tuple) else out
        new = x + x @ block.change
        return (new, *out[1:]) if isinstance(out, tuple) else new

    with dropped(llama, BLOCK):
        hook = decoder_layers(llama)[BLOCK.start - 1].register_forward_hook(mapped)
        expected = sweep(llama, Characters(), [], [task]).value[0]
        hook.remove()
    assert mapped_loss == pytest.approx(expected, abs=1e-5)
    assert mapped_loss != plain


# ---- repairs as a whole --------------------------------------------------------------------


def test_every_repair_has_its_score_and_what_it_took(output, monkeypatch):
    requests = repair.repairs("tiny-random", Distances(), SMOKE)
    table = repair.table(requests)
    assert table.value.notna().all()
    parameters = table[table.task == "c4"].set_index("repair").parameters
    assert parameters["full map"] == 32**2
    for function in ("fit", "_score"):
        monkeypatch.setattr(repair, function, lambda *a: pytest.fail("measured again"))
    again = repair.table(requests)
    assert again.value.tolist() == table.value.tolist()
    assert again.seconds.tolist() == table.seconds.tolist()


def test_the_share_repaired_is_of_the_loss_that_the_cut_adds():
    """3 nats unpruned, 5 after the cut and 4.5 repaired: a quarter of 2 nats."""
    losses = {"unpruned": 3.0, "plain cut": 5.0, "full map": 4.5}
    rows = []
    for name, loss in losses.items():
        depth = 0 if name == "unpruned" else 2
        row = score(depth, 0, repair=name, examples=np.full(100, loss))
        row |= {"task": "c4", "value": loss, "seconds": 60, "parameters": 1}
        rows.append(row)
    table = repair.summary(pd.DataFrame(rows)).set_index("repair")
    assert table.share["full map"] == pytest.approx(0.25)
    assert table.share.isna().sum() == 2
    assert set(table.minutes) == {1}
