"""Angular distances against a direct, slow computation; and the errors that are easy to make."""

import numpy as np
import pytest
import torch
from conftest import DEVICE, LENGTH, ROUNDING, VOCAB
from torch import nn

from lib import similarity
from lib.blocks import BlockDistances
from lib.similarity import block_distances
from replication.beyond import which_block

LENGTHS = [LENGTH, 5, 17, 1, 23]


def padded() -> dict:
    """Texts and their padding, which the last token of one equals: only the mask decides."""
    torch.manual_seed(2)
    ids = torch.full((len(LENGTHS), LENGTH), 2)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        ids[row, :length] = torch.randint(3, VOCAB, (length,))
        mask[row, :length] = 1
    ids[1, LENGTHS[1] - 1] = 2
    return {"input_ids": ids, "attention_mask": mask}


def states_one_by_one(model) -> np.ndarray:
    """Return x_T^(l) (B, L+1, D), each sequence alone and unpadded, from HF's own hidden_states.

    The last state is taken before the final norm.
    """
    decoder = model.get_decoder()
    for name in ("norm", "final_layernorm", "final_layer_norm", "ln_f", "embedding_norm"):
        if hasattr(decoder, name):
            setattr(decoder, name, nn.Identity())
    states = []
    for ids, length in zip(padded()["input_ids"], LENGTHS, strict=True):
        with torch.inference_mode():
            alone = ids[None, :length].to(DEVICE)
            hidden = decoder(alone, output_hidden_states=True).hidden_states
        states.append(torch.stack([h[0, -1] for h in hidden]).double().cpu().numpy())
    return np.array(states)


def slow_angles(states: np.ndarray) -> np.ndarray:
    """Return (B, L+1, L+1) by the half-angle formula, exact near 0 and near a half turn."""
    lengths = np.linalg.norm(states, axis=-1, keepdims=True)
    unit = states / lengths
    a = unit[:, :, None]
    b = unit[:, None]
    difference = np.linalg.norm(a - b, axis=-1)
    total = np.linalg.norm(a + b, axis=-1)
    return 2 * np.arctan2(difference, total) / np.pi


def test_equals_a_direct_computation(model):
    right = block_distances(model, [padded()])
    angles = slow_angles(states_one_by_one(model))
    error = angles.std(0, ddof=1) / np.sqrt(len(LENGTHS))
    atol = 2e-6 * ROUNDING
    np.testing.assert_allclose(right.matrix, angles.mean(0), atol=atol)
    np.testing.assert_allclose(right.standard_error, error, atol=atol)


def test_states_of_a_text(llama, ids):
    """The last token's distances are the map's; all tokens' and the updates are by hand."""
    text = ids[:1]
    states = which_block.of_text(llama, text[0])
    batch = {"input_ids": text, "attention_mask": torch.ones_like(text)}
    last = similarity.last_token_states(llama, batch)
    distances = similarity.angular_distances(last)[0]
    np.testing.assert_allclose(states["last"], distances, atol=1e-6)
    with torch.inference_mode():
        hidden = llama(text, output_hidden_states=True).hidden_states
    x = hidden[1][0].double()
    between = hidden[2][0].double()
    y = hidden[3][0].double()
    cosines = torch.cosine_similarity(x, y, dim=-1)
    angle = cosines.arccos().mean() / np.pi
    influence = 1 - cosines.mean()
    update = (between - x).norm(dim=-1) / x.norm(dim=-1)
    assert states["every"][1, 3] == pytest.approx(float(angle))
    assert states["influence"][1, 3] == pytest.approx(float(influence))
    np.testing.assert_allclose(states["update"][1], update, rtol=1e-5)


def test_padding_on_the_left_and_a_text_without_tokens_are_refused(llama):
    left = {name: tensor.flip(1) for name, tensor in padded().items()}
    empty = padded()
    empty["attention_mask"][3] = 0
    no_token = {name: tensor[:1, :0] for name, tensor in padded().items()}
    for batch in (left, empty, no_token):
        with pytest.raises(ValueError, match="on the right, and no text may be empty"):
            block_distances(llama, [batch])


def test_a_block_whose_distance_is_no_number_is_not_the_best():
    matrix = np.array([[0, 0.4, 0.5], [0.4, 0, 0.3], [0.5, 0.3, 0]])
    matrix[0, 1] = np.nan
    assert BlockDistances(matrix, matrix, matrix[None], 2).best_start(1) == 1


def test_folds_are_dealt_out_before_texts_are_sorted_by_length(llama, tokenizer):
    """By the place in the order of lengths, folds would be alike, and their spread too small."""
    texts = []
    for i in range(20):
        start = "abcdefg"[: 2 + i % 5]
        texts.append(start * (1 + i % 3))
    batches = list(similarity.calibration_batches(texts, tokenizer, 20, 60))
    numbers = torch.cat([batch["numbers"] for batch in batches])
    assert numbers.tolist() != list(range(20))
    in_order = []
    for text in texts:
        ids = torch.tensor([tokenizer(text).input_ids[:20]])
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        in_order.append(batch)
    distances = block_distances(llama, batches)
    expected = block_distances(llama, in_order)
    np.testing.assert_allclose(distances.folds, expected.folds, atol=1e-6)
    np.testing.assert_allclose(distances.matrix, expected.matrix, atol=1e-6)


def test_small_angles_of_half_precision_states():
    """Half-precision arithmetic cannot tell 0.003 from 0; the states it holds can."""
    torch.manual_seed(0)
    x = torch.randn(1, 1, 512)
    change = torch.randn(1, 1, 512)
    y = x + 0.01 * change
    states = torch.cat([x, y], dim=1).bfloat16()
    exact = slow_angles(states.double().numpy())[0, 0, 1]
    angles = similarity.angular_distances(states)
    assert angles[0, 0, 1] == pytest.approx(exact, abs=1e-9)
