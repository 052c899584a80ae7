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
    """A row of the table; what is None is shown as a dash. dtype is that of the weights."""

    row: int
    what: str
    reference: str
    ours: str
    required: str
    ratio: float | None = None
    met: bool | None = None
    seconds: tuple[float, float] | None = None
    limit: str | None = None
    dtype: str | None = None
    notes: tuple[str, ...] = ()

    def cells(self) -> list[str]:
        """The texts of the table's columns."""
        seconds = [f"{s:.3g}" for s in self.seconds] if self.seconds else ["–", "–"]
        ratio = "–" if self.ratio is None else f"{self.ratio:.2f}"
        met = {None: "–", True: "yes", False: "no"}[self.met]
        texts = [str(self.row), self.what, self.reference, self.ours, *seconds]
        return [*texts, ratio, self.required, met, self.limit or "–"]


def seconds(pair: Pair) -> tuple[float, float]:
    """The two times of a pair, in the order of the columns."""
    return pair.reference, pair.ours


def markdown(lines: list[Line]) -> str:
    """Title, machine, table and notes."""
    rule = ["---"] * len(COLUMNS)
    table = [_cells(COLUMNS), _cells(rule), *(_cells(line.cells()) for line in lines)]
    notes = [f"- Row {line.row}: {note}" for line in lines for note in line.notes]
    parts = [["# Speed ratios"], _machine(lines), table, notes]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _cells(texts) -> str:
    return "| " + " | ".join(texts) + " |"


def _machine(lines: list[Line]) -> list[str]:
    """What the numbers depend on beside the code."""
    packages = ("torch", "transformers", "lm-eval")
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return [
        f"- Date: {datetime.date.today()}",
        f"- Machine: {machine.processor()}, {cores}, {gpu}",
        f"- Versions: python {platform.python_version()}, {versions}",
        "- Weights: " + _weights(lines),
        "- Each pair is measured in one run, in turn (A B A B); the least of each is shown. "
        "ratio = reference / ours, except in rows 1, 9 and 10, ours / reference.",
    ]


def _weights(lines: list[Line]) -> str:
    rows = {}
    for line in lines:
        if line.dtype:
            rows.setdefault(line.dtype, []).append(str(line.row))
    return "; ".join(f"{dtype} in row {', '.join(of)}" for dtype, of in rows.items()) or "none"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
