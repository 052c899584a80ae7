"""Angular distances against a direct, slow computation; and the errors that are easy to make."""

import numpy as np
import pytest
import torch
from conftest import DEVICE, LAYERS, LENGTH, ROUNDING, VOCAB
from torch import nn

from lib import similarity
from lib.blocks import Block, BlockDistances
from lib.models import decoder
from lib.similarity import block_distances

LENGTHS = [LENGTH, 5, 17, 1, 23]


def padded(side: str) -> dict:
    torch.manual_seed(2)
    batch = {name: torch.zeros(len(LENGTHS), LENGTH, dtype=torch.long) for name in ("ids", "mask")}
    for row, length in enumerate(LENGTHS):
        place = slice(0, length) if side == "right" else slice(LENGTH - length, LENGTH)
        batch["ids"][row, place] = torch.randint(3, VOCAB, (length,))
        batch["mask"][row, place] = 1
    return {"input_ids": batch["ids"], "attention_mask": batch["mask"]}


def states_one_by_one(model) -> np.ndarray:
    """x_T^(l) (B, L+1, D), each sequence alone and unpadded, from HF's own hidden_states.

    The last state is taken before the final norm.
    """
    decoder = model.get_decoder()
    for name in ("norm", "final_layernorm", "final_layer_norm", "ln_f", "embedding_norm"):
        if hasattr(decoder, name):
            setattr(decoder, name, nn.Identity())
    batch, states = padded("right"), []
    for ids, length in zip(batch["input_ids"], LENGTHS, strict=True):
        with torch.inference_mode():
            ids = ids[None, :length].to(DEVICE)
            hidden = decoder(ids, output_hidden_states=True).hidden_states
        states.append(torch.stack([h[0, -1] for h in hidden]).double().cpu().numpy())
    return np.array(states)


def slow_angles(states: np.ndarray) -> np.ndarray:
    """(B, L+1, L+1) by the half-angle formula, which is exact near 0 and near a half turn."""
    unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
    a, b = unit[:, :, None], unit[:, None]
    apart = np.arctan2(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1))
    return 2 * apart / np.pi


def test_equals_a_direct_computation(model):
    distances = block_distances(model, [padded("right")])
    angles = slow_angles(states_one_by_one(model))
    np.testing.assert_allclose(distances.matrix, angles.mean(0), atol=2e-6 * ROUNDING)
    error = angles.std(0, ddof=1) / np.sqrt(len(LENGTHS))
    np.testing.assert_allclose(distances.standard_error, error, atol=2e-6 * ROUNDING)


def test_padding_on_either_side_gives_the_same_numbers(model):
    left, right = (block_distances(model, [padded(side)]) for side in ("left", "right"))
    np.testing.assert_array_equal(left.matrix, right.matrix)
    np.testing.assert_array_equal(left.standard_error, right.standard_error)


def test_last_real_token_though_it_equals_the_padding(llama):
    """A real last token with the id of the padding counts; only the mask decides."""
    batch = padded("right")
    batch["input_ids"][1, LENGTHS[1] - 1] = 0
    ids, last = similarity.right_padded(ids=batch["input_ids"], mask=batch["attention_mask"])
    assert last.tolist() == [length - 1 for length in LENGTHS]
    assert ids[1, last[1]] == 0


def test_short_texts_are_read_together(llama, tokenizer):
    """As many as fit with their padding; the numbers are those of one text at a time."""
    texts = ["abcdefg" * n for n in (1, 4, 2, 3, 1, 2)]
    together = list(similarity.calibration_batches(texts, tokenizer, 20, 20))
    shapes = [tuple(batch["input_ids"].shape) for batch in together]
    assert shapes == [(1, 20), (1, 20), (1, 14), (1, 14), (2, 7)]
    many = list(similarity.calibration_batches(texts, tokenizer, 20, 43))
    assert [len(batch["input_ids"]) for batch in many] == [2, 3, 1]
    one, other = block_distances(llama, together), block_distances(llama, many)
    np.testing.assert_allclose(other.matrix, one.matrix, atol=1e-7)


def test_folds_are_dealt_out_before_texts_are_sorted_by_length(llama, tokenizer):
    """By the place in the order of lengths, folds would be alike, and their spread too small."""
    texts = ["abcdefg"[: 2 + i % 5] * (1 + i % 3) for i in range(20)]
    batches = list(similarity.calibration_batches(texts, tokenizer, 20, 60))
    assert torch.cat([batch["numbers"] for batch in batches]).tolist() != list(range(20))
    one_by_one = [
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        for ids in (torch.tensor([tokenizer(text).input_ids[:20]]) for text in texts)
    ]
    sorted_first, in_order = (block_distances(llama, b) for b in (batches, one_by_one))
    np.testing.assert_allclose(sorted_first.folds, in_order.folds, atol=1e-6)


def test_mean_of_angles_not_angle_of_the_mean():
    states = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [-1.0, 1e-9]]])
    assert similarity.angular_distances(states).mean(0)[0, 1] == pytest.approx(0.5, abs=1e-6)
    steep = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    assert similarity.angular_distances(steep).mean(0)[0, 1] == pytest.approx(0.25)  # not 1/3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_angles_of_half_precision_states(dtype):
    """Half-precision arithmetic cannot tell 0.003 from 0; the states it holds can."""
    torch.manual_seed(0)
    x = torch.randn(1, 1, 512)
    y = x + 0.01 * torch.randn(1, 1, 512)
    states = torch.cat([x, y], dim=1).to(dtype)
    exact = slow_angles(states.double().numpy())[0, 0, 1]
    assert 0.002 < exact < 0.005
    assert similarity.angular_distances(states)[0, 0, 1] == pytest.approx(exact, abs=1e-9)


def test_rows_and_best_start():
    matrix = np.arange(25.0).reshape(5, 5)
    matrix[2, 3] = -1
    distances = BlockDistances(matrix, matrix, matrix[None], 1)
    np.testing.assert_array_equal(distances.row(1), [matrix[l, l + 1] for l in range(4)])
    assert len(distances.row(3)) == 2
    assert distances.best_start(1) == 2
    assert distances.of(Block(1, 2)) == matrix[1, 3]
    with pytest.raises(ValueError, match="block size must lie between 1 and 3, not 4"):
        distances.best_start(4)


def test_no_lm_head_and_one_pass(llama):
    calls = []
    llama.lm_head.register_forward_hook(lambda *_: calls.append("head"))
    for layer in decoder.decoder_layers(llama):
        layer.register_forward_hook(lambda *_: calls.append("layer"))
    block_distances(llama, [padded("right")])
    assert calls == ["layer"] * LAYERS


def test_one_sequence_has_no_error(llama):
    batch = {name: tensor[:1] for name, tensor in padded("right").items()}
    with pytest.raises(ValueError, match="at least 2 sequences"):
        block_distances(llama, [batch])


def test_an_empty_text_has_no_last_token(llama, tokenizer):
    batches = similarity.calibration_batches(["abc", "", "de"], tokenizer, 20, 60)
    with pytest.raises(ValueError, match="leave empty texts out"):
        block_distances(llama, batches)
