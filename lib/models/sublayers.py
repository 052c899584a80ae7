"""The two sublayers of a decoder layer, and a layer in which one of them adds nothing."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lib.models.decoder import decoder_layers, residual_stream
from lib.models.registry import ModelError

PARTS = ("attention", "ffn")
_FFN = ("mlp", "ffn", "feed_forward", "moe", "fc")  # what modules of an FFN are called


def sublayers(layer: nn.Module, part: str) -> list[nn.Module]:
    """The modules of a layer that are its "attention" (whatever mixes tokens), or its "ffn".

    A module of vectors only (a norm) is neither. Raises ModelError where there is none.
    """
    found = {part: [] for part in PARTS}
    for name, child in layer.named_children():
        if any(parameter.ndim > 1 for parameter in child.parameters()):
            found["ffn" if any(word in name for word in _FFN) else "attention"].append(child)
    if not all(found.values()):
        raise ModelError(
            f"{type(layer).__name__} does not hold its attention and its FFN in modules of their "
            "own, so neither can be dropped alone."
        )
    return found[part]


@contextmanager
def silenced(layers: Iterable[nn.Module], part: str | None) -> Iterator[None]:
    """Within, the `part` of each layer adds zero to the stream; part None changes nothing."""
    handles = []
    try:
        for layer in layers if part else ():
            handles += [m.register_forward_hook(_nothing) for m in sublayers(layer, part)]
        yield
    finally:
        for handle in handles:
            handle.remove()


def _nothing(module, args, output):
    """Zeros in the place of what a sublayer adds; what else it returns stays."""
    if isinstance(output, tuple):
        return (torch.zeros_like(output[0]), *output[1:])
    return torch.zeros_like(output)


@torch.inference_mode()
def check(model) -> None:
    """Raise ModelError unless the stream passes unchanged where no sublayer adds anything."""
    layers, stream = decoder_layers(model), {}
    ids = torch.arange(4, device=model.device)[None]
    with silenced(layers, PARTS[0]), silenced(layers, PARTS[1]):
        with residual_stream(model, stream.__setitem__, at=[0, len(layers)]):
            model.get_decoder()(input_ids=ids, use_cache=False)
    if not torch.equal(stream[0], stream[len(layers)].to(stream[0].device)):
        raise ModelError(
            f"{type(layers[0]).__name__} does more with the stream than add its attention and its "
            "FFN, so neither can be dropped alone."
        )
