"""Checkpoints that count only once all their parts are there."""

import json
import shutil
from pathlib import Path

from lib import results
from lib.assets import digest

SEAL = "complete.json"


def seal(checkpoint: Path) -> None:
    """Declare a checkpoint complete: the digests of all its files, written last."""
    files = sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.name != SEAL)
    digests = {p.relative_to(checkpoint).as_posix(): digest(p) for p in files}
    results.write_whole(checkpoint / SEAL, json.dumps(digests).encode())


def complete(checkpoint: Path) -> bool:
    """Whether a checkpoint is sealed and every file is, byte for byte, what was sealed."""
    try:
        digests = json.loads((checkpoint / SEAL).read_text())
        return bool(digests) and all(digest(checkpoint / n) == d for n, d in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def newest_complete(folder: Path) -> Path | None:
    """The complete checkpoint of the most steps; those that are not complete are deleted."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    for checkpoint in list(found):
        if not complete(checkpoint):
            shutil.rmtree(checkpoint)
            found.remove(checkpoint)
    return found[-1] if found else None
