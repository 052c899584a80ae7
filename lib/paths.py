"""Where downloads are kept, independent of the working directory.

DEEPER_LAYERS_MIRROR is a folder of repositories (owner/name/…, as on the hub) to read from.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
ASSETS = DATA / "assets"  # unpacked downloads
CHECKPOINTS = DATA / "checkpoints"  # GGUF files, dequantised once


def mirrored(repository: str) -> Path | None:
    """The local copy of a hub repository (owner/name), if the mirror has one."""
    mirror = os.environ.get("DEEPER_LAYERS_MIRROR")
    folder = mirror and Path(mirror).expanduser().resolve() / repository
    return folder if folder and folder.is_dir() else None
