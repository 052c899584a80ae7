"""A model without a block, in memory and as a checkpoint."""

import json
from functools import partial

import pytest
import torch
from conftest import DEVICE, LAYERS, logits, tiny
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lib.blocks import Block, simple_block
from lib.models.decoder import decoder_config, decoder_layers
from lib.models.registry import ModelError
from lib.pruning import dropped, save_pruned

CUTS = [Block(0, 1), Block(1, 3), Block(3, 3)]


def test_dropped_removes_the_layers_named(model, ids):
    layers = list(decoder_layers(model))
    with dropped(model, Block(1, 3)):
        assert list(decoder_layers(model)) == [layers[0], layers[4], layers[5]]
        assert decoder_config(model).num_hidden_layers == 3
    assert list(decoder_layers(model)) == layers


@pytest.mark.parametrize("block", CUTS, ids=str)
def test_saved_equals_dropped(model, ids, block, tmp_path, tokenizer):
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
    indices = [getattr(m, "layer_idx", None) for m in model.modules()]
    with pytest.raises(RuntimeError, match="inside"), dropped(model, Block(1, 3)):
        raise RuntimeError("inside")
    assert model.config.to_dict() == config
    assert [getattr(m, "layer_idx", None) for m in model.modules()] == indices
    assert torch.equal(logits(model, ids), before)


def test_config_lists_thresholds_and_indices_follow_the_cut():
    model = tiny("smollm3")
    with dropped(model, Block(1, 3)):
        assert model.config.no_rope_layers == [1, 0, 1]
        assert model.config.layer_types == ["sliding_attention"] * 2 + ["full_attention"]
        assert [l.self_attn.layer_idx for l in decoder_layers(model)] == [0, 1, 2]
    model = tiny("qwen2")
    with dropped(model, Block(1, 3)):
        assert model.config.max_window_layers == 1
        assert model.config.layer_types == ["full_attention"] + ["sliding_attention"] * 2


def with_another_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def with_another_weight(folder, name):
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {name: -tensors[name]}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    "damage, problem",
    [
        (partial(with_another_config, num_hidden_layers=LAYERS), "do not belong together"),
        (partial(with_another_config, rms_norm_eps=0.5), "computes otherwise"),
        (partial(with_another_weight, name="model.layers.2.mlp.up_proj.weight"), "otherwise"),
        (partial(with_another_weight, name="lm_head.weight"), "otherwise"),
    ],
)
def test_a_checkpoint_that_is_not_the_model_is_not_saved(
    llama, tokenizer, tmp_path, monkeypatch, damage, problem
):
    """Say one whose configuration does not follow the cut."""
    save = type(llama).save_pretrained

    def damaged(self, folder, **kwargs):
        save(self, folder, **kwargs)
        damage(folder)

    monkeypatch.setattr(type(llama), "save_pretrained", damaged)
    with pytest.raises((RuntimeError, ModelError), match=problem):
        save_pruned(llama, tokenizer, Block(1, 3), tmp_path / "pruned")
    assert list(tmp_path.iterdir()) == []


def test_save_refuses_a_folder_that_exists(llama, tokenizer, tmp_path):
    with pytest.raises(FileExistsError, match="exists already"):
        save_pruned(llama, tokenizer, Block(1, 1), tmp_path)


def test_simple_block_keeps_the_last_layer():
    assert simple_block(30, 1) == Block(28, 1)
    assert simple_block(30, 6) == Block(23, 6)
    assert simple_block(30, 29) == Block(0, 29)


def test_blocks_that_make_no_sense(llama):
    with pytest.raises(ValueError, match="at least 0"):
        Block(-1, 2)
    with pytest.raises(ValueError, match="at least one must stay"):
        simple_block(6, 6)
    for block in (Block(0, LAYERS), Block(4, 3)):
        with pytest.raises(ValueError, match="at least one must stay"), dropped(llama, block):
            pass
