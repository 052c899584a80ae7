"""The local folder of a model's files: downloaded, or dequantised from GGUF, once."""

import os
import shutil
from pathlib import Path

import huggingface_hub
import torch
from huggingface_hub import errors as hub_errors
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from lib import assets, paths
from lib.catalog import ModelError, Source

CHECKPOINT_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken"]


def checkpoint(source: Source) -> Path:
    """The local folder of a model's weights, downloaded or dequantised first if need be."""
    if source.kind == "hub":
        return _download(source)
    if source.kind == "asset":
        return _dequantised(assets.path(source.location), source.revision)
    if source.kind == "gguf":
        return _dequantised(Path(source.location), source.revision)
    return Path(source.location)


def _dequantised(file: Path, digest: str) -> Path:
    """The checkpoint that `file`, a GGUF, is turned into once: plain bf16 safetensors."""
    folder = paths.CHECKPOINTS / f"{file.stem}-{digest[:12]}"
    if folder.exists():
        return folder
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(part)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(part)
    os.replace(part, folder)
    return folder


def _download(source: Source) -> Path:
    name = source.location
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, revision=source.revision, allow_patterns=CHECKPOINT_FILES
            )
        )
    except hub_errors.GatedRepoError as error:
        raise ModelError(
            f"{name} is gated: accept its licence on its page on the hub, then log in with "
            "`hf auth login`."
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"The hub has no model {name}, or it is private: check its name."
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise ModelError(f"{name} has no revision {source.revision} on the hub.") from error
    except (OSError, hub_errors.HfHubHTTPError) as error:
        raise ModelError(
            f"{name} is not in the local cache and the hub cannot be reached: connect, or give "
            "a local folder, a .gguf file or smollm2-135m."
        ) from error
