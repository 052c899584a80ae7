"""The sizes in the table of models, against the models themselves, without their weights."""

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from lib.healing.lora import ffn_projections
from lib.models import registry, shapes
from lib.models.decoder import decoder_layers
from lib.models.shapes import Shape
from tests import conftest

UNKNOWN = {"gemma2", "gpt2", "bloom", "deepseek_v3", "lfm2", "qwen3_next", "granitemoehybrid"}
UNKNOWN |= {"qwen3_moe"}  # as it is there: with experts in some layers only


def skeleton(shape: Shape):
    """The model of a shape on the meta device: no weights."""
    config = AutoConfig.for_model(
        shape.architecture,
        vocab_size=shape.vocab_size,
        num_hidden_layers=shape.num_layers,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head,
        tie_word_embeddings=shape.tied,
        pad_token_id=0,
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", registry.MODELS)
def test_parameters_are_those_of_the_model(name):
    shape = registry.MODELS[name].shape
    model = skeleton(shape)
    assert shape.parameters() == count(model)
    assert shape.layer == count(decoder_layers(model)[0])
    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=ffn_projections(model)))
    trained = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    assert shape.lora(4, shape.num_layers) == trained


@pytest.mark.parametrize("architecture", conftest.ARCHITECTURES)
def test_shape_of_a_local_folder(architecture, tmp_path):
    model = conftest.tiny(architecture)
    model.config.save_pretrained(tmp_path)
    shape = registry.shape(str(tmp_path))
    if architecture in UNKNOWN:
        assert shape is None
    else:
        assert shape.parameters() == count(model)
    assert registry.num_layers(str(tmp_path)) == conftest.LAYERS


def test_shape_of_the_text_part_of_a_multimodal_model():
    text = transformers.Gemma3TextConfig(num_hidden_layers=5)
    raw = transformers.Gemma3Config(text_config=text).to_dict()
    assert shapes.of_config(raw) == shapes.of_config(text.to_dict())
    assert shapes.of_config(raw).num_layers == 5


@pytest.mark.parametrize(
    "config",
    [
        transformers.MixtralConfig(**conftest.GROUPED, num_local_experts=4, num_experts_per_tok=2),
        transformers.Qwen3MoeConfig(
            **conftest.GROUPED,
            head_dim=8,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
        ),
        transformers.OlmoeConfig(**conftest.GROUPED, num_experts=4, num_experts_per_tok=2),
    ],
    ids=lambda config: config.model_type,
)
def test_every_expert_counts(config):
    shape = shapes.of_config(config.to_dict())
    assert shape.experts == 4 and shape.active < shape.layer
    assert shape.parameters() == count(AutoModelForCausalLM.from_config(config))


def test_qwen_1_counts_both_halves_of_its_ffn():
    table = registry.MODELS["qwen-7b"].shape
    raw = {
        "model_type": "qwen", "num_hidden_layers": 32, "hidden_size": 4096, "vocab_size": 151936,
        "intermediate_size": 22016, "num_attention_heads": 32, "seq_length": 8192,
        "tie_word_embeddings": False,
    }  # fmt: skip
    assert shapes.of_config(raw).parameters() == table.parameters()


def test_a_gguf_file_has_the_shape_of_what_it_is_unpacked_to(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.paths.CHECKPOINTS", tmp_path / "checkpoints")
    file = tmp_path / "tiny.gguf"
    conftest.gguf(file, layers=3)
    assert registry.shape(str(file)) is None and registry.num_layers(str(file)) is None
    model = conftest.tiny("llama")
    model.config.save_pretrained(registry.unpacked(file, registry.resolve(str(file)).revision))
    assert registry.shape(str(file)).parameters() == count(model)
    assert registry.num_layers(str(file)) == conftest.LAYERS
