"""The tensors of a checkpoint, by name, each read from disk only when it is wanted."""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from lib.models.decoder import decoder_layers, layers_attribute
from lib.models.registry import ModelError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


def stored(folder: Path) -> dict:
    """Name -> tensor of a safetensors checkpoint, sharded or not; indexing a tensor reads it.

    Raises ModelError for a shard that is missing, cut short or no safetensors file.
    """
    files, tensors = {SINGLE}, {}
    if (folder / INDEX).exists():
        try:
            files = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
        except (ValueError, KeyError) as error:
            raise ModelError(f"{folder / INDEX} is damaged: fetch it again.") from error
    for file in sorted(files):
        try:
            shard = safe_open(folder / file, framework="pt")
        except FileNotFoundError as error:
            raise ModelError(
                f"{folder} is incomplete: {file} is missing (only safetensors are read)."
            ) from error
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{folder / file} is damaged ({error}): fetch it again.") from error
        tensors |= {name: shard.get_slice(name) for name in shard.keys()}
    return tensors


def in_memory(tensors: dict, matrix: float, other: float) -> float:
    """Bytes of all `tensors`: `matrix` for a number that NF4 quantises, `other` for any other.

    Those are the layers' matrices; embeddings, lm_head, norms, biases and experts are not.
    """
    found = 0
    for name, tensor in tensors.items():
        shape = tensor.get_shape() if hasattr(tensor, "get_shape") else tensor.shape
        quantised = len(shape) == 2 and re.search(r"\.\d+\.", name) and ".experts." not in name
        found += math.prod(shape) * (matrix if quantised else other)
    return found


def renumbered(tensors: dict, model: nn.Module, num_layers: int, keep: Sequence[int]) -> dict:
    """The tensors that a model of only the layers `keep` has, under the names they have there.

    model: one of the same kind, with any layers: what its parameters are called tells the
    decoder's layers from, say, a vision tower's. Raises ModelError if not all of the `num_layers`
    layers are there, or more than these.
    """
    path = rf"(?P<before>(?:.*\.)?{layers_attribute(model)}\.)(?P<layer>\d+)\.(?P<after>.+)"
    found = {name: re.fullmatch(path, name) for name in tensors}
    own = {name for name, _ in decoder_layers(model)[0].named_parameters()}
    prefixes = Counter(m["before"] for m in found.values() if m and m["after"] in own)
    prefix = prefixes.most_common(1)[0][0] if prefixes else None
    layers = {int(m["layer"]) for m in found.values() if m and m["before"] == prefix}
    ignored = type(model)._keys_to_ignore_on_load_unexpected or ()  # that a checkpoint may hold
    more = {
        l
        for l in layers
        if l >= num_layers and not any(re.search(p, f"{prefix}{l}.") for p in ignored)
    }
    if more or not layers.issuperset(range(num_layers)):
        raise ModelError(
            f"The configuration says {num_layers} layers, the tensors are those of {len(layers)}: "
            "these files do not belong together."
        )
    kept = {}
    for name, match in found.items():
        if not match or match["before"] != prefix:
            kept[name] = tensors[name]
        elif int(match["layer"]) in keep:
            kept[f"{prefix}{keep.index(int(match['layer']))}.{match['after']}"] = tensors[name]
    return kept
