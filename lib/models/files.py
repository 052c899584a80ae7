"""The files of a model, wherever it comes from: configuration, tensors and tokenizer.

A name is resolved once, by `open_checkpoint`; the `Checkpoint` is handed on.
"""

import copy
import functools
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import mode

import huggingface_hub
import torch
import transformers
from filelock import FileLock
from huggingface_hub import errors as hub_errors
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from .. import paths, storage
from ..data import wheels
from . import layers, qwen1, registry
from .registry import MODELS, GatedError, ModelError, Source, resolve, unpacked

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
CHECKPOINT_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken"]
LICENCES = ["LICEN[CS]E*", "NOTICE*"]  # files, and a folder LICENSES
BESIDE = ["README.md", *LICENCES, "*processor_config.json"]  # what a card tells, or carries on
TOKENIZER = [pattern for pattern in CHECKPOINT_FILES if pattern != "*.safetensors"]
CHECKPOINT_FILES += BESIDE
FORMATS = {"BF16": "bfloat16", "F16": "float16"}  # of a tensor in safetensors; any other: float32
# what tells a model before its weights are there: an adapter, or a pooling of sentence-transformers
ADAPTER, POOLING = "adapter_config.json", "modules.json"
CONFIGURATION = ["config.json", ADAPTER, POOLING]
LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # ends of classes
EMBEDDED = "smollm2-135m"  # its tokenizer is also that of the model with random weights


@dataclass(frozen=True)
class Checkpoint:
    """A model's name, resolved: the very weights, where they lie, and their configuration."""

    source: Source  # with the pinned revision
    folder: Path | None  # None: the weights are random, and made when they are asked for
    config: object  # of transformers
    is_qwen1: bool = False  # its tensors get the names of a Qwen2

    @property
    def num_layers(self) -> int:
        return self.config.get_text_config(decoder=True).num_hidden_layers

    @property
    def dtype(self) -> str:
        """The format of the weights: by the configuration, else that of most tensors.

        They are downloaded then.
        """
        if self.config.dtype:
            return str(self.config.dtype).removeprefix("torch.")
        tensors = lazy_state_dict(local_folder(self.source)).values()
        return FORMATS.get(mode(tensor.get_dtype() for tensor in tensors), "float32")

    @property
    def bytes_per_weight(self) -> int:
        return 4 if self.dtype == "float32" else 2

    def tensors(self) -> dict:
        """Return name -> tensor; indexing a tensor reads it."""
        if self.folder is None:
            weights = _tiny_random().state_dict()
            return {name: tensor.clone() for name, tensor in weights.items()}
        tensors = lazy_state_dict(self.folder)
        return qwen1.renamed(tensors) if self.is_qwen1 else tensors

    def tokenizer(self):
        """Return its tokenizer, as `tokenizer`."""
        return _tokenizer_in(self.folder)


def open_checkpoint(name: str, patterns: Sequence[str] = CHECKPOINT_FILES) -> Checkpoint:
    """Resolve a name; download or dequantise its files if need be. Reads no tensor.

    patterns: of the files that a hub model needs here; CONFIGURATION: no weights yet.
    Raises ModelError if the files are not what they should be.
    """
    source = pinned(name)
    folder = local_folder(source, patterns)
    if folder is None:
        return Checkpoint(source, None, copy.deepcopy(_tiny_random().config))
    file = folder / "config.json"
    try:
        raw = registry.entries(file)
        is_qwen1 = raw.get("model_type") == qwen1.MODEL_TYPE
        config = qwen1.config(raw) if is_qwen1 else AutoConfig.from_pretrained(folder)
    except ModelError:
        raise
    except (KeyError, ValueError, OSError) as error:
        raise ModelError(
            f"{file} describes no model that transformers {transformers.__version__} knows "
            f"({storage.first_line(error)})."
        ) from error
    for part in (config, config.get_text_config(decoder=True)):
        if getattr(part, "quantization_config", None):
            raise ModelError(f"{name} is quantised already: give the model in 16 or 32 bits.")
        vars(part).pop("auto_map", None)  # to code of its own: we take transformers'
    if (folder / ADAPTER).exists():
        raise ModelError(f"{name} has an adapter beside the model: merge it, or move it away.")
    if (folder / POOLING).exists():
        raise ModelError(
            f"{name} is an embedding model (it has {POOLING}): only language models are read here, "
            "and what makes embeddings would be lost."
        )
    if not is_language_model(config):
        raise ModelError(
            f"{name} is a {config.architectures[0]}, and only language models are read here: its "
            "head would be lost. If it is one, name its class, such as LlamaForCausalLM, as "
            "architectures in config.json."
        )
    return Checkpoint(source, folder, config, is_qwen1)


