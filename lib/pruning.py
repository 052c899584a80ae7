"""Remove a block of consecutive layers: in memory, reversibly, or into an ordinary checkpoint.

A block is 0-indexed and half-open: Block(start, size) is `range(start, start + size)` in the
numbering of the unpruned model. The input of layer `start` goes to layer `start + size` instead.
"""

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM

from lib import shapes
from lib.blocks import UNPRUNED, Block, similarity_block, simple_block
from lib.decoder import decoder_config, decoder_layers, layers_attribute
from lib.registry import ModelError
from lib.shapes import Shape

__all__ = ["UNPRUNED", "Block", "dropped", "save_pruned", "similarity_block", "simple_block"]

# Configuration entries that count layers from the bottom, and lists of layer indices; lists with
# one entry a layer (layer_types, no_rope_layers, …) are recognised by their name and length.
_THRESHOLDS = ("max_window_layers", "first_k_dense_replace")
_INDEX_LISTS = ("mlp_only_layers", "moe_layers", "attn_layer_indices")
_OTHER_WAY = (
    "mergekit and llama-quantize --prune-layers cut no lists that say what each layer does, as "
    "this model may have: turn the folder that pruning.save_pruned writes into a GGUF instead, "
    "with llama.cpp's convert_hf_to_gguf.py.\n"
)
NUMBERS = ("layer_idx", "layer_id")  # what modules call the number of their layer


@contextmanager
def dropped(model, block: Block) -> Iterator[None]:
    """The model without `block`: layers, configuration and layer indices follow the cut.

    Everything is restored on exit, also after an error. Inside, the model is an ordinary HF
    model of L - size layers: it generates with a cache and saves.
    """
    with only_layers(model, block.kept(len(decoder_layers(model)))):
        yield


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


def for_other_tools(
    block: Block, num_layers: int, name: str, shape: Shape | None
) -> dict[str, str]:
    """The same cut of model `name` as files that mergekit and llama.cpp read, by file name.

    A passthrough merge of the slices that stay (half-open ranges), and the list for llama.cpp's
    `llama-quantize --prune-layers`. Both number layers as we do, in the unpruned model. Neither
    cuts a list that says what each layer does: where the layers are not all of one kind, or the
    sizes of the model are not known (shape None), one file says which way works.
    """
    block.kept(num_layers)
    if shape is None or not shape.alike:
        return {"other-tools.txt": _OTHER_WAY}
    slices = [(0, block.start), (block.stop, num_layers)]
    lines = ["merge_method: passthrough", "dtype: bfloat16", "slices:"]
    for start, stop in slices:
        if start < stop:
            source = f"{{model: {json.dumps(name)}, layer_range: [{start}, {stop}]}}"
            lines.append(f"  - sources: [{source}]")
    return {
        "mergekit.yml": "\n".join(lines) + "\n",
        "llama-prune-layers.txt": ",".join(map(str, range(block.start, block.stop))) + "\n",
    }


def save_pruned(
    model, tokenizer, block: Block, folder: str | Path, add: Callable[[Path], None] | None = None
) -> Path:
    """Save the model without `block` as an ordinary HF checkpoint, and return its folder.

    It is written beside `folder`, loaded again and compared logit by logit with the pruned model
    in memory; only then does it get its name. The files of `for_other_tools` lie in it, and what
    `add` writes into the folder that it is given. Raises RuntimeError if the logits differ,
    FileExistsError if the folder is there already, OSError if it cannot be written; nothing is
    left behind then.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: delete it or choose another folder.")
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    num_layers, name = len(decoder_layers(model)), model.name_or_path
    try:
        with dropped(model, block):
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
            _check_saved(model, block, part)
        shape = shapes.of_config(model.config.to_dict())
        for file, text in for_other_tools(block, num_layers, name, shape).items():
            (part / file).write_text(text, encoding="utf-8")
        if add:
            add(part)
        os.replace(part, folder)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{folder} could not be written: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _check_saved(model, block: Block, folder: Path) -> None:
    """Raise RuntimeError if the checkpoint in `folder` is not the model, logit by logit."""
    reloaded = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype).to(model.device)
    probe = torch.arange(48, device=model.device).reshape(2, 24) % model.config.vocab_size
    with torch.inference_mode():
        ours, theirs = (m(probe, use_cache=False).logits for m in (model, reloaded.eval()))
        if not torch.equal(ours, theirs):
            raise RuntimeError(
                f"The checkpoint of {block} gives other logits than the pruned model."
            )
