"""Whether layers can be taken out of an architecture: what is left must be the same layers."""

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

from lib.models.decoder import decoder_layers
from lib.models.layers import NUMBERS, followed
from lib.models.registry import ModelError


def check(config) -> None:
    """Raise ModelError if the configuration cannot follow when layers are removed.

    It can if what is left is then the same: the layers, with their shapes and settings, and the
    shapes of all else. A model without its first layer, where all move by one, tells.
    """
    count = config.get_text_config(decoder=True).num_hidden_layers
    whole, cut = (skeleton(followed(config, range(first, count))) for first in (0, 1))
    before, after = ([_described(layer) for layer in decoder_layers(m)] for m in (whole, cut))
    if before[1:] != after:
        raise ModelError(
            f"A {config.model_type} decoder decides by the position of a layer of what kind it is, "
            "so none can be removed."
        )
    before, after = (_outside(model) for model in (whole, cut))
    if before != after:
        raise ModelError(
            f"A {config.model_type} decoder has weights for each layer outside of the layers, "
            "so none can be removed."
        )


def _described(layer: nn.Module) -> list:
    """Shapes and settings (numbers, names) of a layer and all in it, but for its own number."""
    shapes = [(name, parameter.shape) for name, parameter in layer.named_parameters()]
    return shapes + [
        (name, key, value)
        for name, module in layer.named_modules()
        for key, value in sorted(vars(module).items())
        if isinstance(value, (bool, int, float, str)) and key not in NUMBERS
    ]


def _outside(model: nn.Module) -> dict:
    """The shapes of the parameters that are in no layer."""
    own = {id(parameter) for parameter in decoder_layers(model).parameters()}
    return {name: p.shape for name, p in model.named_parameters() if id(p) not in own}


def skeleton(config):
    """The model of a configuration without any weights."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(f"{config.model_type} is no decoder-only language model.")
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)
