"""The embedded 30-layer model itself (make test-all)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib import evaluation, similarity, sweep
from lib.blocks import UNPRUNED, Block
from lib.data import sets
from lib.models import decoder, loading
from lib.pruning import dropped
from replication import profiles
from replication.measure import request

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def real():
    return loading.load("smollm2-135m", dtype="float32")


def test_it_is_the_model_we_think(real):
    model, tokenizer = real
    assert len(decoder.decoder_layers(model)) == 30 and model.config.vocab_size == 49_152
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"


def test_loss_is_that_of_transformers(real):
    """The C4 loss of the sweep, unpruned and pruned, against HF's own loss."""
    model, tokenizer = real
    profile = replace(profiles.get("quick"), c4_sequences=4, c4_tokens=64)
    task = evaluation.task_of(request.of_task("c4", profile))
    scores = sweep.sweep(model, tokenizer, [Block(13, 6)], [task])
    for row, block in zip(scores.itertuples(), (UNPRUNED, Block(13, 6)), strict=True):
        with dropped(model, block), torch.inference_mode():
            for example, value in zip(task.examples, row.examples, strict=True):
                ids = tokenizer(example["text"], return_tensors="pt").input_ids[:, :64]
                assert value == pytest.approx(model(ids, labels=ids).loss.item(), abs=1e-4)


def test_shape_of_the_map(real):
    """The last layer's row ends, and the first layer, are unlike; small blocks lie mid-model."""
    model, tokenizer = real
    texts = sets.c4("validation", "wheels", 32)
    batches = similarity.calibration_batches(texts, tokenizer, 64, 2048)
    distances = similarity.block_distances(model, batches)
    assert distances.of(Block(0, 1)) > 0.3
    assert np.argmin(distances.row(6)) in range(10, 17)
    assert distances.row(1)[-1] > 2 * distances.row(1).min()
