"""Whether transformers 4 reads what `lib.pruning.save_pruned` writes, by family of decoders.

A whole tiny model has the config.json of transformers 4, as most published checkpoints do. Its
weights are written, and a block is dropped, by the installed transformers 5. Transformers 4 reads
both checkpoints in a process of its own, and has to compute the logits of transformers 5. It is
installed once, below .venv.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from lib import paths

VERSION = "4.57.6"
PACKAGES = (f"transformers=={VERSION}", "huggingface_hub<1", "tokenizers>=0.22,<0.23")
SITE = paths.ROOT / ".venv" / f"transformers-{VERSION}"
YES = "yes"


def column(families: Iterable[str], write: Callable[[Path], None]) -> dict[str, str]:
    """Return by family "yes", or why not.

    write: makes the checkpoints whole and cut in a folder whose whole/config.json is there.
    """
    if not SITE.exists():
        with TemporaryDirectory(dir=SITE.parent) as place:  # whole, or not at all
            made = Path(place, SITE.name)
            pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", made)
            subprocess.run([*pip, *PACKAGES], check=True)
            made.rename(SITE)
    with TemporaryDirectory() as place:
        folders = [Path(place, family) for family in families]
        for folder in folders:
            folder.mkdir()
        answers = by_transformers_4("configure", folders)
        for folder in folders:
            answers[folder.name] = answers[folder.name] or written(folder, write)
        whole = [folder for folder in folders if not answers[folder.name]]
        answers |= by_transformers_4("read", whole)
        return {family: answer or YES for family, answer in answers.items()}


def written(folder: Path, write: Callable[[Path], None]) -> str:
    """Write the checkpoints of a family; return what kept it from that, if anything."""
    try:
        write(folder)
    except Exception as error:  # a bug, here or in transformers
        return f"error: {error!r}"
    return ""


def by_transformers_4(step: str, folders: list[Path]) -> dict[str, str]:
    """Return what a step of `read_by_4` says of each family, by transformers 4."""
    environment = os.environ | {"PYTHONPATH": f"{SITE}{os.pathsep}{paths.ROOT}"}
    command = [sys.executable, "-m", "scripts.read_by_4", step, *map(str, folders)]
    program = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(program.stdout.splitlines()[-1])