def is_language_model(config) -> bool:
    """Return whether a model writes text, by the names of its classes, if it has any.

    A reward model, say, has the layers of a language model, and another head: with tied embeddings
    it would pass for one.
    """
    names = config.architectures or []
    return not names or any(name.endswith(LANGUAGE_MODELS) for name in names)


def digests(checkpoint: Checkpoint, notes: Path) -> dict[str, str]:
    """Return the sha256 of each file that makes the model of a local folder; of any other none.

    They are read once, and noted in the folder `notes` by names, sizes and times of the files.
    """
    if checkpoint.source.kind != "folder":
        return {}

    def read() -> dict[str, str]:
        own = set(chain.from_iterable(map(checkpoint.folder.glob, CHECKPOINT_FILES)))
        own -= set(chain.from_iterable(map(checkpoint.folder.glob, BESIDE)))
        return {file.name: storage.digest(file) for file in sorted(own)}

    return storage.kept(notes / f"{checkpoint.source.revision[:12]}.json", read)


def configuration(name: str):
    """Return transformers' configuration of a model; None where it is not known here.

    Does not touch the network.
    """
    raw = registry.configuration(name)
    if raw and registry.resolve(name).kind in ("folder", "gguf"):
        return open_checkpoint(name).config
    return AutoConfig.for_model(**raw) if raw else None


def tokenizer(name: str):
    """Return the tokenizer of a model; it pads with its end-of-text token if it has no other."""
    return _tokenizer_in(local_folder(pinned(name)))


