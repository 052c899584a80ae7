"""What the sections share: the model, a clock that knows the device's memory, and the table."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from lib import cards
from lib.blocks import UNPRUNED, Block
from lib.cards import Card, Work
from lib.models import loading
from replication import plan, profiles

UNKNOWN = "a100-40"  # a GPU without a row in cards.csv is planned at the rates of this card


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
    """A line of the table: what was measured, next to what is planned; None where there is none.

    flops: what the plan counts, of training (trains) or of a forward pass.
    """

    what: str
    measured: Measured = field(default_factory=Measured)
    seconds: float | None = None  # planned
    memory: float | None = None  # planned, bytes
    flops: float | None = None
    trains: bool = False
    note: str = ""

    @property
    def rate(self) -> float | None:
        """FLOP/s."""
        took = self.measured.seconds
        return self.flops / took if self.flops and took else None

    def cells(self) -> list[str]:
        took, memory = self.measured.seconds, self.measured.peak
        rate = self.rate / 1e12 if self.rate else None
        seconds, gigabytes = _beside(took, self.seconds), _beside(memory, self.memory, 1e9)
        return [self.what, *seconds, _number(rate), *gigabytes, self.note]


HEADER = ["what", "s", "planned", "ratio", "TFLOP/s", "GB", "planned", "ratio", ""]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _beside(measured: float | None, planned: float | None, unit: float = 1) -> list[str]:
    ratio = measured / planned if measured and planned else None
    scaled = (None if value is None else value / unit for value in (measured, planned))
    return [*map(_number, scaled), _number(ratio)]


@dataclass
class Bench:
    """The model, how much is measured of it, and the rows of the table.

    sizes: of the model, as its configuration calls them.
    """

    name: str
    sizes: dict[str, int]
    profile: profiles.Profile
    card: Card
    tiny: bool
    rows: list[Row] = field(default_factory=list)

    @property
    def num_layers(self) -> int:
        return self.sizes["num_hidden_layers"]

    @property
    def loaded(self) -> cards.ModelOnCard:
        """The model in NF4, as the plan has it."""
        return cards.ModelOnCard(plan.layer_costs(self.name), "nf4", self.card)

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

    def planned(
        self,
        what: str,
        took: Measured,
        work: Work,
        share: float = 1,
        memory: float | None = None,
        note: str = "",
    ) -> None:
        """A row next to the plan's work, of which `share` was done, and its bytes of a row."""
        seconds = share * self.card.seconds(work)
        trains = work.kind == "healing"
        self.add(Row(what, took, seconds, memory, share * work.flops, trains, note))


def line(names: list[str], cells: list[str]) -> str:
    """The cells that are not empty, each after its name."""
    parts = []
    for name, cell in zip(names, cells, strict=True):
        if cell:
            parts.append(f"{name} {cell}".strip())
    parts[0] = cells[0]
    return ", ".join(parts)


# ---- the clock -----------------------------------------------------------------------------


def counter():
    """torch.cuda, or the module of another device that counts its memory; None on a CPU."""
    device = loading.default_device()
    return None if device == "cpu" else getattr(torch, device)


def wait() -> None:
    """Until the device has done all its work."""
    if counter():
        counter().synchronize()


def held() -> int:
    return counter().memory_allocated() if counter() else 0


@contextmanager
def clock() -> Iterator[Measured]:
    """Measures the with-block, all work done."""
    took, device = Measured(), counter()
    gc.collect()
    if device:
        device.empty_cache()
        device.reset_peak_memory_stats()
    before = held()
    wait()
    start = time.perf_counter()
    yield took
    wait()
    took.seconds = time.perf_counter() - start
    if device:
        took.peak = device.max_memory_allocated() - before
        gc.collect()
        took.kept = held() - before
