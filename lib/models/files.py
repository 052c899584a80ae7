"""What a model is made of, wherever it comes from: configuration, tensors and tokenizer."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import huggingface_hub
import torch
import transformers
from filelock import FileLock
from huggingface_hub import errors as hub_errors
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from lib import paths, storage
from lib.data import wheels
from lib.models import qwen1
from lib.models.decoder import decoder_layers, layers_attribute
from lib.models.registry import MODELS, GatedError, ModelError, Source, resolve, unpacked

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
CHECKPOINT_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken"]


@dataclass(frozen=True)
class Contents:
    """What a model is made of: its configuration, its tensors (read when indexed), its folder."""

    config: object
    tensors: dict
    folder: Path | None

    @property
    def num_layers(self) -> int:
        return self.config.get_text_config(decoder=True).num_hidden_layers


def contents_of(source: Source) -> Contents:
    """The parts of a model. Raises ModelError if its files are not what they should be."""
    if source.kind == "random":
        model = _tiny_random()
        return Contents(model.config, model.state_dict(), None)
    folder = checkpoint(source)
    file = folder / "config.json"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw.get("model_type") == qwen1.MODEL_TYPE:
            return Contents(qwen1.config(raw), qwen1.renamed(lazy_state_dict(folder)), folder)
        config = AutoConfig.from_pretrained(folder)
    except ModelError:
        raise
    except KeyError as error:
        raise ModelError(f"{file} does not say {error}.") from error
    except (ValueError, OSError) as error:
        raise ModelError(
            f"{file} describes no model that transformers {transformers.__version__} knows "
            f"({_first(error)})."
        ) from error
    return Contents(config, lazy_state_dict(folder), folder)


def tokenizer(name: str):
    """The tokenizer of a model; it pads with its end-of-text token if it has no other."""
    source = pin_revision(resolve(name))
    folder = checkpoint(resolve("smollm2-135m") if source.kind == "random" else source)
    if (folder / "qwen.tiktoken").exists():
        return qwen1.tokenizer(folder)
    found = AutoTokenizer.from_pretrained(folder)
    if found.pad_token is None:
        found.pad_token = found.eos_token
    return found


def checkpoint(source: Source) -> Path:
    """The local folder of a model's weights, downloaded or dequantised first if need be.

    A GGUF file is turned once into plain bf16 safetensors.
    """
    if source.kind == "hub":
        how = {"revision": source.revision, "allow_patterns": CHECKPOINT_FILES}
        with _one_sentence(source):
            return Path(huggingface_hub.snapshot_download(source.location, **how))
    if source.kind not in ("asset", "gguf"):
        return Path(source.location)
    file = wheels.path(source.location) if source.kind == "asset" else Path(source.location)
    folder = unpacked(file, source.revision)
    paths.CHECKPOINTS.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not folder.exists():
            with storage.atomic_folder(folder) as part:
                _dequantise(file, part)
    return folder


def _dequantise(file: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file into `folder`."""
    source = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(**source)
    except Exception as error:  # whatever its reader stumbles over
        raise ModelError(f"{file} cannot be read as a GGUF model ({_first(error)}).") from error
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file.name} could not be unpacked ({_first(error)}).") from error


def _first(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def pin_revision(source: Source) -> Source:
    """The same source; of a hub model whose commit is not known, the hub's newest one.

    The local cache then notes it (refs/main), and from then on `resolve` finds it there: what was
    measured once is measured further on the same weights. Raises ModelError if it cannot be asked.
    """
    if source.kind != "hub" or re.fullmatch("[0-9a-f]{40}", source.revision):
        return source
    with _one_sentence(source):
        file = huggingface_hub.hf_hub_download(
            source.location, "config.json", revision=source.revision
        )
    return replace(source, revision=Path(file).parent.name)  # of snapshots/<commit>/config.json


@contextmanager
def _one_sentence(source: Source) -> Iterator[None]:
    """Whatever the hub answers as a ModelError."""
    name = source.location
    try:
        yield
    except hub_errors.GatedRepoError as error:
        raise GatedError(
            f"{name} is gated: accept its licence on its page on the hub, then log in with "
            "`hf auth login`."
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"The hub has no model {name}, or it is private: check its name."
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise ModelError(f"{name} has no revision {source.revision} on the hub.") from error
    except hub_errors.RemoteEntryNotFoundError as error:
        raise ModelError(f"{name} is no model: it has no config.json.") from error
    except (OSError, hub_errors.HfHubHTTPError) as error:
        raise ModelError(
            f"{name} is not in the local cache and the hub cannot be reached: connect, or give "
            "a local folder, a .gguf file or smollm2-135m."
        ) from error


def _tiny_random():
    """An 8-layer Llama with random weights and the embedded model's vocabulary, for tests."""
    shape = MODELS["tiny-random"].shape
    config = transformers.LlamaConfig(
        vocab_size=shape.vocab_size,
        num_hidden_layers=shape.num_layers,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=shape.tied,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


# ---- tensors, each read from disk only when it is wanted -------------------------------------


def lazy_state_dict(folder: Path) -> dict:
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


def slice_state_dict(tensors: dict, model: nn.Module, num_layers: int, keep: Sequence[int]) -> dict:
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
    beyond = (f"{prefix}{l}." for l in layers if l >= num_layers)
    more = [layer for layer in beyond if not any(re.search(p, layer) for p in ignored)]
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
