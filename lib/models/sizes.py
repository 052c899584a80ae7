"""How large a model is, by its configuration alone: on the meta device it has no weights."""

from collections.abc import Iterable
from functools import cache
from statistics import fmean
from typing import NamedTuple

from torch.nn import Parameter

from . import files, layers
from .decoder import decoder_layers


class Parameters(NamedTuple):
    """The parameters of a model: outside of its layers, and of each layer."""

    outside: int  # embeddings, final norm, lm_head
    layers: list[int]
    matrices: list[int]  # of the layers': those that NF4 packs

    def size(self, num_layers: int | None = None, matrix: float = 1, other: float = 1) -> float:
        """Return the parameters with so many layers, by default all; or their bytes.

        matrix: bytes of a number that NF4 packs; other: of any other. A layer counts as the mean.
        """
        count = len(self.layers) if num_layers is None else num_layers
        packed = count * fmean(self.matrices)
        every = self.outside + count * fmean(self.layers)
        return packed * matrix + (every - packed) * other


def parameters(model) -> Parameters:
    """Return the parameters of a model, which may be on the meta device."""
    by_layer = [list(layer.parameters()) for layer in decoder_layers(model)]
    return Parameters(
        _count(layers.outside(model).values()),
        [_count(own) for own in by_layer],
        [_count(p for p in own if p.ndim == 2) for own in by_layer],
    )


def _count(parameters: Iterable[Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


@cache
def skeleton(name: str):
    """Return a model without weights; None where its configuration is not known here."""
    config = files.configuration(name)
    return config and layers.meta_model(config)


def key_width(config) -> int:
    """Return the numbers of a token's keys in a layer, which are those of its values."""
    heads = getattr(config, "num_attention_heads", 1)
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    return config.hidden_size * kv_heads // heads
