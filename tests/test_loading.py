"""Only what stays is read, from every layout of a checkpoint; and what is damaged says so."""

import json

import numpy as np
import pytest
import torch
import transformers
from conftest import (
    ARCHITECTURES,
    EXPERTS,
    GROUPED,
    LAYERS,
    SIZE,
    WINDOW,
    built,
    in_nf4,
    logits,
    stored,
    tiny,
)
from transformers.pytorch_utils import Conv1D

from lib import similarity
from lib.blocks import Block
from lib.models import files, loading
from lib.models.decoder import decoder_layers
from lib.models.registry import ModelError
from lib.pruning import dropped

CUTS = [Block(1, 3), Block(0, 2), Block(4, 2)]


@pytest.fixture
def folder(architecture, tmp_path):
    """A checkpoint in several shards, with an index."""
    return stored(tiny(architecture), tmp_path / "model", max_shard_size="60KB")


def test_reads_what_transformers_reads_and_leaves_out_a_block(folder, architecture, ids):
    assert len(list(folder.glob("*.safetensors"))) > 1
    whole, _ = loading.load(str(folder), dtype="float32")
    assert torch.equal(logits(whole, ids), logits(tiny(architecture), ids))
    for block in CUTS:
        part, _ = loading.load(str(folder), dtype="float32", block=block)
        assert len(decoder_layers(part)) == LAYERS - block.size
        with dropped(whole, block):
            assert torch.equal(logits(part, ids), logits(whole, ids)), block


def test_nf4_is_what_bitsandbytes_makes_of_the_weights(folder, architecture, ids):
    whole, _ = loading.load(str(folder), dtype="float32", quantization="nf4")
    plain = tiny(architecture)
    seen = 0
    for name, module in whole.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not whole.get_output_embeddings():
            original = plain.get_submodule(name)
            weight = original.weight.data
            weight = weight.T.contiguous() if isinstance(original, Conv1D) else weight
            expected = in_nf4(weight)
            seen += torch.equal(module.weight, expected)
            assert torch.equal(module.weight, expected) or torch.equal(module.weight, weight), name
    quantised = [m for m in decoder_layers(whole).modules() if isinstance(m, torch.nn.Linear)]
    assert seen == len(quantised) or architecture in EXPERTS
    part, _ = loading.load(str(folder), dtype="float32", quantization="nf4", block=CUTS[0])
    with dropped(whole, CUTS[0]):
        assert torch.equal(logits(part, ids), logits(whole, ids))


def test_dropped_layers_are_never_read(tmp_path, monkeypatch):
    """Nor anything twice."""
    folder, read = stored(tiny("llama"), tmp_path / "model"), []

    class Watched:
        def __init__(self, name, tensor):
            self.name, self.tensor = name, tensor

        def __getitem__(self, index):
            read.append(self.name)
            return self.tensor[index]

        def __getattr__(self, attribute):
            return getattr(self.tensor, attribute)

    tensors = {n: Watched(n, t) for n, t in files.lazy_state_dict(folder).items()}
    monkeypatch.setattr(files, "lazy_state_dict", lambda folder: tensors)
    loading.load(str(folder), dtype="float32", block=Block(2, 3))
    cut = tuple(f"model.layers.{layer}." for layer in (2, 3, 4))
    assert sorted(read) == sorted(name for name in tensors if not name.startswith(cut))


def test_a_model_partly_on_the_disk_has_the_same_distances(tmp_path, ids):
    """As transformers places one that is larger than the memory."""
    model = tiny("llama")
    folder, batches = stored(model, tmp_path / "model"), [{"input_ids": ids}]
    batches[0]["attention_mask"] = torch.ones_like(ids)
    places = dict.fromkeys(["model.embed_tokens", "model.norm", "model.rotary_emb"], "cpu")
    places |= {"lm_head": "cpu"} | {f"model.layers.{l}": "disk" for l in range(LAYERS)}
    offloaded = transformers.AutoModelForCausalLM.from_pretrained(
        folder, device_map=places, offload_folder=tmp_path / "offload", dtype=torch.float32
    )
    assert offloaded.model.layers[1].mlp.up_proj.weight.device.type == "meta"
    pair = (similarity.block_distances(each, batches).matrix for each in (model, offloaded))
    np.testing.assert_array_equal(*pair)


# ---- layers that depend on their place ------------------------------------------------------


def diff_llama():
    return transformers.DiffLlamaConfig(**GROUPED)


