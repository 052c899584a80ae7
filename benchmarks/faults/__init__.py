"""Faults, for real: killed processes, full disks, damaged results, lost nodes.

`python -m benchmarks.faults` provokes each and prints one table: fault, expected, seen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """check(empty folder) provokes it and says what it saw; AssertionError if that is wrong."""

    fault: str
    expected: str
    check: Callable[[Path], str]
