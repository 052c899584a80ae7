"""Bytes and seconds of pruned models: what is counted, what is timed, how ratios are made."""

import numpy as np
import pandas as pd
import pytest
import torch

from lib.blocks import Block
from lib.models import decoder, loading
from lib.pruning import dropped
from replication import profiles
from replication.measure import inference_cost, latency

SMOKE = profiles.get("smoke")


def test_bytes_are_those_of_the_tensors(llama):
    whole = sum(p.numel() for p in llama.parameters()) * 4
    buffers = sum(b.numel() * b.element_size() for b in llama.buffers())
    assert latency.weight_bytes(llama) == whole + buffers
    llama.lm_head.weight = llama.get_input_embeddings().weight  # tied: counted once
    tied = llama.lm_head.weight.numel() * 4
    assert latency.weight_bytes(llama) == whole + buffers - tied


def test_decoding_goes_on_from_the_cache(llama):
    """The tokens written while the clock runs are those of HF's own greedy generation."""
    prompt = torch.arange(3, 15)[None].to(llama.device)
    seen = []
    with dropped(llama, Block(2, 2)):
        expected = llama.generate(prompt, do_sample=False, max_new_tokens=5, eos_token_id=None)
        llama.get_input_embeddings().register_forward_pre_hook(lambda m, a: seen.append(a[0]))
        prefill, decode = latency.latencies(llama, prompt, 5)
    assert torch.equal(torch.cat(seen, dim=1), expected)
    assert prefill > 0 and decode > 0


def costs(profile) -> pd.DataFrame:
    return inference_cost.table(inference_cost.cost("tiny-random", None, profile))


def test_versions_are_measured_in_turn_and_paired(output, monkeypatch):
    """A machine that slows down turn by turn changes no ratio; the first turn is not counted."""
    order = []

    def latencies(model, prompt, new_tokens):
        layers = len(decoder.decoder_layers(model))
        order.append(layers)
        turn = (len(order) - 1) // 6
        return float(layers * (1 + turn)), float(layers * (1 + turn))

    monkeypatch.setattr(latency, "latencies", latencies)
    measured = costs(SMOKE)
    sizes = [0, *SMOKE.healed_sizes(8)]
    assert order == [8 - size for size in sizes] * 2 * (SMOKE.cost_repeats + 1)
    times = measured[measured.task != "weights"]
    assert (times.n == SMOKE.cost_repeats).all()
    np.testing.assert_allclose(times.ratio, (8 - times.block_size) / 8)
    np.testing.assert_allclose(times.ratio_low, times.ratio_high)
    count = len(order)
    assert costs(SMOKE).equals(measured) and len(order) == count


def test_a_ratio_is_of_the_turn_it_was_measured_in():
    """Turns at 0.5, 0.6 and 4 times the unpruned: 0.6. The ratio of the medians is 6 / 5."""
    spread = inference_cost._spread([1.0, 6.0, 20.0], [2.0, 10.0, 5.0])
    assert spread["ratio"] == pytest.approx(0.6)
    assert (spread["ratio_low"], spread["ratio_high"]) == pytest.approx((0.5, 4))
    assert (spread["low"], spread["value"], spread["high"]) == pytest.approx((3.5, 6, 13))


def test_arithmetic_counts_what_lies_in_memory():
    """16-bit bytes by configuration are the paper's, and those of a model, whole and halved."""
    (large,) = inference_cost.arithmetic(["llama-2-70b"]).itertuples()
    assert (large.whole, large.paper) == pytest.approx((140, 17.5), rel=0.02)
    assert large.paper < large.both < large.nf4
    model, _ = loading.load("tiny-random", dtype="bfloat16")
    (row,) = inference_cost.arithmetic(["tiny-random"]).itertuples()
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    assert row.whole * 1e9 == latency.weight_bytes(model) - buffers
    with dropped(model, Block(3, 4)):
        assert row.dropped * 1e9 == latency.weight_bytes(model) - buffers
