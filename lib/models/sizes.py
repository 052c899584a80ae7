"""How large a model is, by its configuration alone: on the meta device it has no weights."""

from functools import cache
from statistics import fmean
from typing import NamedTuple

from lib.models import files, layers
from lib.models.decoder import decoder_layers


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
        return packed * matrix + (self.outside + count * fmean(self.layers) - packed) * other


def parameters(model) -> Parameters:
    """Return the parameters of a model, which may be on the meta device."""
    of_layers = [
        {f".0.{name}": parameter for name, parameter in layer.named_parameters()}
        for layer in decoder_layers(model)
    ]
    return Parameters(
        files.in_memory(layers.outside(model), 1, 1),
        [files.in_memory(layer, 1, 1) for layer in of_layers],
        [files.in_memory(layer, 1, 0) for layer in of_layers],
    )


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
