"""The meaning of a model's name: its row in models.csv, and the identity that keys its results.

The paper's seven models are pinned to a commit. The others are not: their commits could not be
looked up without the hub, and a wrong one would be worse than the newest.
Imports neither torch nor transformers, so a batch can be checked and planned at once.
"""

import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import huggingface_hub.constants

from .. import paths, storage
from ..data import wheels

# layers: L; hidden: D; vocab: V; gated: its licence must be accepted on the hub
TABLE = Path(__file__).with_name("models.csv")
SIZES = {  # columns, and what transformers calls them
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "vocab": "vocab_size",
    "head_dim": "head_dim",
}


@dataclass(frozen=True)
class Model:
    """A model known by a short name: where its weights come from, and its sizes."""

    label: str  # as figures show it
    family: str  # models of a family share a panel
    source: str  # an asset, "random", or a hub id
    revision: str  # pinned commit of a hub id; main: not pinned, the newest is taken
    licence: str
    config: dict  # the entries of its config.json that say how large it is


def _model(row: dict[str, str]) -> Model:
    config = {name: int(row[column]) for column, name in SIZES.items() if row[column]}
    config["model_type"] = row["architecture"]
    config["tie_word_embeddings"] = row["tied"] == "yes"
    return Model(
        label=row["label"],
        family=row["family"],
        source=row["source"],
        revision=row["revision"] or "main",
        licence=row["licence"],
        config=config,
    )


MODELS = {row["name"]: _model(row) for row in storage.rows(TABLE)}
SHORT_NAMES = {model.source: name for name, model in MODELS.items() if "/" in model.source}


_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # so that no name leads out of a folder
HUB_ID = re.compile(f"{_PART}/{_PART}")


class ModelError(ValueError):
    """A model cannot be had; the message says why and what to do, in one sentence."""

    status = "skipped: not available"


class GatedError(ModelError):
    """The hub has the model, but its licence is not accepted, or there is no login."""

    status = "skipped: gated"


@dataclass(frozen=True)
class Source:
    """Where a model's weights are: kind is random, asset, gguf, folder or hub."""

    kind: str
    location: str  # a path, a hub id, or an asset's name
    revision: str  # identifies the very weights: the commit of a hub model, as far as it is known


def canonical(name: str) -> str:
    """The one name of a model: a key of MODELS also for its hub id, a path from the root for one
    that exists; any other as it is.
    """
    if name in MODELS:
        return name
    if local := _local(name):
        return os.path.abspath(local)
    return SHORT_NAMES.get(name, name)


def _local(name: str) -> Path | None:
    """The folder or .gguf file that `name` leads to, if there is one."""
    local = Path(name).expanduser()
    is_file = local.suffix == ".gguf" and local.is_file()
    return local if is_file or local.is_dir() else None


def resolve(name: str) -> Source:
    """The source of `name`: a key of MODELS, a .gguf file, a local folder or a hub id.

    Raises ModelError if `name` is none of these; does not touch the network.
    """
    model = MODELS.get(name)
    if model and model.source == "random":
        return Source("random", name, "seed 0")
    if model and model.source == "asset":
        return Source("asset", name, wheels.ASSETS[name].sha256)
    if model:
        return _hub(model.source, model.revision)
    local = _local(name)
    if local and local.is_dir():
        return _folder(local)
    if local:
        status = local.stat()
        digest = _digest(local, status.st_size, status.st_mtime_ns)
        return Source("gguf", str(local.resolve()), digest)
    if HUB_ID.fullmatch(name) and not name.endswith(".gguf"):
        return _hub(name, "main")
    raise ModelError(
        f"Unknown model {name!r}: give one of {', '.join(MODELS)}, a hub id (owner/name), "
        "a folder with a config.json, or a .gguf file."
    )


@cache
def _digest(file: Path, size: int, changed: int) -> str:
    """The sha256 of a file, read once for each size and time of change (ns)."""
    return storage.digest(file)


def _hub(repository: str, revision: str) -> Source:
    """A hub model at a commit, or at a branch (main) of which the local cache knows no commit.

    `files.pinned` asks the hub for it; until then nothing of the model has been measured.
    """
    if mirrored := paths.mirrored(repository):
        return _folder(mirrored, is_copy=True)
    folder = f"models--{repository.replace('/', '--')}"
    branch = Path(huggingface_hub.constants.HF_HUB_CACHE, folder, "refs", revision)
    commit = branch.read_text(encoding="utf-8").strip() if branch.is_file() else revision
    return Source("hub", repository, commit)


def unpacked(file: Path, revision: str) -> Path:
    """The folder into which a GGUF file is turned when it is first loaded."""
    return paths.CHECKPOINTS / f"{file.stem}-{revision[:12]}"


def _folder(local: Path, is_copy: bool = False) -> Source:
    if not (local / "config.json").exists():
        raise ModelError(f"{local} is no checkpoint: it has no config.json.")
    return Source("folder", str(local.resolve()), storage.fingerprint(local, is_copy))


def known(name: str) -> Model | None:
    """Return the row of a model, by its short name or its hub id; None if there is none."""
    return MODELS.get(canonical(name))


def hub_id(name: str) -> str | None:
    """Return the hub id (owner/name) of a model; None for one that is not on the hub."""
    source = getattr(known(name), "source", canonical(name))
    return source if HUB_ID.fullmatch(source) else None


def num_layers(name: str) -> int | None:
    """Return L, as far as it is known without the network."""
    raw = configuration(name)
    keys = ("num_hidden_layers", "n_layer", "n_layers")
    return next((raw[key] for key in keys if key in raw), None)


def configuration(name: str) -> dict:
    """Return the decoder's entries in config.json, as far as they are known without the network.

    Those of a row in models.csv, of a local folder, or of a GGUF file that is unpacked; else none.
    """
    source = resolve(name)
    if source.kind not in ("folder", "gguf"):
        return getattr(known(name), "config", {})
    folder = Path(source.location)
    if source.kind == "gguf":
        folder = unpacked(folder, source.revision)
    file = folder / "config.json"
    if not file.exists():
        return {}
    raw = entries(file)
    return raw.get("text_config") or raw


def entries(file: Path) -> dict:
    """Return the entries of a config.json. Raises ModelError if it has none."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{file} cannot be read ({error}).") from error
    if not isinstance(raw, dict):
        raise ModelError(f"{file} has no entries, so it describes no model: fetch it again.")
    return raw


def label(name: str) -> str:
    """The model's name in figures."""
    return MODELS[name].label if name in MODELS else Path(name).name


def family(name: str) -> str:
    """The family in whose panel the model is drawn."""
    return MODELS[name].family if name in MODELS else label(name)
