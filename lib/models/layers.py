"""A model of fewer layers: some left out, or only those after a cut; configuration follows."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from lib.blocks import Block
from lib.models.decoder import decoder_config, decoder_layers, layers_attribute
from lib.models.registry import ModelError

_THRESHOLDS = ("max_window_layers", "first_k_dense_replace")
_INDEX_LISTS = ("mlp_only_layers", "moe_layers", "attn_layer_indices")
NUMBERS = ("layer_idx", "layer_id")  # what modules call the number of their layer


@contextmanager
def only_layers(model, keep: Sequence[int]) -> Iterator[nn.ModuleList]:
    """The model with only the layers `keep`, in that order; yields them; restores on exit."""
    layers = decoder_layers(model)
    decoder, name = model.get_decoder(), layers_attribute(model)
    staying = [layers[l] for l in keep]
    kept = nn.ModuleList(staying)
    before = [(c, _layer_entries(c)) for c in _configs(model)]
    try:
        _follow(before, keep)
        _number(staying, range(len(keep)))
        setattr(decoder, name, kept)
        yield kept
    finally:
        setattr(decoder, name, layers)
        _number(staying, keep)
        for config, entries in before:
            for key, value in entries.items():
                setattr(config, key, value)


def followed(config, keep: Sequence[int]):
    """A copy of an HF configuration that describes the model of only the layers `keep`."""
    config = copy.deepcopy(config)
    text = config.get_text_config(decoder=True)
    _follow([(text, _layer_entries(text))], keep)
    return config


def _configs(model) -> list:
    """The configurations that say how many layers there are: the decoder's, and the model's own."""
    both = (decoder_config(model), model.config.get_text_config(decoder=True))
    return list({id(config): config for config in both}.values())


def _follow(before: list[tuple], keep: Sequence[int]) -> None:
    for config, entries in before:
        for key, value in entries.items():
            setattr(config, key, _followed(key, value, keep))


def _layer_entries(config) -> dict:
    """The entries of a configuration that depend on how many layers there are, or on which."""
    if config.is_heterogeneous:
        raise ModelError(
            f"{type(config).__name__} describes layers of different shapes (per_layer_config), "
            "which pruning does not support."
        )
    if getattr(config, "hidden_size_per_layer_input", 0):
        raise ModelError(
            f"{type(config).__name__} describes weights for each layer outside of the layers "
            "(hidden_size_per_layer_input), which pruning does not support."
        )
    num_layers = config.num_hidden_layers
    entries = {"num_hidden_layers": num_layers}
    for key, value in vars(config).items():
        one_each = "layer" in key and isinstance(value, (list, tuple)) and len(value) == num_layers
        threshold = key in _THRESHOLDS and isinstance(value, int)
        indices = key in _INDEX_LISTS and isinstance(value, (list, tuple))
        if one_each or threshold or indices:
            entries[key] = value
    return entries


def _followed(key: str, value, keep: Sequence[int]):
    """A configuration entry after the cut."""
    if key == "num_hidden_layers":
        return len(keep)
    if key in _THRESHOLDS:
        return sum(l < value for l in keep)
    if key in _INDEX_LISTS:
        return [new for new, old in enumerate(keep) if old in value]
    return type(value)(value[l] for l in keep)


def _number(layers: list[nn.Module], indices: Sequence[int]) -> None:
    """Give every module of each layer its number (it addresses the key-value cache)."""
    for index, layer in zip(indices, layers, strict=True):
        for module in layer.modules():
            for name in NUMBERS:
                if isinstance(getattr(module, name, None), int):
                    setattr(module, name, index)


@contextmanager
def resumed(model, block: Block, state: torch.Tensor, width: int = 0) -> Iterator[None]:
    """The model from the cut on: its first layer is `block.stop`, and reads `state`, not input.

    HF's own forward builds masks, rotary embeddings and the final norm, from a configuration
    that matches the layers that are left. width: of the tuple that a layer returns, if it does.
    """
    num_layers = len(decoder_layers(model))
    after = range(block.stop, num_layers)
    with only_layers(model, after or [num_layers - 1]) as layers:
        if not after:
            layers[0] = _PassThrough(width)

        def from_the_cut(module, args, kwargs):
            if args:
                return (state, *args[1:]), kwargs
            return args, kwargs | {"hidden_states": state}

        hook = layers[0].register_forward_pre_hook(from_the_cut, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()


class _PassThrough(nn.Module):
    """Stands where no layer is left after the cut (the block includes the last layer)."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, hidden_states, *args, **kwargs):
        return (hidden_states,) + (None,) * (self.width - 1) if self.width else hidden_states
