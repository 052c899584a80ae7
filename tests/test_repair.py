"""Repairs of a cut: linear maps are least squares and fold in."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Characters, Distances, score, tiny

from lib import evaluation
from lib.blocks import Block
from lib.healing import Recipe, linear
from lib.healing.linear import STREAM
from lib.models.decoder import decoder_layers
from lib.pruning import dropped
from lib.sweep import sweep
from replication import paths, profiles
from replication.beyond import repair
from replication.measure import cache, request

SMOKE = profiles.get("smoke")
KEY = "75e60b8b9a268b9d10fad76dd66abe8ff99380a5be24be764a8dd82e34f52874"  # without `decay_steps`
BLOCK = Block(3, 2)
DIM = 6

pytestmark = pytest.mark.usefixtures("few_articles")


# ---- least squares -------------------------------------------------------------------------


def planted(change: torch.Tensor, count: int = 400, seed: int = 0) -> linear.Moments:
    """Moments of tokens whose block is linear: y = x + x A."""
    x = torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed)).double()
    return linear.moments(x, x + x @ change, x)


@pytest.fixture
def change():
    return torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(9)).double()


def test_a_planted_linear_block_is_found(change):
    solution, ridge, error = linear.solved(planted(change), planted(change, 100, 1))
    torch.testing.assert_close(solution, change, atol=1e-6, rtol=1e-6)
    assert ridge == min(linear.RIDGES) and abs(error) < 1e-9


def test_an_error_is_what_is_left(change):
    """Of moments, as of the tokens themselves: weighted by the length of y."""
    x = torch.randn(50, DIM).double()
    y, guess = x + x @ change + torch.randn(50, DIM).double(), torch.randn(DIM, DIM).double()
    weights = 1 / (y**2).sum(1)
    left = (weights[:, None] * (y - x - x @ guess) ** 2).sum()
    whole = (weights[:, None] * (y - x) ** 2).sum()
    assert linear.moments(x, y, x).error(guess) == pytest.approx(float(left / whole))


def of_one_number(both: float) -> linear.Moments:
    """Moments of states of one number, with z^2 = 1 and both = z (y - x)."""
    return linear.Moments(torch.ones(1, 1).double(), torch.full((1, 1), both).double(), 1.0)


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


def some_change(dim: int = 32) -> torch.Tensor:
    return 0.1 * torch.randn(dim, dim, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_folded_in_is_the_map_applied(name, ids):
    """Where biases and transposed weights are, too."""
    model, change = tiny(name), some_change().to(ids.device)
    before = model(ids).logits
    module = linear.projection(model, BLOCK.start - 1)
    with dropped(model, BLOCK), torch.inference_mode():
        hook = module.register_forward_hook(lambda m, args, out: out + out @ change)
        expected = model(ids).logits
        hook.remove()
        plain = model(ids).logits
    assert torch.equal(model(ids).logits, before)
    assert not torch.allclose(plain, expected, atol=1e-2)
    linear.fold(model, BLOCK, change)
    with dropped(model, BLOCK), torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gemma2", "qwen3_moe"])
def test_what_cannot_be_folded(name):
    """A norm after the FFN, or experts: no projection's output is what the stream gets."""
    with pytest.raises(ValueError, match="as it is|cannot be healed"):
        linear.projection(tiny(name), 2)
    with pytest.raises(ValueError, match="no layer before"):
        linear.projection(tiny("llama"), -1)


def calibration(texts: slice = slice(None), padding: int = 0) -> dict:
    """Some of eight texts of five tokens."""
    rows = torch.arange(40).reshape(8, 5)[texts] + 3
    batch = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
    return {name: torch.nn.functional.pad(x, (0, padding)) for name, x in batch.items()}


@pytest.mark.parametrize("at_once, padding", [(3, 0), (8, 4)])
def test_every_fourth_text_is_held_out_however_texts_are_batched(llama, at_once, padding):
    """Texts 0 and 4 of 8 and no other, by the states of the model itself; padding is no token."""
    with torch.inference_mode():
        rows = calibration()["input_ids"]
        states = llama(rows, output_hidden_states=True).hidden_states
    before, after = states[BLOCK.start], states[BLOCK.stop]
    parts = [slice(first, first + at_once) for first in range(0, 8, at_once)]
    gathered = linear._gathered(llama, BLOCK, [calibration(part, padding) for part in parts])
    for part, texts in zip(gathered, ([1, 2, 3, 5, 6, 7], [0, 4]), strict=True):
        x, y = before[texts].flatten(0, 1), after[texts].flatten(0, 1)
        expected = linear.moments(x, y, x)
        torch.testing.assert_close(part[STREAM].inputs, expected.inputs, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(part[STREAM].both, expected.both, atol=1e-4, rtol=1e-4)
        assert part[STREAM].change == pytest.approx(expected.change, rel=1e-4)


def test_the_sweep_reads_a_full_map(llama):
    """As applied by a hook before the layer after the cut."""
    task = evaluation.Task("c4", tuple({"text": t, "max_tokens": 20} for t in ("abcdefgh", "xyz")))
    block, _ = linear.fitted(llama, BLOCK, ["full"], [calibration()])["full"]
    with linear.reading_ffn(llama, [block]):
        *_, plain, mapped_loss = sweep(llama, Characters(), [BLOCK, block], [task]).value
    with dropped(llama, BLOCK):

        def mapped(module, args, kwargs):
            x = args[0] if args else kwargs["hidden_states"]
            new = x + x @ block.change
            return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})

        hook = decoder_layers(llama)[3].register_forward_pre_hook(mapped, with_kwargs=True)
        expected = sweep(llama, Characters(), [], [task]).value[0]
        hook.remove()
    assert plain != mapped_loss == pytest.approx(expected, abs=1e-5)


