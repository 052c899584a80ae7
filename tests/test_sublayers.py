"""Only the attention, or only the FFN, of a layer is dropped: it adds exactly nothing."""

import pytest
import torch
from conftest import LAYERS, tiny
from torch import nn

from lib import sweep
from lib.blocks import Block, Sublayers
from lib.models import layers
from lib.models.decoder import decoder_layers
from lib.models.registry import ModelError
from lib.pruning import dropped

CUTS = [Sublayers(2, 1, "attention"), Sublayers(0, 3, "ffn"), Sublayers(1, 5, "attention")]
APART = ("bloom",)  # its sublayers add the stream themselves


def states(model, ids):
    with torch.inference_mode():
        return model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state


@pytest.mark.parametrize(
    "name, outputs",
    [
        ("llama", {"attention": "self_attn.o_proj", "ffn": "mlp.down_proj"}),
        ("phi", {"attention": "self_attn.dense", "ffn": "mlp.fc2"}),
    ],
)
@pytest.mark.parametrize("part", layers.PARTS)
def test_equal_to_the_last_projection_zeroed_by_hand(name, outputs, part, ids):
    """Of layers 1 and 2; in Phi both sublayers read the same state."""
    model = tiny(name)
    whole = states(model, ids)
    with dropped(model, Sublayers(1, 2, part)):
        found = states(model, ids)
    assert torch.equal(states(model, ids), whole)
    with torch.no_grad():
        for layer in decoder_layers(model)[1:3]:
            for parameter in layer.get_submodule(outputs[part]).parameters():
                parameter.zero_()
    assert torch.equal(found, states(model, ids)) and not torch.allclose(found, whole)


def test_the_shared_sweep_is_the_model_itself(model, architecture, ids):
    """Of every architecture; the layers before the cut are computed once. Bloom is refused."""
    if architecture in APART:
        with pytest.raises(ModelError, match="does more with the stream"):
            layers.check_sublayers(model)
        return
    layers.check_sublayers(model)
    with torch.inference_mode():
        for cut, found in sweep.final_states(model, CUTS, ids, lambda block: None):
            with dropped(model, cut):
                assert torch.equal(found, states(model, ids)), cut


def test_without_both_the_block_is_dropped(llama, ids):
    """A layer whose two sublayers add nothing is a layer that is not there."""
    with dropped(llama, Sublayers(2, 3, "ffn")), dropped(llama, Sublayers(2, 3, "attention")):
        found = states(llama, ids)
    with dropped(llama, Block(2, 3)):
        torch.testing.assert_close(found, states(llama, ids))


def test_all_is_restored_after_an_error(llama, ids):
    whole = states(llama, ids)
    with pytest.raises(RuntimeError, match="inside"), dropped(llama, CUTS[0]):
        raise RuntimeError("inside")
    assert torch.equal(states(llama, ids), whole)
    assert not any(m._forward_hooks for m in llama.modules())
    assert CUTS[0].kept(LAYERS) == list(range(LAYERS))


def test_a_layer_without_modules_of_its_own_is_refused():
    layer = nn.ModuleDict({"everything": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})
    with pytest.raises(ModelError, match="modules of their own"):
        layers.sublayers(layer, "ffn")
