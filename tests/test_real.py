"""The embedded 30-layer model itself (make test-all)."""

import numpy as np
import pytest

from lib import similarity
from lib.blocks import Block
from lib.data import sets
from lib.models import decoder, loading

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def real():
    return loading.load("smollm2-135m", dtype="float32")


def test_it_is_the_model_we_think(real):
    model, tokenizer = real
    assert len(decoder.decoder_layers(model)) == 30 and model.config.vocab_size == 49_152
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"


def test_shape_of_the_map(real):
    """The last layer's row ends, and the first layer, are unlike; small blocks lie mid-model."""
    model, tokenizer = real
    texts = sets.c4("validation", "wheels", 32)
    batches = similarity.calibration_batches(texts, tokenizer, 64, 2048)
    distances = similarity.block_distances(model, batches)
    assert distances.of(Block(0, 1)) > 0.3
    assert np.argmin(distances.row(6)) in range(10, 17)
    assert distances.row(1)[-1] > 2 * distances.row(1).min()
