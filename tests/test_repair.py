"""Repairs of a cut: linear maps are least squares and fold in."""

import numpy as np
import pytest
import torch
import transformers
from conftest import ARCHITECTURES, SIZE, VOCAB, Distances, tiny

from lib.blocks import Block
from lib.data import sets
from lib.healing import linear
from lib.models import loading
from lib.models.decoder import decoder_layers
from lib.pruning import dropped
from lib.sweep import sweep
from replication import profiles
from replication.beyond import repair
from replication.measure import request

SMOKE = profiles.get("smoke")
BLOCK = Block(3, 2)


# ---- by hand -------------------------------------------------------------------------------


def z_of(model, block: Block, kind: str):
    """The module whose output is z: the layer before the block, or its FFN's last projection."""
    layer = decoder_layers(model)[block.start - 1]
    last = {"falcon": "dense_4h_to_h"}.get(model.config.model_type, "down_proj")
    return layer if kind == "full" else getattr(layer.mlp, last)


def by_hand(model, block: Block, kind: str, texts: list[list[int]]) -> tuple:
    """A map A of token ids, its ridge, and what it leaves of every fourth text, the longest first.

    By hooks in the whole model, which reads each text alone, and NumPy.
    """
    layers = decoder_layers(model)
    noted = []
    modules = z_of(model, block, kind), layers[block.start - 1], layers[block.stop - 1]

    def note(module, args, out):
        states = out[0] if isinstance(out, tuple) else out
        noted.append(states[0].double().cpu())

    hooks = [module.register_forward_hook(note) for module in modules]
    fit, held = [], []
    for number, ids in enumerate(sorted(texts, key=len, reverse=True)):
        noted.clear()
        with torch.inference_mode():
            model(torch.tensor([ids], device=model.device))
        z, x, y = noted
        lengths = y.norm(dim=1, keepdim=True)
        relative = torch.cat([z, y - x], 1) / lengths
        (fit if number % 4 else held).append(relative)
    for hook in hooks:
        hook.remove()
    (z, change), (held_z, held_change), every = (
        np.split(np.vstack(part), 2, axis=1) for part in (fit, held, held + fit)
    )

    def solved(z, change, ridge):
        gram = z.T @ z
        penalty = ridge * np.trace(gram) / len(gram)
        return np.linalg.solve(gram + penalty * np.eye(len(gram)), z.T @ change)

    def left(ridge):
        rest = held_change - held_z @ solved(z, change, ridge)
        return (rest**2).sum() / (held_change**2).sum()

    ridge = min(10.0 ** np.arange(-8, 4), key=left)
    return torch.tensor(solved(*every, ridge)).float(), ridge, left(ridge)


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
