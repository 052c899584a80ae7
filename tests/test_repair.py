"""Repairs of a cut: linear maps are least squares and fold in."""

import pytest
import torch
import transformers
from conftest import ARCHITECTURES, SIZE, VOCAB, Distances, tiny
from least_squares import by_hand, z_of

from lib.blocks import Block
from lib.data import sets
from lib.healing import linear
from lib.models import loading
from lib.pruning import dropped
from lib.sweep import sweep
from replication import profiles
from replication.beyond import repair
from replication.measure import request

SMOKE = profiles.get("smoke")
BLOCK = Block(3, 2)


def mapped_loss(base, block: Block, kind: str, change: torch.Tensor, task) -> float:
    """The loss after the cut, where a hook adds z A."""

    def add(module, args, out):
        return out + (out.float() @ change.to(out.device)).to(out.dtype)

    with dropped(base[0], block):
        hook = z_of(base[0], block, kind).register_forward_hook(add)
        loss = sweep(*base, [], [task]).value.item()
        hook.remove()
    return loss


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
    with pytest.raises(ValueError, match="as it is|experts"):
        linear.projection(tiny(name), 2)


@pytest.mark.parametrize(
    "name, kind", [("llama", "full"), ("llama", "folded"), ("falcon", "folded")]
)
def test_maps_are_least_squares_however_texts_are_batched(name, kind, monkeypatch):
    """Every fourth text chooses the ridge, all make the map; padding is no token.

    Falcon adds attention, in place, to what its FFN gives.
    """
    monkeypatch.setitem(ARCHITECTURES, "falcon", lambda: transformers.FalconConfig(**SIZE))
    model = tiny(name)
    texts = torch.randint(3, VOCAB, (9, 20), generator=torch.Generator().manual_seed(2))
    padded = torch.nn.functional.pad(texts, (0, 4)).split(3)
    batches = [{"input_ids": ids, "attention_mask": ids.ne(0)} for ids in padded]
    maps = linear.fitted_all(model, [BLOCK, Block(2, 3), Block(3, 1)], repair.KINDS, batches)
    for block, of_block in maps.items():
        fitted, facts = of_block[kind]
        change, *expected = by_hand(model, block, kind, texts.tolist())
        torch.testing.assert_close(fitted.change.cpu(), change, atol=1e-4, rtol=1e-3)
        assert [facts["ridge"], facts["error"]] == pytest.approx(expected, rel=1e-4)


# ---- repairs as a whole --------------------------------------------------------------------


def test_every_repair_has_its_score_and_what_it_took(output, monkeypatch):
    requests = repair.linear_maps("tiny-random", Distances(), SMOKE)
    table = repair.table(requests)
    assert table.value.notna().all()
    base, block = loading.load("tiny-random", dtype="float32"), Block(2, 4)
    of_block = (table.strategy == "similarity") & (table.block_size == block.size)
    rows = table[of_block & (table.task == "c4")].set_index("repair")
    texts = sets.healing_texts("wheels", 6)[:6]
    tokens = base[1](texts, truncation=True, max_length=SMOKE.map_tokens).input_ids
    task = request.load_task(request.task_params("c4", SMOKE))
    for kind in repair.KINDS:
        change, _, error = by_hand(base[0], block, kind, tokens)
        row = rows.loc[f"{kind} map"]
        loss = mapped_loss(base, block, kind, change, task)
        assert (row.value, row.error) == pytest.approx((loss, error), abs=1e-5)
        assert row.parameters == 32**2
    for function in ("fit", "_score"):
        monkeypatch.setattr(repair, function, lambda *a: pytest.fail("measured again"))
    again = repair.table(requests)
    assert again.value.tolist() == table.value.tolist()
    assert again.seconds.tolist() == table.seconds.tolist()
