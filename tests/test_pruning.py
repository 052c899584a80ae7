"""A model without a block, in memory and as a checkpoint."""

import json

import pytest
import torch
from conftest import DEVICE, LAYERS, logits, stored, tiny
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from lib.blocks import Block
from lib.models import loading
from lib.models.decoder import decoder_config, decoder_layers
from lib.models.files import keep_configuration
from lib.models.layers import pruned_config
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


# ---- config.json, and what is not the model ------------------------------------------------

V4 = {  # entries as transformers 4 wrote them, which transformers 5 reads and writes otherwise
    "llama": {"rope_theta": 77.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "qwen2": {"rope_theta": 77.0},
    "gemma3": {"rope_theta": 77.0, "rope_local_base_freq": 20.0, "sliding_window_pattern": 3},
    "gpt_neox": {"rotary_emb_base": 77, "rotary_pct": 0.5},
    "gpt2": {"n_ctx": 128},
    "qwen3_moe": {"rope_theta": 77.0},
    "lfm2": {"rope_theta": 77.0, "full_attn_idxs": [1, 4]},
    "gemma3_vision": {},  # and as transformers 5 writes them
    "qwen3_5": {},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba"] * 2},
}
CHANGED = {  # by dropping layers 2 and 3, beside what changes in all
    "qwen2": {"max_window_layers": 2},
    "qwen3_moe": {"mlp_only_layers": [1, 2]},
    "lfm2": {"full_attn_idxs": [1, 2]},
}


@pytest.mark.parametrize("name", V4)
def test_config_json_stays_that_of_the_base_but_for_the_cut(name, ids, tmp_path):
    """So that transformers 4 reads the same rope of both; and transformers 5 the same model."""
    file = stored(tiny(name), tmp_path / "base") / "config.json"
    raw = json.loads(file.read_text()) | {"not_known": {"layers": [1] * 5}, "auto_map": {}}
    if V4[name]:
        raw = {key: raw[key] for key in raw.keys() - {"rope_parameters", "layer_types", "dtype"}}
        raw |= V4[name] | {"torch_dtype": "float32", "transformers_version": "4.50.0"}
    file.write_text(json.dumps(raw))
    block = Block(2, 2)
    whole, tokenizer = loading.load(str(file.parent), dtype="float32")
    cut = save_pruned(whole, tokenizer, block, tmp_path / "cut")
    count = "n_layer" if name == "gpt2" else "num_hidden_layers"
    changed = {count: 4, "layer_numbers": [0, 1, 4, 5]} | CHANGED.get(name, {})
    kinds = getattr(whole.config.get_text_config(decoder=True), "layer_types", None)
    if kinds:
        kinds = V4[name].get("layer_types", kinds)  # in the base's own words
        changed["layer_types"] = kinds[:2] + kinds[4:]
    expected = {key: value for key, value in raw.items() if key != "auto_map"}
    if name == "qwen3_5":  # of which the text part is left
        expected = raw["text_config"] | {"architectures": ["Qwen3_5ForCausalLM"]}
    expected.get("text_config", expected).update(changed)
    assert json.loads((cut / "config.json").read_text()) == expected
    plain = AutoModelForCausalLM.from_pretrained(cut, dtype=torch.float32).to(DEVICE).eval()
    with dropped(whole, block):
        assert torch.equal(logits(plain, ids), logits(whole, ids))


OF_LAYERS = {  # a letter for each layer; kinds of layers, and how often in turn
    "nemotron_h": (
        {"num_hidden_layers": 4, "hybrid_override_pattern": "ME*-"},
        {"num_hidden_layers": 3, "hybrid_override_pattern": "M*-"}
        | {"layers_block_type": ["linear_attention", "full_attention", "mlp"]},
    ),
    "gpt_neo": (
        {"num_layers": 4, "attention_types": [[["global", "local"], 2]]},
        {"num_layers": 3, "attention_types": [[["global", "global", "local"], 1]]}
        | {"attention_layers": ["global", "global", "local"]},
    ),
}


@pytest.mark.parametrize("family", OF_LAYERS)
def test_what_is_said_of_each_layer_follows_the_cut(family, tmp_path):
    """Though transformers 5 does not read it, or by another rule."""
    entries, expected = OF_LAYERS[family]
    raw = {"model_type": family} | entries
    base, cut = tmp_path / "base", tmp_path / "cut"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(raw))
    pruned_config(AutoConfig.from_pretrained(base), [0, 2, 3]).save_pretrained(cut)
    keep_configuration(base, cut)
    own = json.loads((cut / "config.json").read_text())
    assert own == raw | expected | {"layer_numbers": [0, 2, 3]}


@pytest.mark.parametrize("damaged", ["model.safetensors", "config.json"])
def test_a_checkpoint_that_is_not_the_model_is_not_saved(
    llama, tokenizer, tmp_path, monkeypatch, damaged
):
    """A tensor, or the angles of the rotary embedding, are others in the files."""
    save = type(llama).save_pretrained

    def save_another(self, folder, **kwargs):
        save(self, folder, **kwargs)
        file = folder / damaged
        if damaged == "config.json":
            entries = json.loads(file.read_text())
            entries["rope_parameters"]["rope_theta"] = 77.0
            file.write_text(json.dumps(entries))
        else:
            tensors = load_file(file)
            tensors["lm_head.weight"] = -tensors["lm_head.weight"]
            save_file(tensors, file, {"format": "pt"})

    monkeypatch.setattr(type(llama), "save_pretrained", save_another)
    with pytest.raises(RuntimeError, match="computes otherwise"):
        save_pruned(llama, tokenizer, Block(1, 3), tmp_path / "pruned")
    assert list(tmp_path.iterdir()) == []
