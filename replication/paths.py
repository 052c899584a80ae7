"""Where a run writes, independent of the working directory, and what the checkout has.

DEEPER_LAYERS_OUTPUT is another folder for everything that a run writes (results, figures, executed
notebooks); downloads stay with the checkout. DEEPER_LAYERS_LIVE lets cells that run the model do so
in the recorded run, too: that is how they are recorded. A run sets three more variables of the
environment for its kernels and jobs.
"""

import os
from pathlib import Path

from lib import storage
from lib.paths import DATA, ROOT

NOTEBOOKS = ROOT / "notebooks"
RECORDED = DATA / "recorded"  # committed; to compare with, never a cache
OUTPUT = Path(os.environ.get("DEEPER_LAYERS_OUTPUT", ROOT)).expanduser().resolve()
if "DEEPER_LAYERS_OUTPUT" in os.environ:
    os.environ["DEEPER_LAYERS_OUTPUT"] = str(OUTPUT)  # jobs and kernels start in another folder
RESULTS = OUTPUT / "data" / "results"  # a parquet file each: private to `measure`
TABLES = OUTPUT / "data" / "tables"  # what measuring ends in
FIGURES = OUTPUT / "figures"
RUNS = OUTPUT / "papermill_runs"
# what is missing stays missing, since a job has failed; PROFILE=recorded needs no variable
DRAW_ONLY_VARIABLE = "DEEPER_LAYERS_DRAW_ONLY"
LIVE_VARIABLE = "DEEPER_LAYERS_LIVE"
FRAMES = "DEEPER_LAYERS_FRAMES"  # sliders leave all their pictures: no reader moves them


def draws_only() -> bool:
    """Return whether this process only draws what is there."""
    return bool(os.environ.get(DRAW_ONLY_VARIABLE))


def continuations(name: str) -> Path:
    """Where `scripts.continuations` records what model `name` writes after dropping blocks."""
    return RECORDED / f"continuations.{storage.component(name)}.jsonl"