def test_keys_of_recipes_from_before_stay():
    recipe = profiles.recipe("tiny-random", SMOKE)
    params = request.healing("tiny-random", SMOKE, BLOCK, recipe).params
    assert Recipe(**params["recipe"]) == recipe
    assert cache.key("healing", params) == KEY


# ---- repairs as a whole --------------------------------------------------------------------


def test_every_repair_has_its_score_and_what_it_took(output, monkeypatch):
    requests = repair.repairs("tiny-random", Distances(), SMOKE)
    table = repair.table(requests)
    assert table.status.eq("ok").all() and table.value.notna().all()
    c4 = table[table.task == "c4"].set_index("repair")
    repaired = c4.drop(index=["unpruned", "plain cut"])
    assert repaired.seconds.gt(0).all() and repaired.parameters.ge(1).all()
    assert c4.parameters["full map"] == 32**2
    after, every = c4.parameters["LoRA after the cut"], c4.parameters["LoRA"]
    assert after * (8 - 4) == every * (8 - 4 - 2)
    for function in ("fit", "_score"):
        monkeypatch.setattr(repair, function, lambda *a: pytest.fail("measured again"))
    again = repair.table(requests)
    for column in ("value", "seconds", "parameters"):
        assert again[column].tolist() == table[column].tolist()


def test_a_cut_at_the_first_layer_has_no_folded_map(output):
    requests = repair.linear_maps("tiny-random", Distances(start=0), SMOKE)
    table = repair.table([r for r in requests if r.kind == "repair" and r.params["task"] == "c4"])
    absent = table[(table.repair == "folded map") & (table.strategy == "similarity")]
    assert len(absent) and absent.status.eq(repair.NO_MAP).all() and absent.value.isna().all()
    assert table.drop(index=absent.index).value.notna().all()


def test_the_recorded_minutes_are_those_that_were_timed_side_by_side():
    timed = pd.read_csv(paths.ROOT / "benchmarks/results/repairs.csv")
    timed = timed.set_index(["model", "repair"]).minutes
    drawn = pd.read_csv(paths.ROOT / "figures" / profiles.RECORDED / "figure_repair_cost.csv")
    drawn = drawn[~drawn.repair.isin(repair.NOT_REPAIRED)].set_index(["model", "repair"])
    assert set(drawn.index) == set(timed.index)
    assert drawn.minutes.tolist() == pytest.approx(timed.reindex(drawn.index).tolist())


def test_the_share_repaired_is_of_the_loss_that_the_cut_adds():
    """3 nats unpruned, 5 after the cut and 4.5 repaired: a quarter of 2 nats."""
    losses = {"unpruned": 3.0, "plain cut": 5.0, "full map": 4.5}
    rows = []
    for name, loss in losses.items():
        row = score(2 * (name != "unpruned"), 0, repair=name, examples=np.full(100, loss))
        rows.append(row | {"task": "c4", "value": loss, "seconds": 60, "parameters": 1})
    rows.append(rows[-1] | {"task": "arc_easy"})
    table = repair.summary(pd.DataFrame(rows))
    assert table.share.tolist() == pytest.approx([np.nan, np.nan, 0.25, np.nan], nan_ok=True)
    assert table.minutes.tolist() == [1] * 4


def test_fewer_steps_are_a_healing_that_notebook_03_makes_where_it_varies_their_number():
    """At a quarter of the recipe's steps, so that neither makes it twice."""
    overnight, name = profiles.get("overnight"), "LoRA, a quarter of the steps"
    requests = repair.repairs("smollm2-135m", Distances(), overnight)
    (fewer,) = {request.recipe for request in requests if request.labels["repair"] == name}
    assert fewer == profiles.recipe("smollm2-135m", overnight, steps=128)
    assert fewer.steps in overnight.dose_steps
