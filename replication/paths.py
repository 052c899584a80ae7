"""Where a run writes, independent of the working directory, and what the checkout has.

DEEPER_LAYERS_OUTPUT is another folder for everything that a run writes (results, figures, executed
notebooks), DEEPER_LAYERS_FIGURES one for the figures; downloads stay with the checkout.
"""

import os
from pathlib import Path

from lib import storage
from lib.paths import DATA, ROOT

NOTEBOOKS = ROOT / "notebooks"
RECORDED = DATA / "recorded"  # committed; to compare with, never a cache


def _folder(variable: str, default: Path) -> Path:
    """The folder that an environment variable names, and its path from the root in its place.

    Kernels and jobs, which inherit it, start in another working directory.
    """
    if variable in os.environ:
        os.environ[variable] = str(Path(os.environ[variable]).expanduser().resolve())
    return Path(os.environ.get(variable, default))


OUTPUT = _folder("DEEPER_LAYERS_OUTPUT", ROOT)
RESULTS = OUTPUT / "data" / "results"  # a JSON file each: private to `measure`
TABLES = OUTPUT / "data" / "tables"  # what measuring ends in
FIGURES = _folder("DEEPER_LAYERS_FIGURES", OUTPUT / "figures")
RUNS = OUTPUT / "papermill_runs"


def continuations(name: str) -> Path:
    """Where `scripts.continuations` records what model `name` writes after dropping blocks."""
    return RECORDED / f"continuations.{storage.component(name)}.jsonl"
