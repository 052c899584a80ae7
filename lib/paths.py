"""Where downloads are kept, independent of the working directory.

A checkout keeps them below its folder data, an installed package in the user's cache (on Linux
~/.cache/deeper-layers, or below XDG_CACHE_HOME). What comes from the hub goes to HF_HOME.

DEEPER_LAYERS_MIRROR is a folder of repositories (owner/name/…, as on the hub) to read from.
"""

import os
from pathlib import Path

import platformdirs

ROOT = Path(__file__).resolve().parent.parent
IS_CHECKOUT = (ROOT / "pyproject.toml").exists()
DATA = ROOT / "data" if IS_CHECKOUT else platformdirs.user_cache_path("deeper-layers")
ASSETS = DATA / "assets"  # unpacked downloads
CHECKPOINTS = DATA / "checkpoints"  # GGUF files, dequantised once


def mirrored(repository: str) -> Path | None:
    """The local copy of a hub repository (owner/name), if the mirror has one."""
    mirror = os.environ.get("DEEPER_LAYERS_MIRROR")
    folder = mirror and Path(mirror).expanduser().resolve() / repository
    return folder if folder and folder.is_dir() else None
