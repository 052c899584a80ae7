"""The plan's FLOPs against those that PyTorch counts, on models without weights."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PhiConfig

from lib.blocks import Block
from lib.data.encoding import Row
from lib.healing import linear, lora, packing
from lib.models import registry
from lib.models.shapes import of_config
from lib.sweep import target_logprobs
from replication import profiles
from replication.plan import assumptions, costs

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
            config, dtype=torch.float32, attn_implementation=packing.NAME
        )


@pytest.mark.parametrize("first_layer", [0, 5])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_healing_takes_the_flops_that_pytorch_counts(name, first_layer):
    shape, model = built(name)
    recipe = profiles.recipe(name, profiles.get("paper", steps=1), batch=1, rank=64)
    recipe = replace(recipe, packed=True, max_tokens=TOKENS, dropout=0.0, first_layer=first_layer)
    ids = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
    with lora.new_lora(model, recipe) as wrapped:
        with FlopCounterMode(display=False) as counter:
            wrapped(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    card = assumptions.get("a100-80")
    planned = costs.healing(shape, LAYERS, recipe, "nf4", card, micro_batch=1)
    rel = 0.08 if first_layer else 0.05  # the plan goes back through all of the first one
    assert planned.flops == pytest.approx(counter.get_total_flops(), rel=rel)


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


WIDE = {"hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 4, "vocab_size": 500}


@pytest.fixture
def small(monkeypatch):
    """A model that computes, its shape, and texts of TOKENS tokens each in the plan.

    Its attention computes all scores, and so each token attends to all TOKENS.
    """
    monkeypatch.setattr(assumptions, "mean", lambda most: TOKENS)
    monkeypatch.setattr(assumptions, "context", lambda most: TOKENS)
    config = LlamaConfig(**WIDE, num_hidden_layers=LAYERS)
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    )
    return of_config(config.to_dict()), model


@pytest.mark.parametrize("block", [Block(3, 2), Block(1, 7)])
def test_fitting_maps_takes_the_flops_that_pytorch_counts(small, block):
    """Solving the normal equations is not in the plan."""
    shape, model = small
    ids = torch.randint(3, 500, (32, TOKENS))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with FlopCounterMode(display=False) as counter:
        linear.fitted(model, block, ["full"], [batch])
    asked = {"map_sequences": len(ids), "map_tokens": TOKENS, "map_batch_tokens": ids.numel()}
    planned = costs.fitting(shape, block.stop, asked, None, assumptions.get("a100-80"))
    assert planned.flops == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_a_sweep_over_maps_takes_the_flops_that_pytorch_counts(small, monkeypatch):
    shape, model = small
    blocks = [Block(0, 0), *(linear.Mapped(s, 2, "full", torch.zeros(96, 96)) for s in (3, 4, 6))]
    rows = [Row((3, *[i] * (TOKENS - 1)), ((5, 6),), None) for i in range(3, 35)]
    with FlopCounterMode(display=False) as counter:
        target_logprobs(model, blocks, rows, 32 * TOKENS, "rows")
    read = assumptions.Reading(32 * TOKENS, 32, TOKENS)
    monkeypatch.setattr(assumptions, "reading", lambda asked: read)
    asked = {"batch_tokens": 32 * TOKENS}
    how = shape, LAYERS, [LAYERS - block.stop for block in blocks[1:]]
    card = assumptions.get("a100-80")
    plain, mapped = (costs.sweep(*how, asked | m, None, card) for m in ({}, {"map": "full"}))
    assert mapped.flops == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert mapped.flops - plain.flops == 3 * 2 * 96**2 * 32 * TOKENS
