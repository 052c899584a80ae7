"""Every family of decoders that can be cut: documents joined in one row, and maps folded in."""

import pytest
import torch

from lib.healing import attention, linear, lora, packing
from lib.models.decoder import decoder_layers
from lib.models.layers import only_layers
from scripts import families

TABLE = families.read()
CUT = TABLE[TABLE.cut == families.YES]
# a factor on what a layer adds, or a norm after the sum, that the default of a family lacks
NOT_FOLDED = {
    "granite, factor": ("granite", {"residual_multiplier": 0.22}),
    "falcon_h1, factor": ("falcon_h1", {"mlp_multipliers": [1.0, 0.3]}),
    "opt, norm after": ("opt", {"do_layer_norm_before": False}),
}
LAYER = families.BLOCK.start - 1


@pytest.fixture(scope="module", params=[*CUT.index, *NOT_FOLDED])
def family(request):
    """The name of a family, or of a variant of one, and a tiny model of it."""
    name, changes = NOT_FOLDED.get(request.param, (request.param, {}))
    return request.param, families.tiny_model(name, **changes)


def output(model, *args, **kwargs) -> torch.Tensor:
    with torch.inference_mode():
        return model(*args, use_cache=False, **kwargs).logits[0]


def test_documents_are_joined_only_where_each_is_read_as_alone(family):
    """Whatever kinds of layers there are."""
    name, model = family
    draw = torch.Generator().manual_seed(1)
    documents = [torch.randint(3, 100, (n,), generator=draw).tolist() for n in (5, 11, 3, 8)]
    batch = packing.collator(joined=True)([{"documents": documents}])
    del batch["labels"]
    with attention.isolated_documents(model, max_tokens=11) as able:
        joined = output(model, **batch) if able else None
    if name in CUT.index:
        assert able == (CUT.joined[name] == families.YES)
    if able:
        alone = torch.cat([output(model, torch.tensor([ids])) for ids in documents])
        torch.testing.assert_close(joined, alone, atol=1e-3, rtol=1e-3)


def test_a_map_is_folded_in_only_where_it_then_is_the_map(family):
    """The state after the layer is x + m A. Where a fold is refused, it would be another."""
    name, model = family
    states, added = [], []

    def note(module, args, out):
        states.append((out if torch.is_tensor(out) else out[0]).clone())

    decoder_layers(model)[LAYER].register_forward_hook(note)
    able = linear.can_fold(model, LAYER)
    expected = name in CUT.index and CUT.folded[name] == families.YES
    assert able == expected
    try:
        with only_layers(model, [LAYER]):
            module = model.get_submodule(lora.ffn_projections(model)[-1])
    except ValueError:  # experts, or no FFN
        assert not able
        return
    hook = module.register_forward_hook(lambda module, args, out: added.append(out.clone()))
    states.clear()
    output(model, families.example())
    hook.remove()
    (x,), (m,) = states, added
    change = 0.3 * torch.randn(m.shape[-1], m.shape[-1], generator=torch.Generator().manual_seed(2))
    if able:
        linear.fold(model, families.BLOCK, change)
    else:
        module.register_forward_hook(lambda module, args, out: out + out @ change)
    output(model, families.example())
    mapped = x + (m @ change).view_as(x)
    assert torch.allclose(states[-1], mapped, atol=1e-3, rtol=1e-3) == able
