"""NF4 weights that stay packed, as on a GPU, on a CPU: the same numbers as unpacked ones."""

import bitsandbytes as bnb
import numpy as np
import pytest
import torch
from bitsandbytes.nn import modules
from conftest import DEVICE, real_task, wide_llama, with_real_tokenizer

from lib import similarity
from lib.blocks import UNPRUNED, Block
from lib.data import sets
from lib.data.encoding import Row
from lib.models import loading
from lib.pruning import dropped
from lib.sweep import continuations, sweep

BLOCKS = [Block(1, 2), Block(0, 3), Block(3, 2)]
PACKED = torch.device(DEVICE)  # as an object it is not the "cpu" on which models.load unpacks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = wide_llama(vocab_size=49_152, tie_word_embeddings=True)
    return str(with_real_tokenizer(model, tmp_path_factory.mktemp("packed")))


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """Without the repacking for inference that bitsandbytes does on some CPUs."""
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: False)


def load(folder, device=PACKED, **options):
    model, tokenizer = loading.load(
        folder, quantization="nf4", dtype="bfloat16", device=device, **options
    )
    packed = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    for module in packed:
        module.support_avx512bf16_for_cpu = False
    assert bool(packed) == (device is PACKED)
    return model, tokenizer


def test_sweep_of_packed_weights(folder):
    tasks = [real_task(name) for name in ("c4", "mmlu", "arc_easy")]
    packed, plain = (sweep(*load(folder, device), BLOCKS, tasks) for device in (PACKED, "cpu"))
    for mine, theirs in zip(packed.itertuples(), plain.itertuples(), strict=True):
        assert mine.value == pytest.approx(theirs.value, abs=0.01)
        np.testing.assert_allclose(mine.examples, theirs.examples, atol=0.02)
        for a, b in zip(mine.choices or (), theirs.choices or (), strict=True):
            np.testing.assert_allclose(a, b, rtol=0.02)


def test_distances_of_packed_weights(folder):
    model, tokenizer = load(folder)
    texts = sets.c4("validation", "wheels", 12)

    def batches():
        return similarity.calibration_batches(texts, tokenizer, 40, 160)

    plain, _ = load(folder, "cpu")
    packed, unpacked = (similarity.block_distances(each, batches()) for each in (model, plain))
    np.testing.assert_allclose(packed.matrix, unpacked.matrix, atol=0.01)


def test_packed_weights_without_a_block(folder):
    """Loaded without it, or dropped: the same model; and it writes the same text."""
    model, tokenizer = load(folder)
    ids = torch.randint(3, 40_000, (2, 24), generator=torch.Generator().manual_seed(0)).to(PACKED)
    rows = [Row(tuple(range(100, 108)), ()), Row(tuple(range(200, 205)), ())]
    written = continuations(model, tokenizer, [UNPRUNED, *BLOCKS], rows, 6, 200)
    for block in BLOCKS:
        part, _ = load(folder, block=block)
        with torch.inference_mode(), dropped(model, block):
            expected = model(ids).logits
        with torch.inference_mode():
            assert torch.equal(part(ids).logits, expected)
        alone = continuations(part, tokenizer, [UNPRUNED], rows, 6, 200)
        assert alone[UNPRUNED] == written[block]
