"""A model of fewer layers: some left out, or only those after a cut.

Its configuration and its tensors follow.

`check` refuses an architecture whose configuration cannot follow.
"""

import copy
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from unittest import mock

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

from ..blocks import Block
from .decoder import (
    decoder_config,
    decoder_layers,
    get_decoder,
    layers_attribute,
    run_decoder,
    state_hook,
)
from .registry import ModelError

NUMBERS = "layer_numbers"  # in a configuration: of the layers, in the model before any cut
_THRESHOLDS = (  # in a configuration: layers from the first on
    "max_window_layers",
    "first_k_dense_replace",
    "num_dense_layers",
    "moe_layer_start_index",
)
_INDEX_LISTS = (
    "mlp_only_layers",
    "moe_layers",
    "attn_layer_indices",
    "full_attn_idxs",
    "hybrid_layer_ids",
)
_INDEX_ATTRIBUTES = ("layer_idx", "layer_id")  # what modules call the number of their layer


class Cut:
    """Layers `keep` of a model in place of all, and how to go back."""

    def __init__(self, model, keep: Sequence[int]):
        self.layers, self.keep = decoder_layers(model), keep
        self.decoder, self.name = get_decoder(model), layers_attribute(model)
        self.kept = nn.ModuleList(self.layers[l] for l in keep)
        # the decoder's configuration says how many layers there are, and the model's own may
        self.configs = [decoder_config(model)]
        if (own := model.config.get_text_config(decoder=True)) is not self.configs[0]:
            self.configs.append(own)
        self.before = []  # a configuration, and its entries before the cut

    def make(self) -> None:
        """Leave the other layers out."""
        for config in self.configs:
            self.before.append((config, _update_config(config, self.keep)))
        _number(self.kept, range(len(self.keep)))
        setattr(self.decoder, self.name, self.kept)

    def undo(self) -> None:
        """Bring all layers back."""
        setattr(self.decoder, self.name, self.layers)
        _number(self.kept, self.keep)
        for config, entries in self.before:
            for key, value in entries.items():
                setattr(config, key, value) if value is not None else delattr(config, key)
        self.before = []

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Let the model have all its layers within the cut, for a while."""
        self.undo()
        try:
            yield
        finally:
            self.make()


@contextmanager
def only_layers(model, keep: Sequence[int]) -> Iterator[Cut]:
    """Let a model have only the layers `keep`, in that order; restores on exit."""
    cut = Cut(model, keep)
    try:
        cut.make()
        yield cut
    finally:
        cut.undo()


def pruned_config(config, keep: Sequence[int]):
    """Return a copy of an HF configuration that describes the model of only the layers `keep`."""
    config = copy.deepcopy(config)
    _update_config(config.get_text_config(decoder=True), keep)
    return config


def _update_config(config, keep: Sequence[int]) -> dict:
    """Make a configuration describe only the layers `keep`; return the entries before.

    Beside `cut_entries` that is their number, and a list of our own: which of the whole model's
    layers they are.
    """
    if config.is_heterogeneous or getattr(config, "hidden_size_per_layer_input", 0):
        raise ModelError(
            f"{type(config).__name__} describes layers one by one (per_layer_config or "
            "hidden_size_per_layer_input), which pruning does not support."
        )
    new = {"num_hidden_layers": len(keep)}
    if not hasattr(config, NUMBERS):
        new[NUMBERS] = list(keep)
    new |= cut_entries(vars(config), config.num_hidden_layers, keep)
    before = {key: getattr(config, key, None) for key in new}
    for key, value in new.items():
        setattr(config, key, value)
    return before


def cut_entries(entries: dict, num_layers: int, keep: Sequence[int]) -> dict:
    """Return the entries of a configuration that speak of single layers, for the layers `keep`.

    They count layers from the first, list numbers of layers, or have a value, or a letter, for each
    of the `num_layers` layers.
    """
    new = {}
    for key, value in entries.items():
        is_list = isinstance(value, (list, tuple))
        has_layers = (is_list or isinstance(value, str)) and len(value) == num_layers
        if key in _THRESHOLDS and isinstance(value, int):
            new[key] = sum(l < value for l in keep)
        elif key in _INDEX_LISTS and is_list:
            new[key] = [place for place, l in enumerate(keep) if l in value]
        elif key == "attention_types" and is_list:  # of GPT-Neo: kinds, and how often in turn
            kinds = [kind for kinds, times in value for kind in [*kinds] * times]
            new[key] = [[[kinds[l] for l in keep], 1]]
        elif is_list and has_layers and ("layer" in key or "pattern" in key):
            new[key] = type(value)(value[l] for l in keep)
        elif has_layers and "pattern" in key:
            new[key] = "".join(value[l] for l in keep)
    return new


def _number(layers: Iterator[nn.Module], numbers: Sequence[int]) -> None:
    """Give every module of each layer its number (it addresses the key-value cache)."""
    for number, layer in zip(numbers, layers, strict=True):
        for module in layer.modules():
            for name in _INDEX_ATTRIBUTES:
                if isinstance(getattr(module, name, None), int):
                    setattr(module, name, number)


def slice_state_dict(tensors: dict, model, num_layers: int, keep: Sequence[int]) -> dict:
    """Return the tensors of a model of only the layers `keep`, under the names they have there.

    model: one of the same kind, with any layers: the names of its parameters tell the decoder's
    layers from, say, a vision tower's. Files may name all of them in another way, which
    transformers translates. Raises ModelError if not all of the `num_layers` layers are there.
    """
    path = r"(?P<before>.*?\.)(?P<layer>\d+)\.(?P<after>.+)"
    matches = {name: re.fullmatch(path, name) for name in tensors}
    in_layer = dict(decoder_layers(model)[0].named_parameters())
    numbered = [m for m in matches.values() if m]
    known = [m for m in numbered if m["after"] in in_layer]
    # the decoder's list of layers is the one with the most tensors
    prefixes = Counter(m["before"] for m in known or numbered)
    prefix = max(prefixes, key=prefixes.get, default=None)
    layers = {int(m["layer"]) for m in numbered if m["before"] == prefix}
    if not layers.issuperset(range(num_layers)):
        raise ModelError(
            f"The configuration says {num_layers} layers, the tensors are those of {len(layers)}: "
            "these files do not belong together."
        )
    kept = {}
    for name, match in matches.items():
        if not match or match["before"] != prefix:
            kept[name] = tensors[name]
        elif int(match["layer"]) in keep:
            place = keep.index(int(match["layer"]))
            kept[f"{prefix}{place}.{match['after']}"] = tensors[name]
    return kept


@contextmanager
def run_after_block(model, block: Block, state: torch.Tensor, width: int = 0) -> Iterator[None]:
    """Run the model from the cut on: its first layer is `block.stop`, and reads `state`, not input.

    HF's own forward builds masks, rotary embeddings and the final norm, from a configuration
    that matches the layers that are left. width: of the tuple that a layer returns, if it does.
    """
    num_layers = len(decoder_layers(model))
    after = range(block.stop, num_layers)
    output = (state,) + (None,) * (width - 1) if width else state
    with only_layers(model, after or [num_layers - 1]) as cut:
        # if the block includes the last layer, that one stays, and does nothing
        idle = mock.patch.object(cut.kept[0], "forward", lambda *args, **kwargs: output)
        # first of all hooks, so that whoever looks at this layer's input sees `state`
        hook = state_hook(cut.kept, 0, lambda _: state, first=True)
        with hook, nullcontext() if after else idle:
            yield


def changed_after_cut(model, block: Block):
    """Hook, within `pruning.dropped`: what follows the cut reads `block.input_after_cut`."""
    return state_hook(decoder_layers(model), block.start, block.input_after_cut)


# ---- whether layers can be taken out of an architecture ----------------------------------------


def check(config) -> None:
    """Raise ModelError if the configuration cannot follow when layers are removed.

    It can if what is left is then the same: the layers, with their shapes and settings, and the
    shapes of all else. A model without its first layer, where all move by one, tells. Each layer
    must run once, one after the other.
    """
    try:
        num_layers = config.get_text_config(decoder=True).num_hidden_layers
        whole = meta_model(pruned_config(config, range(num_layers)))
        cut = meta_model(pruned_config(config, range(min(1, num_layers - 1), num_layers)))
        before = [_layer_signature(layer) for layer in decoder_layers(whole)]
        after = [_layer_signature(layer) for layer in decoder_layers(cut)]
        order = _order(whole)
    except ModelError:
        raise
    except Exception as error:  # whatever transformers stumbles over
        raise ModelError(
            f"A {config.model_type} decoder of fewer layers cannot be built or read ({error!r})."
        ) from error
    if order != list(range(num_layers)):
        raise ModelError(
            f"A {config.model_type} decoder does not run each of its layers once, one after the "
            "other, so none can be removed."
        )
    if before[-len(after) :] != after:
        raise ModelError(
            f"A {config.model_type} decoder makes a layer by its position, or by the number of "
            "layers, so none can be removed."
        )
    before, after = (
        {name: parameter.shape for name, parameter in outside(model).items()}
        for model in (whole, cut)
    )
    if before != after:
        raise ModelError(
            f"A {config.model_type} decoder has weights for each layer outside of the layers, "
            "so none can be removed."
        )


def _order(model) -> list[int]:
    """Return the numbers of the layers in the order in which a forward pass runs them.

    The model has no weights; its layers then only hand their input on.
    """
    layers, order, states = decoder_layers(model), [], []

    def hand_on(number, *args, **kwargs):
        order.append(number)
        states.append(args[0] if args else kwargs["hidden_states"])
        return states[0]

    for number, layer in enumerate(layers):
        layer.forward = partial(hand_on, number)
    # of two sequences: where a layer returns two things, they stand for these
    ids = torch.zeros(2, 3, dtype=torch.long, device="meta")
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            run_decoder(model, ids)
    except RuntimeError:  # after the last layer, one that returns more may be missed
        if len(order) != len(layers):
            raise
    if states[0].shape[:-1] != ids.shape:
        raise ModelError(
            f"The states of a {model.config.model_type} decoder are no single residual stream of "
            "shape (texts, tokens, width), so it has no distances."
        )
    return order


def _layer_signature(layer: nn.Module) -> list:
    """Return shapes and settings of a layer and all in it, but for its own number."""
    return [(name, parameter.shape) for name, parameter in layer.named_parameters()] + [
        (name, key, value)
        for name, module in layer.named_modules()
        for key, value in vars(module).items()
        if _is_setting(key, value)
    ]


def _is_setting(attribute: str, value) -> bool:
    """Return whether an attribute of a module is a setting: a number, a word, or what maps some.

    Zamba2's layers map the numbers of layers to parts of theirs. Dictionaries of torch are private.
    """
    if isinstance(value, dict):
        return not attribute.startswith("_")
    return isinstance(value, (int, float, str)) and attribute not in _INDEX_ATTRIBUTES


def outside(model) -> dict[str, nn.Parameter]:
    """Return the parameters that are in no layer: embeddings, final norm, lm_head."""
    own = {id(parameter) for parameter in decoder_layers(model).parameters()}
    return {name: p for name, p in model.named_parameters() if id(p) not in own}


def meta_model(config):
    """Return the model of a configuration without any weights.

    It reads ids that have no values, so it does not look for padding among them, as GPT-2 does.
    """
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"transformers has no decoder-only language model of the kind {config.model_type}."
        )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.base_model.warn_if_padding_and_no_attention_mask = lambda *ids_and_mask: None
    return model
