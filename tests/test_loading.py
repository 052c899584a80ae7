"""Only what stays is read, from every layout of a checkpoint; and what is damaged says so."""

import json

import pytest
import torch
import transformers
from conftest import (
    ARCHITECTURES,
    DEVICE,
    EXPERTS,
    GROUPED,
    LAYERS,
    built,
    in_nf4,
    logits,
    stored,
    tiny,
)
from transformers.models.auto import modeling_auto as auto
from transformers.pytorch_utils import Conv1D

from lib import paths, storage
from lib.blocks import Block
from lib.gpu import norms
from lib.models import files, layers, loading
from lib.models.decoder import decoder_layers
from lib.models.registry import ModelError
from lib.pruning import dropped
from scripts import families

FAMILIES = paths.ROOT / "lib" / "models" / "families.csv"
CUTS = [Block(1, 3), Block(0, 2), Block(4, 2)]


@pytest.fixture
def folder(architecture, tmp_path):
    """A checkpoint in several shards, with an index."""
    return stored(tiny(architecture), tmp_path / "model", max_shard_size="60KB")


def test_reads_what_transformers_reads_and_leaves_out_a_block(folder, architecture, ids):
    assert len(list(folder.glob("*.safetensors"))) > 1
    whole, _ = loading.load(str(folder), dtype="float32")
    plain = tiny(architecture)
    if DEVICE != "cpu":
        norms.fuse_norms(plain)
    assert torch.equal(logits(whole, ids), logits(plain, ids))
    for block in CUTS:
        part, _ = loading.load(str(folder), dtype="float32", block=block)
        assert len(decoder_layers(part)) == LAYERS - block.size
        with dropped(whole, block):
            expected = logits(whole, ids)
        assert torch.equal(logits(part, ids), expected), block


def test_files_may_name_their_layers_in_another_way(tmp_path, ids):
    """Those of EXAONE do; transformers translates them."""
    whole = built(transformers.ExaoneConfig(**GROUPED))
    folder = stored(whole, tmp_path / "model")
    part, _ = loading.load(str(folder), dtype="float32", block=CUTS[0])
    with dropped(whole, CUTS[0]):
        assert torch.equal(logits(part, ids), logits(whole, ids))


def test_nf4_is_what_bitsandbytes_makes_of_the_weights(folder, architecture, ids):
    whole, _ = loading.load(str(folder), dtype="float32", quantization="nf4")
    plain = tiny(architecture)
    count = 0
    for name, module in whole.get_decoder().named_modules():
        if isinstance(module, torch.nn.Linear):
            original = plain.get_decoder().get_submodule(name)
            weight = original.weight.data
            if isinstance(original, Conv1D):
                weight = weight.T.contiguous()
            is_quantised = torch.equal(module.weight, in_nf4(weight))
            count += is_quantised
            assert is_quantised or torch.equal(module.weight, weight), name
    modules = decoder_layers(whole).modules()
    matrices = [module for module in modules if isinstance(module, torch.nn.Linear)]
    assert count == len(matrices) or architecture in EXPERTS
    block = CUTS[0]
    part, _ = loading.load(str(folder), dtype="float32", quantization="nf4", block=block)
    with dropped(whole, block):
        expected = logits(whole, ids)
    assert torch.equal(logits(part, ids), expected)


def test_nf4_without_bitsandbytes_is_one_sentence(monkeypatch):
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install bitsandbytes"):
        loading.load("tiny-random", quantization="nf4")


# ---- layers that depend on their place ------------------------------------------------------


def diff_llama():
    return transformers.DiffLlamaConfig(**GROUPED)


def inverse_gpt2():
    config = ARCHITECTURES["gpt2"]()
    config.scale_attn_by_inverse_layer_idx = True
    return config


def dory():
    return transformers.DoryConfig(**GROUPED, head_dim=8)  # runs its middle layers twice


def zamba2():
    return families.tiny(transformers.Zamba2Config)  # parts of a layer are found by its place


CONFIGS = [diff_llama, inverse_gpt2, dory, zamba2]


@pytest.mark.parametrize("config", CONFIGS)
def test_what_cannot_follow_a_cut_is_refused(config, tmp_path):
    """All would load and give wrong numbers."""
    folder = stored(built(config()), tmp_path / "model")
    with pytest.raises(ModelError):
        loading.load(str(folder), block=Block(3, 2))


def test_every_family_is_read_as_its_language_model_only():
    """Not one that classifies or embeds, whose layers would pass for those of a language model."""
    refused = ["MODEL", "MODEL_FOR_SEQUENCE_CLASSIFICATION", "MODEL_FOR_QUESTION_ANSWERING"]
    names = [getattr(auto, f"{kind}_MAPPING_NAMES") for kind in refused]
    read = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    seen = auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    families = [row["family"] for row in storage.rows(FAMILIES) if row["cut"] == "yes"]
    config = transformers.LlamaConfig()
    for family in families:
        for right in {read[family], seen.get(family, read[family])}:
            config.architectures = [right]
            assert files.is_language_model(config)
        for wrong in {of.get(family) for of in names} - {None, read[family], seen.get(family)}:
            config.architectures = [wrong]
            assert not files.is_language_model(config), wrong
    assert len(families) > 100 and files.is_language_model(transformers.LlamaConfig())


PADDED = "BioGpt Bloom CodeGen Falcon GPT2 GPTBigCode Llama OPT OpenAIGPT XGLM"


@pytest.mark.parametrize("name", PADDED.split())
def test_a_token_for_padding_is_no_reason_to_refuse(name):
    """As most fine-tunings have one: some models look for it in what they read."""
    layers.check(getattr(transformers, f"{name}Config")(pad_token_id=0))


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


@pytest.mark.parametrize(
    "damage, problem",
    [
        (cut_short, "damaged"),
        (without_a_shard, "missing"),
        (with_config(num_hidden_layers=7), "7 layers"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_damaged_checkpoint_is_refused(llama_folder, damage, problem):
    damage(llama_folder)
    with pytest.raises(ModelError, match=problem):
        loading.load(str(llama_folder))
