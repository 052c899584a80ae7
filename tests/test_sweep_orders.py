"""A block's score does not depend on what else is in its sweep: any kind, any order."""

import pytest
import torch
from conftest import Characters, tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.blocks import Block
from lib.evaluation import Task
from lib.healing import linear
from lib.pruning import dropped
from lib.sweep import sweep

TEXTS = ("abcdefgh" * 2, "xyzuvwk", "hello world")
TASK = Task("c4", tuple({"text": text, "max_tokens": 20} for text in TEXTS))


def mapped(start: int, size: int, name: str) -> linear.Mapped:
    """A random map, small enough that the model still tells its versions apart."""
    seed = torch.Generator().manual_seed(100 * start + size)
    return linear.Mapped(start, size, name, 0.1 * torch.randn(32, 32, generator=seed))


KINDS = [  # of a model of six layers, each at both ends of the model and beside the others
    Block(1, 1),
    Block(0, 3),
    Block(3, 3),  # an early exit
    Block(5, 1),
    mapped(1, 1, "full"),
    mapped(4, 2, "full"),
    mapped(1, 1, "folded"),
    mapped(2, 2, "folded"),
    mapped(4, 1, "folded"),
    mapped(5, 1, "folded"),
]


@pytest.fixture(scope="module")
def model():
    return tiny("llama")


def scores(model, tokenizer, blocks) -> list[float]:
    """The loss without each block, all of them in one sweep."""
    maps = [block for block in blocks if isinstance(block, linear.Mapped)]
    with linear.reading_ffn(model, maps):
        return sweep(model, tokenizer, blocks, [TASK]).value.tolist()[1:]


@pytest.fixture(scope="module")
def alone(model) -> dict:
    """The loss without each block, in a sweep of its own."""
    return {id(block): scores(model, Characters(), [block])[0] for block in KINDS}


def test_every_kind_changes_the_loss_in_its_own_way(alone):
    assert len({round(loss, 4) for loss in alone.values()}) == len(KINDS)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(blocks=st.lists(st.sampled_from(KINDS), min_size=2, max_size=5, unique_by=id))
def test_what_else_is_in_a_sweep_changes_nothing(model, tokenizer, alone, blocks):
    together = scores(model, tokenizer, blocks)
    assert together == pytest.approx([alone[id(block)] for block in blocks], abs=1e-5)


@pytest.mark.parametrize("block", [b for b in KINDS if getattr(b, "name", "") == "folded"])
def test_a_folded_map_alone_is_the_map_in_the_weights(model, tokenizer, alone, block):
    plain = Block(block.start, block.size)
    with linear.folded(model, plain, block.change), dropped(model, plain):
        folded = sweep(model, tokenizer, [], [TASK]).value[0]
    assert alone[id(block)] == pytest.approx(folded, abs=1e-4)
