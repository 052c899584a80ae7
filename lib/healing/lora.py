"""LoRA adapters on projections of a pruned model: put on, taken off, saved, merged."""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from .. import storage
from ..models.decoder import decoder_config, decoder_layers
from ..models.layers import NUMBERS

# peft 0.21 asks transformers for an attribute that has a new name
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")

CUT = "cut.json"  # beside an adapter: the numbers of the layers that it healed

# names of the FFN, or of its parts, in decoders
FFN = ("mlp", "shared_mlp", "feed_forward", "ffn", "fc1", "fc2")


def ffn_projections(model, first: int = 0) -> list[str]:
    """Return the full paths of the FFN projections of every decoder layer from `first` on.

    By full path, because a bare name (`c_proj`, `fc1`) may also match attention or vision parts.
    Raises ValueError for a layer without any, or with experts there.
    """
    path_of = {module: path for path, module in model.named_modules()}
    paths = []
    for l, layer in list(enumerate(decoder_layers(model)))[first:]:
        projections = [
            f"{path_of[layer]}.{name}"
            for name, module in layer.named_modules()
            if isinstance(module, (nn.Linear, Conv1D)) and _in_ffn(name)
        ]
        stacked = [n for n, p in layer.named_parameters() if p.ndim > 2 and _in_ffn(n)]
        if stacked or not projections:
            raise ValueError(
                f"Layer {l} of {type(model).__name__} cannot be healed: LoRA needs linear FFN "
                f"projections under {', '.join(FFN)}, and we do not heal experts (stacked tensors)."
            )
        paths += projections
    return paths


def parameters(model) -> int:
    """Return the parameters of adapters of rank 1; the model may be without weights."""
    projections = map(model.get_submodule, ffn_projections(model))
    return sum(sum(projection.weight.shape) for projection in projections)


def _in_ffn(name: str) -> bool:
    """Return whether a module or parameter, by its name in the layer, is part of the FFN."""
    return name.split(".")[0] in FFN


@contextmanager
def new_lora(model, recipe) -> Iterator[PeftModel]:
    """Put a new LoRA adapter on projections of a model, for training; gone on exit.

    Its weights are kept in fp32; it multiplies in the format of the model's (`_adapted`).
    Raises ValueError for layers that cannot be healed.
    """
    transformers.set_seed(recipe.seed)
    of_ffns = ffn_projections(model, recipe.first_layer)
    if not of_ffns:
        raise ValueError(
            f"There is no layer {recipe.first_layer} to heal: the cut reaches the model's end."
        )
    if recipe.all_linear and recipe.first_layer:
        raise ValueError("A healing of all linear layers is of every layer: first_layer must be 0.")
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.rank,
        lora_dropout=recipe.dropout,
        target_modules="all-linear" if recipe.all_linear else of_ffns,
        task_type="CAUSAL_LM",
    )
    with _unloaded_after(model, lambda: get_peft_model(model, config)) as wrapped:
        for module in wrapped.modules():
            if isinstance(module, LoraLayer):
                module.forward = partial(_adapted, module)
        yield wrapped


def _adapted(layer: LoraLayer, x: torch.Tensor) -> torch.Tensor:
    """Return what a projection and its adapter make of x.

    As peft's own forward in fp32, bit for bit. In 16 bits peft hands x to dropout in fp32, which
    draws other masks there than those of the recorded healings. Left out are the scale, 1 since
    alpha is the rank, and a copy of what packed weights give. The projection comes first: gradients
    are added up in the order of what was computed.

    Only the two matrices are rounded to the format of x. Autocast would do that, too; but on a GPU
    it also computes layer norms and powers in fp32: a layer of Phi-2 keeps 213 kB of a token then,
    not 146, for which no memory is planned.
    """
    projected = layer.base_layer(x)
    if layer.disable_adapters:
        return projected
    lowering, raising = (m["default"].weight.to(x.dtype) for m in (layer.lora_A, layer.lora_B))
    lowered = functional.linear(layer.lora_dropout["default"](x), lowering)
    return projected + functional.linear(lowered, raising)


@contextmanager
def load_lora(model, adapter: str | Path) -> Iterator[PeftModel]:
    """Put an adapter on the model that it healed; the model is without it again on exit.

    Raises ValueError if it healed other layers; an older adapter has no note of them.
    """
    file, own = Path(adapter) / CUT, kept_layers(model)
    healed = json.loads(file.read_text()) if file.exists() else own
    if healed != own:
        raise ValueError(f"{adapter} healed a model of the layers {healed}; this one has {own}.")
    with _unloaded_after(model, lambda: PeftModel.from_pretrained(model, adapter)) as wrapped:
        yield wrapped.eval()


def kept_layers(model) -> list[int]:
    """Return which layers of the uncut model this one has, by their numbers there."""
    config = decoder_config(model)
    return getattr(config, NUMBERS, list(range(config.num_hidden_layers)))


def merge(model, adapter: str | Path) -> None:
    """Add an adapter to the model's weights for good: in fp32, then rounded once.

    Rounding to bf16 loses most of the update of a short healing. Raises ValueError for weights
    packed in 4 bits.
    """
    if not all(parameter.is_floating_point() for parameter in model.parameters()):
        raise ValueError(
            "An adapter cannot be merged into weights packed in 4 bits: load the model with "
            "device='cpu', which unpacks them."
        )
    with load_lora(model, adapter) as wrapped:
        wrapped.merge_adapter()


@contextmanager
def _unloaded_after(model, wrap: Callable[[], PeftModel]) -> Iterator[PeftModel]:
    """Yield the model with an adapter, which `wrap` puts on; on exit it is as it was."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    training, use_cache = model.training, getattr(model.config, "use_cache", None)
    wrapped = wrap()
    try:
        # which Trainer changes; the configuration of text and vision may have none
        with mock.patch.object(model.config, "use_cache", use_cache, create=True):
            yield wrapped
    finally:
        wrapped.unload()
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        model.train(training)


def adapter_exists(folder: Path) -> bool:
    """Return whether an adapter is saved there."""
    return (folder / SAFETENSORS_WEIGHTS_NAME).exists()


def save(wrapped: PeftModel, folder: Path) -> Path:
    """Save an adapter whole or not at all; return its folder."""
    with storage.atomic_folder(folder) as part:
        wrapped.save_pretrained(part)
        # peft would load the model before the cut, without an error, and names its folder
        file = part / CONFIG_NAME
        file.write_text(
            json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": None})
        )
        (part / "README.md").unlink(missing_ok=True)
        (part / CUT).write_text(json.dumps(kept_layers(wrapped.get_base_model())))
        shutil.rmtree(folder, ignore_errors=True)
    return folder
