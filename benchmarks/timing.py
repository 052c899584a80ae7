"""Two ways to the same result, timed in turn."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Pair:
    """Seconds of the reference and of ours, the least of all turns, and what they returned."""

    reference: float
    ours: float
    reference_value: object
    ours_value: object

    @property
    def speedup(self) -> float:
        return self.reference / self.ours


def alternate(reference: Callable, ours: Callable, repeats: int) -> Pair:
    """Run both in turn, A B A B.

    A machine that slows down slows both, and other work can only add time: the least of each
    is the time that the code itself takes.
    """
    turns = [(*_timed(reference), *_timed(ours)) for _ in range(repeats)]
    reference_seconds, reference_values, our_seconds, our_values = zip(*turns, strict=True)
    return Pair(min(reference_seconds), min(our_seconds), reference_values[-1], our_values[-1])


def _timed(work: Callable) -> tuple[float, object]:
    _wait()
    start = time.perf_counter()
    value = work()
    _wait()
    return time.perf_counter() - start, value


def _wait() -> None:
    """A GPU works on after the call that asked it to has returned."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
