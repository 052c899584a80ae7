"""What a model's name stands for: pinned revisions, and the identity that results are keyed by.

Imports neither torch nor transformers, so a batch can be checked and planned at once.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from lib import assets, paths


@dataclass(frozen=True)
class Healing:
    """What the paper's healing recipe has of its own for a model (section 3 of its appendix)."""

    max_tokens: int
    learning_rate: float  # peak
    rank: int


@dataclass(frozen=True)
class Model:
    """A model known by a short name: where its weights come from, and its size."""

    label: str  # as figures show it
    family: str  # models of a family share a panel
    source: str  # an asset, "random", or a hub id
    revision: str | None  # pinned commit of a hub id
    num_layers: int  # L
    vocab_size: int  # V
    note: str
    healing: Healing | None = None  # of the paper's models


MODELS = {
    "tiny-random": Model(
        "tiny random Llama", "tiny random", "random", None, 8, 49_152, "built on the spot"
    ),
    "smollm2-135m": Model(
        "SmolLM2-135M",
        "SmolLM2",
        "asset",
        None,
        30,
        49_152,
        "Instruct; 4-bit weights (Q4_1), dequantised",
    ),
    "llama-2-7b": Model(
        "Llama-2-7B",
        "Llama-2",
        "meta-llama/Llama-2-7b-hf",
        "01c7f73d771dfac7d292323805ebc428287df4f9",
        32,
        32_000,
        "gated",
        Healing(2048, 3e-4, 2),
    ),
    "llama-2-13b": Model(
        "Llama-2-13B",
        "Llama-2",
        "meta-llama/Llama-2-13b-hf",
        "5c31dfb671ce7cfe2d7bb7c04375e44c55e815b1",
        40,
        32_000,
        "gated",
        Healing(4096, 3e-4, 64),
    ),
    "llama-2-70b": Model(
        "Llama-2-70B",
        "Llama-2",
        "meta-llama/Llama-2-70b-hf",
        "3aba440b59558f995867ba6e1f58f21d0336b5bb",
        80,
        32_000,
        "gated",
        Healing(4096, 3e-5, 8),
    ),
    "qwen-7b": Model(
        "Qwen-7B",
        "Qwen",
        "Qwen/Qwen-7B",
        "ef3c5c9c57b252f3149c1408daf4d649ec8b6c85",
        32,
        151_936,
        "",
        Healing(2048, 3e-4, 64),
    ),
    "qwen-14b": Model(
        "Qwen-14B",
        "Qwen",
        "Qwen/Qwen-14B",
        "c4051215126d906ac22bb67fe5edb39a921cd831",
        40,
        151_936,
        "",
        Healing(4096, 3e-4, 64),
    ),
    "mistral-7b": Model(
        "Mistral-7B",
        "Mistral and Phi-2",
        "mistralai/Mistral-7B-v0.1",
        "27d67f1b5f57dc0953326b2601d68371d40ea8da",
        32,
        32_000,
        "",
        Healing(2048, 3e-6, 4),
    ),
    "phi-2": Model(
        "Phi-2",
        "Mistral and Phi-2",
        "microsoft/phi-2",
        "810d367871c1d460086d9f82db8696f2e0a0fcd0",
        32,
        51_200,
        "",
        Healing(2048, 2e-4, 64),
    ),
}


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
    revision: str  # identifies the very weights


def resolve(name: str) -> Source:
    """The source of `name`: a key of MODELS, a .gguf file, a local folder or a hub id.

    Raises ModelError if `name` is none of these; does not touch the network.
    """
    model = MODELS.get(name)
    if model and model.source == "random":
        return Source("random", name, "seed 0")
    if model and model.source == "asset":
        return Source("asset", name, assets.ASSETS[name].sha256)
    if model:
        return _hub(model.source, model.revision)
    local = Path(name).expanduser()
    if local.is_file() and local.suffix == ".gguf":
        return Source("gguf", str(local.resolve()), assets.digest(local))
    if local.is_dir():
        return _folder(local)
    if _looks_like_hub_id(name):
        return _hub(name, "main")
    raise ModelError(
        f"Unknown model {name!r}: give one of {', '.join(MODELS)}, a hub id (owner/name), "
        "a folder with a config.json, or a .gguf file that exists."
    )


def _hub(repository: str, revision: str) -> Source:
    mirrored = paths.mirrored(repository)
    return _folder(mirrored) if mirrored else Source("hub", repository, revision)


def _folder(local: Path) -> Source:
    if not (local / "config.json").exists():
        raise ModelError(f"{local} is no checkpoint: it has no config.json.")
    return Source("folder", str(local.resolve()), _fingerprint(local))


def num_layers(name: str) -> int | None:
    """L, as far as it is known without the network: of models in MODELS and of local folders."""
    if name in MODELS:
        return MODELS[name].num_layers
    source = resolve(name)
    if source.kind != "folder":
        return None
    raw = json.loads((Path(source.location) / "config.json").read_text(encoding="utf-8"))
    raw = raw.get("text_config") or raw
    return next(
        (raw[key] for key in ("num_hidden_layers", "n_layer", "n_layers") if key in raw), None
    )


def label(name: str) -> str:
    """How figures call the model."""
    return MODELS[name].label if name in MODELS else Path(name).name


def family(name: str) -> str:
    """Whose panel the model is drawn in."""
    return MODELS[name].family if name in MODELS else label(name)


def _looks_like_hub_id(name: str) -> bool:
    part = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # so that no name leads out of a folder
    return bool(re.fullmatch(f"{part}/{part}", name)) and not name.endswith(".gguf")


def _fingerprint(folder: Path) -> str:
    """Changes whenever a file of the checkpoint is rewritten: names, sizes, times, config."""
    files = sorted(p for p in folder.iterdir() if p.is_file())
    lines = [f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in files]
    lines.append((folder / "config.json").read_text())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