def _tokenizer_in(folder: Path | None):
    folder = folder or local_folder(resolve(EMBEDDED))
    if (folder / "qwen.tiktoken").exists():
        return qwen1.tokenizer(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # whatever its reader stumbles over
        raise ModelError(
            f"{folder} has no tokenizer that transformers {transformers.__version__} can read."
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token, tokenizer.lent_pad = tokenizer.eos_token, True
    return tokenizer


def save_tokenizer(tokenizer, folder: Path) -> None:
    """Save a tokenizer as it was read: without a pad token that was lent to it."""
    own = copy.deepcopy(tokenizer)
    if getattr(own, "lent_pad", False):
        own.pad_token = None
    own.init_kwargs.pop("auto_map", None)  # to code that is not saved
    own.save_pretrained(folder)


def keep_configuration(base: Path, folder: Path) -> None:
    """Let config.json in `folder` be that of its base, with the entries that the cut changed.

    transformers 5 renames entries (`rope_theta`) and leaves out what it does not know; transformers
    4 would then read its defaults, without an error. What transformers 5 reads stays the same:
    where that cannot be, as of Qwen-1, which becomes a Qwen2, the file that it wrote stays.
    """
    file, after = folder / "config.json", AutoConfig.from_pretrained(folder)
    written = file.read_text(encoding="utf-8")
    raw = json.loads((base / "config.json").read_text(encoding="utf-8"))
    parts = [part for part in (raw, *raw.values()) if isinstance(part, dict)]  # or its text part
    own = next((part for part in parts if part.get("model_type") == after.model_type), None)
    if own is None:
        return

    def reread():
        """Write the entries as they are by now; return what transformers makes of them."""
        file.write_text(json.dumps(own, indent=2) + "\n", encoding="utf-8")
        return AutoConfig.from_pretrained(folder)

    # first what speaks of single layers, in the base's own words; then what is still read otherwise
    uncut = list(_parts(own, reread(), after))
    for part, before, cut in uncut:
        _cut_layers(part, before, cut)
    recut = _parts(own, reread(), after)
    for (part, before, cut), (_, now, _) in zip(uncut, recut, strict=True):
        _change(part, before, now, cut)
    if _entries(reread()) != _entries(after):
        file.write_text(written, encoding="utf-8")


def _parts(raw: dict, before, after) -> Iterator[tuple]:
    """Yield a config.json, and what is read from it before and after; then each part of it so."""
    yield raw, before, after
    for name in after.sub_configs:
        if raw.get(name):
            yield from _parts(raw[name], getattr(before, name), getattr(after, name))


def _cut_layers(raw: dict, before, after) -> None:
    """Take the layers that are gone out of each list of a config.json, in the base's own words."""
    if kept := getattr(after, layers.NUMBERS, None):
        numbers = getattr(before, layers.NUMBERS, list(range(before.num_hidden_layers)))
        keep = [numbers.index(number) for number in kept]
        raw |= layers.cut_entries(raw, len(numbers), keep)
        own_name = after.attribute_map.get("num_hidden_layers")  # "n_layer", say
        raw |= dict.fromkeys(raw.keys() & {"num_hidden_layers", own_name}, len(kept))


def _change(raw: dict, before, now, after) -> None:
    """Give the entries of a config.json, which is read as `now`, the values of `after`.

    Also those that the base left to a rule, as a period of the kinds of layers.
    """
    old, read, new = map(_entries, (before, now, after))
    other_names = after.attribute_map | {"torch_dtype": "dtype"}
    for key in (read.keys() | new.keys()) - after.sub_configs.keys():
        is_by_rule = key not in raw and old.get(key) != new.get(key)
        if is_by_rule or read.get(key) != new.get(key):
            names = [name for name in other_names if other_names[name] == key and name in raw]
            for name in names or [key]:
                raw[name] = new.get(key)
    raw.pop("auto_map", None)  # to code that is not saved


def _entries(config) -> dict:
    """Return the entries of a configuration, as JSON has them."""
    return json.loads(config.to_json_string(use_diff=False))


def local_folder(source: Source, patterns: Sequence[str] = CHECKPOINT_FILES) -> Path | None:
    """Return the folder of a model's files, downloaded or dequantised first if need be.

    A GGUF file is turned once into plain bf16 safetensors. None for random weights.
    patterns: as of `open_checkpoint`.
    """
    if source.kind == "random":
        return None
    if source.kind == "folder":
        return Path(source.location)
    if source.kind == "hub":
        with _one_sentence(source):
            snapshot = huggingface_hub.snapshot_download(
                source.location, revision=source.revision, allow_patterns=list(patterns)
            )
        return Path(snapshot)
    file = wheels.path(source.location) if source.kind == "asset" else Path(source.location)
    folder = unpacked(file, source.revision)
    if folder.exists():  # then it is whole; a lock could not be written in a read-only checkout
        return folder
    paths.CHECKPOINTS.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(folder.name + ".lock")):
        if not folder.exists():
            with storage.atomic_folder(folder) as part:
                _dequantise(file, part)
    return folder


def _dequantise(file: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file into `folder`."""
    try:
        model = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except Exception as error:  # whatever its reader stumbles over
        raise ModelError(f"{file} cannot be unpacked ({storage.first_line(error)}).") from error


def pinned(name: str) -> Source:
    """Return the source of a model's name, with the commit of a hub model; loads no weights.

    Where the commit is not known, it is the newest one. The local cache then notes it (refs/main),
    and from then on `resolve` finds it there: what was measured once is measured further on the
    same weights. Raises ModelError for a name that is none, or if the hub cannot be asked.
    """
    source = resolve(name)
    if source.kind != "hub" or re.fullmatch("[0-9a-f]{40}", source.revision):
        return source
    with _one_sentence(source):
        file = huggingface_hub.hf_hub_download(
            source.location, "config.json", revision=source.revision
        )
    return replace(source, revision=Path(file).parent.name)  # of snapshots/<commit>/config.json


@contextmanager
def _one_sentence(source: Source) -> Iterator[None]:
    """Turn any error of the hub into a ModelError."""
    try:
        yield
    except hub_errors.GatedRepoError as error:
        raise GatedError(
            f"{source.location} is gated: accept its licence on its page on the hub, then log in "
            "with `hf auth login`."
        ) from error
    except (OSError, hub_errors.HfHubHTTPError) as error:
        raise ModelError(
            f"{source.location} cannot be had from the hub ({type(error).__name__}): check its "
            "name and the network, or give a local folder, a .gguf file or smollm2-135m."
        ) from error


@functools.cache
def _tiny_random():
    """Return an 8-layer Llama with random weights, and the embedded model's vocabulary."""
    sizes = MODELS["tiny-random"].config
    config = AutoConfig.for_model(**sizes, initializer_range=0.2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


# ---- tensors, each read from disk only when it is indexed --------------------------------------


def lazy_state_dict(folder: Path) -> dict:
    """Return name -> tensor of a safetensors checkpoint; indexing a tensor reads it.

    Raises ModelError for a file that is missing, cut short or no safetensors file.
    """
    tensors, names = {}, [SINGLE]
    try:
        if (folder / INDEX).exists():
            names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
        for name in names:
            shard = safe_open(folder / name, framework="pt")
            tensors |= {key: shard.get_slice(key) for key in shard.keys()}
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"The weights in {folder} are missing or damaged ({storage.first_line(error)}): "
            "fetch them again, as safetensors."
        ) from error
    return tensors
