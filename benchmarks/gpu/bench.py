"""What the sections share: the model, a clock that knows the device's memory, and the table."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from lib.blocks import UNPRUNED, Block
from lib.models import loading, registry
from lib.models.shapes import Shape
from replication import profiles
from replication.plan import assumptions


@dataclass
class Measured:
    """Seconds, and bytes above those held before: at the peak, and kept at the end.

    Memory is None where the device does not count it (a CPU).
    """

    seconds: float | None = None
    peak: int | None = None
    kept: int | None = None


@dataclass
class Row:
    """A line of the table: what was measured, next to what is planned; None where there is none."""

    what: str
    measured: Measured = field(default_factory=Measured)
    seconds: float | None = None  # planned
    memory: float | None = None  # planned, bytes
    flops: float | None = None
    note: str = ""

    def cells(self) -> list[str]:
        took, memory = self.measured.seconds, self.measured.peak
        rate = self.flops / took / 1e12 if self.flops and took else None
        beside = (_beside(took, self.seconds), _beside(memory, self.memory, 1e9))
        return [self.what, *beside[0], _number(rate), *beside[1], self.note]


HEADER = ["what", "s", "planned", "ratio", "TFLOP/s", "GB", "planned", "ratio", ""]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _beside(measured: float | None, planned: float | None, unit: float = 1) -> list[str]:
    ratio = measured / planned if measured and planned else None
    scaled = (None if value is None else value / unit for value in (measured, planned))
    return [*map(_number, scaled), _number(ratio)]


@dataclass
class Bench:
    """The model, how it is asked, and the rows that were found."""

    name: str
    num_layers: int
    profile: profiles.Profile
    card: assumptions.Card
    tiny: bool
    rows: list[Row] = field(default_factory=list)

    @property
    def shape(self) -> Shape:
        return registry.shape(self.name)

    @property
    def block(self) -> Block:
        """A quarter of the layers, of the deeper ones."""
        return Block(self.num_layers * 5 // 8 - 1, self.num_layers // 4)

    def model(self, block: Block = UNPRUNED):
        """(model, tokenizer) in NF4; one is loaded at a time."""
        return loading.load_cached(self.name, **self.profile.load_kwargs, block=block)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print("   " + line(HEADER, row.cells()), flush=True)

    def planned(self, what: str, took: Measured, cost, share: float = 1, note: str = "") -> None:
        """A row next to a Cost, of which `share` of the tokens was read."""
        flops = cost.flops * share
        rate = self.card.training_rate if cost.micro_batch else self.card.rate
        held = cost.activations + cost.optimizer
        self.add(Row(what, took, flops / rate, held, flops, note))


def line(names: list[str], cells: list[str]) -> str:
    """The cells that are not empty, each after its name."""
    told = [f"{name} {cell}".strip() for name, cell in zip(names, cells, strict=True) if cell]
    return ", ".join([cells[0], *told[1:]])


# ---- the clock -----------------------------------------------------------------------------


def counter():
    """torch.cuda, or the module of another device that counts its memory; None on a CPU."""
    device = loading.default_device()
    return None if device == "cpu" else getattr(torch, device)


def wait() -> None:
    """Until the device has done all that it was told."""
    if counter():
        counter().synchronize()


def held() -> int:
    return counter().memory_allocated() if counter() else 0


@contextmanager
def clock() -> Iterator[Measured]:
    """Measures the with-block, all work done."""
    found, device = Measured(), counter()
    gc.collect()
    if device:
        device.empty_cache()
        device.reset_peak_memory_stats()
    before = held()
    wait()
    start = time.perf_counter()
    yield found
    wait()
    found.seconds = time.perf_counter() - start
    if device:
        found.peak = device.max_memory_allocated() - before
        gc.collect()
        found.kept = held() - before
