"""Bytes and seconds of pruned models: what is counted, what is timed, how ratios are made."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Distances, stored, wide_llama

from lib.blocks import Block
from lib.models import decoder, loading, sizes
from lib.pruning import dropped
from replication import profiles
from replication.measure import experiments, inference_cost, latency, scores

SMOKE = profiles.get("smoke")


def test_packed_weights_have_4_bits(tmp_path):
    """And scales, which are less than a fourth of a byte a number here."""
    plain = wide_llama()
    name = str(stored(plain, tmp_path / "model"))
    packed = latency.load(name, quantization="nf4", dtype="bfloat16")
    parameters = decoder.decoder_layers(plain).parameters()
    matrices = sum(p.numel() for p in parameters if p.ndim == 2)
    others = latency.weight_bytes(plain) - 2 * matrices
    scales = latency.weight_bytes(packed) - others - matrices / 2
    assert 0 < scales < matrices / 4


def test_decoding_goes_on_from_the_cache(llama):
    """The tokens written while the clock runs are those of HF's own greedy generation."""
    prompt = torch.arange(3, 15)[None].to(llama.device)
    read = []
    with dropped(llama, Block(2, 2)):
        expected = llama.generate(prompt, do_sample=False, max_new_tokens=5, eos_token_id=None)
        embeddings = llama.get_input_embeddings()
        embeddings.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
        prefill, decode = latency.latencies(llama, prompt, 5)
    assert torch.equal(torch.cat(read, dim=1), expected)
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
        seconds = float(layers * (1 + turn))
        return seconds, seconds

    monkeypatch.setattr(latency, "latencies", latencies)
    measured = costs(SMOKE)
    versions = [8 - size for size in [0, *SMOKE.healed_sizes(8)]]
    expected = versions * 2 * (SMOKE.cost_repeats + 1)
    assert order == expected
    times = measured[measured.task != "weights"]
    assert (times.n == SMOKE.cost_repeats).all()
    np.testing.assert_allclose(times.ratio, (8 - times.block_size) / 8)
    np.testing.assert_allclose(times.ratio_low, times.ratio_high)
    assert costs(SMOKE).equals(measured)
    assert order == expected  # nothing was measured again


def test_a_ratio_is_of_the_turn_it_was_measured_in():
    """Turns at 0.5, 0.6 and 4 times the unpruned: 0.6. The ratio of the medians is 6 / 5."""
    spread = inference_cost._spread([1.0, 6.0, 20.0], np.array([2.0, 10.0, 5.0]))
    assert (spread["value"], spread["low"], spread["high"]) == (6, 3.5, 13)
    ratios = [spread["ratio"], spread["ratio_low"], spread["ratio_high"]]
    assert ratios == pytest.approx([0.6, 0.5, 4])


def test_what_has_no_room_is_a_row_without_a_value(output, monkeypatch):
    """16 bits of notebook 09, on a card that holds NF4 only."""
    load = loading.load

    def on_a_small_card(name, *, quantization, **options):
        if not quantization:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return load(name, quantization=quantization, **options)

    monkeypatch.setattr(loading, "load", on_a_small_card)
    losses = experiments.stacked("tiny-random", Distances(), SMOKE)
    for table in (costs(SMOKE), scores.table(losses)):
        measured = table.value.notna()
        assert set(table.status[~measured]) == {"not measured"}
        assert set(table.quantization[measured]) == {"nf4"}


def test_arithmetic_counts_what_lies_in_memory():
    """16-bit bytes by configuration are the paper's, and those of a model, whole and halved."""
    large = sizes.parameters(sizes.skeleton("llama-2-70b"))
    assert large.size(matrix=2, other=2) / 1e9 == pytest.approx(140, rel=0.02)
    small = sizes.parameters(sizes.skeleton("tiny-random"))
    model, _ = loading.load("tiny-random", dtype="bfloat16")
    assert small.size(matrix=2, other=2) == sum(p.nbytes for p in model.parameters())
    with dropped(model, Block(3, 4)):
        assert small.size(4, matrix=2, other=2) == sum(p.nbytes for p in model.parameters())
