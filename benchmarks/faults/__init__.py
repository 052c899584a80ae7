"""Faults of processes and nodes, for real: what no test can provoke, or only some do.

`python -m benchmarks.faults` provokes each and prints one table: fault, expected, seen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """check(empty folder) provokes it and returns what it saw; AssertionError if that is wrong."""

    fault: str
    expected: str
    check: Callable[[Path], str]
