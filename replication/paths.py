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

OUTPUT = Path(os.environ.get("DEEPER_LAYERS_OUTPUT", ROOT)).expanduser().resolve()
RESULTS = OUTPUT / "data" / "results"  # a JSON file each: private to `measure`
TABLES = OUTPUT / "data" / "tables"  # what measuring ends in
FIGURES = Path(os.environ.get("DEEPER_LAYERS_FIGURES", OUTPUT / "figures")).expanduser().resolve()
RUNS = OUTPUT / "papermill_runs"


def continuations(name: str) -> Path:
    """Where `scripts.continuations` records what model `name` writes after dropping blocks."""
    return RECORDED / f"continuations.{storage.component(name)}.jsonl"
