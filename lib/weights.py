"""The tensors of a checkpoint, by name, each read from disk only when it is wanted."""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from lib.catalog import ModelError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


def stored(folder: Path) -> dict:
    """Name -> tensor of a safetensors checkpoint, sharded or not; indexing a tensor reads it.

    Raises ModelError for a shard that is missing, cut short or no safetensors file.
    """
    tensors = {}
    for file in _shards(folder):
        try:
            shard = safe_open(file, framework="pt")
        except FileNotFoundError as error:
            raise ModelError(
                f"{folder} is incomplete: {file.name} is missing; fetch it again."
            ) from error
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} is damaged ({error}): fetch it again.") from error
        tensors |= {name: shard.get_slice(name) for name in shard.keys()}
    return tensors


def _shards(folder: Path) -> list[Path]:
    if not (folder / INDEX).exists():
        return [folder / SINGLE]
    try:
        places = json.loads((folder / INDEX).read_text())["weight_map"]
    except (ValueError, KeyError) as error:
        raise ModelError(f"{folder / INDEX} is damaged: fetch it again.") from error
    return [folder / name for name in sorted(set(places.values()))]


def count(tensors: dict) -> int:
    """How many numbers `tensors` hold."""
    return sum(math.prod(tensor.get_shape()) for tensor in tensors.values())


def renumbered(tensors: dict, layer: nn.Module, attribute: str, keep: Sequence[int]) -> dict:
    """The tensors that a model of only the layers `keep` has, under the names they have there.

    layer: any decoder layer of the model (its parameters' names tell the decoder's layers from,
    say, a vision tower's), attribute: what the decoder calls its list of layers.
    """
    numbered = re.compile(rf"(?P<before>(?:.*\.)?{attribute}\.)(?P<layer>\d+)\.(?P<after>.+)")
    found = {name: numbered.fullmatch(name) for name in tensors}
    own = {name for name, _ in layer.named_parameters()}
    prefixes = Counter(m["before"] for m in found.values() if m and m["after"] in own)
    prefix = prefixes.most_common(1)[0][0] if prefixes else None
    place = {old: new for new, old in enumerate(keep)}
    kept = {}
    for name, tensor in tensors.items():
        match = found[name]
        if not match or match["before"] != prefix:
            kept[name] = tensor
        elif int(match["layer"]) in place:
            kept[f"{prefix}{place[int(match['layer'])]}.{match['after']}"] = tensor
    return kept
