"""The table: one line a row, the machine it was measured on, the notes below it."""

import datetime
import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from benchmarks.timing import Pair
from lib.models import machine

FILE = Path(__file__).parent / "results" / "first_light.md"
PACKAGES = ("torch", "transformers")
COLUMNS = (
    "row",
    "what",
    "reference",
    "ours",
    "seconds, reference",
    "seconds, ours",
    "ratio",
    "required",
    "met",
    "what counting allows",
)


@dataclass(frozen=True)
class Line:
    """A row of the table. dtype is that of the weights; limit: the ratio that counting allows."""

    row: int
    what: str
    reference: str
    ours: str
    required: str
    met: bool
    pair: Pair
    dtype: str
    limit: str = "–"
    note: str = ""

    def cells(self) -> list[str]:
        """Return the texts of the table's columns."""
        numbers = self.pair.reference, self.pair.ours, self.pair.speedup
        texts = [str(self.row), self.what, self.reference, self.ours]
        texts += [f"{number:.3g}" for number in numbers]
        return [*texts, self.required, "yes" if self.met else "no", self.limit]


def markdown(lines: list[Line]) -> str:
    """Title, machine, table and notes."""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(line.cells() for line in lines)]
    table = ["| " + " | ".join(row) + " |" for row in rows]
    notes = [f"- Row {line.row}: {line.note}" for line in lines if line.note]
    parts = [["# Speed ratios"], _machine(lines), table, notes]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _machine(lines: list[Line]) -> list[str]:
    """What the numbers depend on beside the code."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    weights = "; ".join(f"{line.dtype} in row {line.row}" for line in lines)
    return [
        f"- Date: {datetime.date.today()}",
        f"- Machine: {machine.processor()}, {cores}, {gpu}",
        f"- Versions: python {platform.python_version()}, {versions}",
        f"- Weights: {weights}",
        "- Each pair is measured in one run, in turn (A B A B); the least of each is shown. "
        "ratio = reference / ours.",
    ]
