"""A model without a block, in memory and as a checkpoint."""

import pytest
import torch
from conftest import DEVICE, LAYERS, logits
from transformers import AutoModelForCausalLM

from lib.blocks import Block
from lib.models.decoder import decoder_config, decoder_layers
from lib.pruning import dropped, save_pruned


def test_dropped_removes_the_layers_named(model, ids):
    layers = list(decoder_layers(model))
    with dropped(model, Block(1, 3)):
        assert list(decoder_layers(model)) == [layers[0], layers[4], layers[5]]
        assert decoder_config(model).num_hidden_layers == 3
    assert list(decoder_layers(model)) == layers


def test_saved_equals_dropped(model, ids, tmp_path, tokenizer):
    block = Block(1, 3)
    folder = save_pruned(model, tokenizer, block, tmp_path / "pruned")
    reloaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(DEVICE).eval()
    assert len(decoder_layers(reloaded)) == LAYERS - block.size
    with dropped(model, block):
        assert torch.equal(logits(model, ids), logits(reloaded, ids))


def test_generates_with_a_cache_after_a_cut(model, ids):
    """Greedy decoding with the cache gives the tokens of recomputing everything each step."""
    with dropped(model, Block(1, 3)), torch.inference_mode():
        cached = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None)
        whole = ids
        for _ in range(6):
            whole = torch.cat([whole, model(whole).logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(cached, whole)


def test_everything_comes_back_after_an_error(model, ids):
    config = model.config.to_dict()
    before = logits(model, ids)
    with pytest.raises(RuntimeError, match="inside"), dropped(model, Block(1, 3)):
        raise RuntimeError("inside")
    assert model.config.to_dict() == config
    assert torch.equal(logits(model, ids), before)


def test_a_full_disk_is_one_sentence(llama, tokenizer, tmp_path, monkeypatch):
    """Also where a tokenizer's own code, which knows no OSError, is the first to meet it."""

    def full(folder):
        raise Exception("No space left on device (os error 28)")

    monkeypatch.setattr(tokenizer, "save_pretrained", full, raising=False)
    with pytest.raises(OSError, match="could not be written: No space left"):
        save_pruned(llama, tokenizer, Block(1, 3), tmp_path / "pruned")
    assert list(tmp_path.iterdir()) == []
