"""Processors, and the time that work takes on them: the clock of a plan and of `make gpu`.

The seconds of a piece of work are a sum of three:

- matrix products: FLOPs over a rate, which rows of few tokens do not reach, since the weights must
  be read however few there are;
- element-wise work (norms, activations, additions): bytes over a bandwidth;
- NF4: the bytes that unpacking reads and writes, once a pass and micro-batch.

A processor then reaches a share of this speed: 1 until `make gpu` has measured it. Not counted:
starting kernels, the tokenizer, loading. Imports no torch.
"""

import math
import os
import shutil
import subprocess
from typing import NamedTuple

from lib import storage
from lib.models import machine
from replication import paths

CARDS = paths.ROOT / "replication" / "cards.csv"


class Work(NamedTuple):
    """What a result takes."""

    kind: str
    tokens: float  # read
    flops: float  # of matrix products
    memory: float  # bytes: the weights, and one row
    row: float = math.inf  # tokens that are multiplied at once
    moved: float = 0  # bytes read and written by element-wise work
    unpacked: float = 0  # bytes read and written to unpack NF4


class Card(NamedTuple):
    """A processor: memory that a program can use (bytes), its rates, and their source."""

    name: str
    gpu: str  # stands in what nvidia-smi calls it; empty: a CPU
    memory: float
    matmul: float  # FLOP/s of matrix products, of long rows
    half_row: float  # tokens of a row at which it is half of that
    traffic: float  # bytes/s of element-wise work; inf: the rate of products is that of all work
    unpacking: float  # bytes/s that unpacking NF4 reads and writes
    forward: float  # share of the speed by these rates that a forward pass reaches
    training: float  # and a healing
    source: str
    element: int = 2  # bytes of a weight that is not quantised

    def seconds(self, work: Work) -> float:
        """The time of `work` on this card."""
        products = work.flops / self.matmul * (1 + self.half_row / work.row)
        element_wise = work.moved / self.traffic
        unpacking = work.unpacked / self.unpacking
        share = self.training if work.kind == "healing" else self.forward
        return (products + element_wise + unpacking) / share

    def hours(self, work: Work) -> float:
        return self.seconds(work) / 3600


def cards() -> dict[str, Card]:
    """The rows of cards.csv by name. The CPU has this machine's memory."""
    return {row["card"]: _card(row) for row in storage.rows(CARDS)}


def _card(row: dict[str, str]) -> Card:
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Card(
        name=row["card"],
        gpu=row["gpu"],
        memory=float(row["memory_gb"]) * 1e9 if row["memory_gb"] else here,
        matmul=float(row["matmul_tflops"]) * 1e12,
        half_row=float(row["half_row"]),
        traffic=float(row["traffic_tbs"] or "inf") * 1e12,
        unpacking=float(row["unpacking_tbs"] or "inf") * 1e12,
        forward=float(row["forward_share"]),
        training=float(row["training_share"]),
        source=row["source"],
    )


def get_card(name: str | None = None, dtype: str | None = None) -> Card:
    """The card `name`, by default the one at hand. Raises ValueError if cards.csv has none."""
    known = cards()
    name = name or _at_hand(known)
    if name not in known:
        raise ValueError(f"Unknown card {name!r}: choose one of {', '.join(known)}.")
    if dtype is None and not known[name].gpu:
        dtype = (machine.remembered() or {}).get("dtype")  # a plan measures nothing
    return known[name]._replace(element=4 if dtype == "float32" else 2)


def _at_hand(known: dict[str, Card]) -> str:
    """The first visible card of nvidia-smi, or its own name if there is no such row; or cpu."""
    first = machine.first_gpu()
    if not shutil.which("nvidia-smi") or first in machine.HIDDEN:
        return "cpu"
    query = ["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    command = ["nvidia-smi", "-i", first, *query]
    answer = subprocess.run(command, capture_output=True, text=True)
    gpu, _, mib = answer.stdout.partition("\n")[0].rpartition(", ")
    if answer.returncode or not gpu:  # no devices, or no driver
        return "cpu"
    same = [card for card in known.values() if card.gpu and card.gpu in gpu]
    if not same or not mib.isdecimal():
        return gpu
    return min(same, key=lambda card: abs(card.memory - int(mib) * 2**20)).name