def inverse_gpt2():
    config = ARCHITECTURES["gpt2"]()
    config.scale_attn_by_inverse_layer_idx = True
    return config


def gemma3n():
    """Weights for each layer stand outside of the layers."""
    own = {"head_dim": 8, "hidden_size_per_layer_input": 8, "laurel_rank": 4}
    return transformers.Gemma3nTextConfig(
        **GROUPED | own,
        num_kv_shared_layers=0,
        layer_types=["full_attention"] * LAYERS,
        vocab_size_per_layer_input=SIZE["vocab_size"],
        altup_num_inputs=2,
        activation_sparsity_pattern=[0.0] * LAYERS,
    )


def dory():
    return transformers.DoryConfig(**GROUPED, head_dim=8)  # runs its middle layers twice


def jamba():
    return transformers.JambaConfig(
        **GROUPED,
        attn_layer_period=3,  # kinds of layers by a formula of their place
        attn_layer_offset=1,
        expert_layer_period=2,
        num_experts=2,
        use_mamba_kernels=False,
    )


CONFIGS = [diff_llama, inverse_gpt2, dory, gemma3n, jamba]


@pytest.mark.parametrize("config", CONFIGS)
def test_what_cannot_follow_a_cut_is_refused(config, tmp_path):
    """The first three would load and give wrong numbers; the others would fail in between."""
    folder = stored(built(config()), tmp_path / "model")
    with pytest.raises(ModelError):
        loading.load(str(folder), block=Block(1, 2))


def test_what_cannot_be_cut_in_memory_is_refused():
    with pytest.raises(ModelError, match="outside of the layers|something else its decoder"):
        with dropped(built(gemma3n()), Block(1, 2)):
            pass


def test_as_many_rotary_embeddings_as_layers(tmp_path, ids):
    """Granite-SWA has a list of them, which is no list of layers."""
    config = transformers.GraniteSWAConfig(**GROUPED, sliding_window=WINDOW)
    model = built(config)
    folder = stored(model, tmp_path / "model")
    for block in (Block(1, 2), Block(0, 4), Block(0, 5)):
        part, _ = loading.load(str(folder), dtype="float32", block=block)
        with dropped(model, block):
            assert torch.equal(logits(part, ids), logits(model, ids)), block


def test_layers_that_call_their_number_otherwise_generate(ids):
    config = transformers.GPTNeoConfig(
        **SIZE,
        attention_types=[[["global", "local"], LAYERS // 2]],
        window_size=WINDOW,
        max_position_embeddings=128,
    )
    model = built(config)
    with dropped(model, Block(1, 2)), torch.inference_mode():
        cached = model.generate(ids, max_new_tokens=4, do_sample=False, eos_token_id=None)
        whole = ids
        for _ in range(4):
            whole = torch.cat([whole, logits(model, whole)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(cached, whole)


# ---- damage ------------------------------------------------------------------------------------


@pytest.fixture
def llama_folder(tmp_path):
    return stored(tiny("llama"), tmp_path / "model", max_shard_size="60KB")


def cut_short(folder):
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])


def without_a_shard(folder):
    sorted(folder.glob("*.safetensors"))[1].unlink()


def with_config(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def without_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()


def cut_off(name: str):
    def change(folder):
        (folder / name).write_text((folder / name).read_text()[:20])

    return change


@pytest.mark.parametrize(
    "damage, problem",
    [
        (cut_short, "damaged"),
        (without_a_shard, "missing"),
        (cut_off(files.INDEX), "damaged"),
        (cut_off("config.json"), "config.json"),
        (with_config(num_hidden_layers=7), "7 layers"),
        (with_config(vocab_size=97), "not those of its config.json"),
        (with_config(model_type="nonsense"), "no model"),
        (with_config(model_type="bert"), "not a decoder"),
        (with_config(model_type="t5"), "no decoder"),
        (with_config(model_type="qwen"), "seq_length"),
        (with_config(quantization_config={"quant_method": "awq", "bits": 4}), "quantised already"),
        (without_tokenizer, "no tokenizer"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_damaged_checkpoint_is_refused(llama_folder, damage, problem):
    damage(llama_folder)
    with pytest.raises(ModelError, match=problem):
        loading.load(str(llama_folder))


def test_a_damaged_gguf_file(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.paths.CHECKPOINTS", tmp_path / "checkpoints")
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF\x03\x00\x00\x00 and no more")
    with pytest.raises(ModelError, match="model.gguf"):
        loading.load(str(file))
    assert not [p for p in (tmp_path / "checkpoints").iterdir() if p.is_dir()]
