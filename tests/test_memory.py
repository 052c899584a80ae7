"""What loading holds at its peak, on a checkpoint of 1.2 GB in four shards (make test-all)."""

import pytest

from benchmarks import memory
from benchmarks.sizes import FULL
from lib.blocks import Block

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = memory.checkpoint(tmp_path_factory.mktemp("large"), FULL)
    assert sum(file.stat().st_size for file in folder.glob("*.safetensors")) > 1e9
    return folder


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_half_the_layers_take_half_the_memory(folder, quantization):
    whole = memory.load(folder, quantization)
    half = memory.load(folder, quantization, Block(3, 6))
    assert whole > 1e9  # what is compared is the model, not the process around it
    assert half < 0.65 * whole


def test_layer_by_layer_holds_two_layers(folder):
    """In fp32 a layer has 4 bytes a weight; embeddings and the chunk's states come on top."""
    layer = 4 * (4 * 2048**2 + 3 * 2048 * 5632)
    states = 8 * 2 * 128 * 2048 * 4 * 2  # 8 batches of 2 x 128 tokens, before and after a layer
    embedding = 4 * 1024 * 2048
    held = memory.peak(folder, "from benchmarks.sizes import FULL; memory.by_layer(folder, FULL)")
    assert held < 2 * layer + states + 2 * embedding + 150e6  # and what torch itself takes
