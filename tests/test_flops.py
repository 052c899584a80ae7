"""The plan's FLOPs against those that PyTorch counts, on models without weights."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PhiConfig

from lib import profiles
from lib.models import adapters, documents, registry
from lib.plan import assumptions, costs

LAYERS, TOKENS = 8, 64  # of few tokens, attention is a small part: there only half of it is needed
CONFIGS = {"llama-2-7b": LlamaConfig, "mistral-7b": MistralConfig, "phi-2": PhiConfig}


def built(name: str):
    """The model with LAYERS layers, on no device."""
    shape = registry.shape(name)
    config = CONFIGS[name](
        num_hidden_layers=LAYERS,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocab_size,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return shape, AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation=documents.NAME
        )


@pytest.mark.parametrize("name", CONFIGS)
def test_a_healing_takes_the_flops_that_pytorch_counts(name):
    shape, model = built(name)
    recipe = profiles.recipe(name, profiles.get("paper", steps=1), batch=1, rank=64)
    recipe = replace(recipe, packed=True, max_tokens=TOKENS, dropout=0.0)
    ids = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
    with adapters.fresh(model, recipe) as wrapped:
        with FlopCounterMode(display=False) as counter:
            wrapped(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    card = assumptions.get("a100-80")
    planned = costs.healing(shape, LAYERS, recipe, "nf4", card, micro_batch=1)
    assert planned.flops == pytest.approx(counter.get_total_flops(), rel=0.05)


@pytest.mark.parametrize("name", CONFIGS)
def test_reading_takes_the_flops_that_pytorch_counts(name):
    shape, model = built(name)
    asked = {"max_tokens": TOKENS, "batch_tokens": TOKENS, "sequences": 1}
    card = assumptions.get("a100-80")
    planned = costs.similarity(shape, asked, "nf4", card)
    ids = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.model(input_ids=ids, use_cache=False)
    counted = counter.get_total_flops() / LAYERS / TOKENS
    assert planned.flops / planned.applications == pytest.approx(counted, rel=0.05)
