"""What a plan assumes: the processors it is for and their rates, and how many tokens there are.

Token counts were measured with the embedded model's tokenizer. A sample of 584 C4 documents stands
for C4; other tokenizers differ by some ten percent.
"""

import json
import os
import random
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from statistics import fmean

from lib.models import machine
from replication import paths

GIB = 2**30
UTILISATION = 0.3  # of the peak; published training runs reached 0.21 to 0.46 (PaLM, arXiv
# 2204.02311, table 3). An assumption, not a measurement of this code.
RUNTIME = 1.5  # GiB of a GPU for CUDA's context and the allocator's fragments, assumed
STEPS = 5_000  # of a healing, in which its largest micro-batch is looked for
DISK = 1e9  # bytes read a second, assumed


@dataclass(frozen=True)
class Card:
    """A processor: memory that a program can use (bytes), rates in FLOP/s, and where they are from.

    element: bytes of a weight that is not quantised.
    """

    name: str
    memory: float
    rate: float  # forward
    training_rate: float  # healing
    source: str
    on_cpu: bool = False
    element: int = 2


def _gpu(name: str, gib: float, peak: float) -> Card:
    """A GPU: the GiB that PyTorch reports, and the dense bf16 peak of its data sheet."""
    rate = UTILISATION * peak
    source = f"{UTILISATION:.0%} of {peak / 1e12:.0f} TFLOP/s (data sheet, dense bf16), assumed"
    return Card(name, (gib - RUNTIME) * GIB, rate, rate, source)


def _cpu() -> Card:
    """This machine, at the rates of rows 1 and 7 of benchmarks/results/first_light.md."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    kept = machine.remembered() or {"dtype": "bfloat16"}  # a plan measures nothing
    element = 4 if kept["dtype"] == "float32" else 2
    source = "measured once on two cores with AVX512-BF16, not here"
    return Card("cpu", memory, 0.46e12, 0.22e12, source, on_cpu=True, element=element)


PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12}  # by what nvidia-smi's name contains
GPUS = {
    "a100-40": _gpu("a100-40", 39.4, PEAKS["A100"]),
    "a100-80": _gpu("a100-80", 79.1, PEAKS["A100"]),
    "h100": _gpu("h100", 79.1, PEAKS["H100"]),
    "h200": _gpu("h200", 139.7, PEAKS["H200"]),
}
NAMES = (*GPUS, "cpu")


def get(name: str | None = None) -> Card:
    """The card called `name`; by default the GPU at hand, else the CPU.

    Raises ValueError for an unknown name, or a GPU at hand whose rate is not known.
    """
    if name is None:
        return _at_hand() or _cpu()
    if name not in NAMES:
        raise ValueError(f"Unknown card {name!r}: choose one of {', '.join(NAMES)}.")
    return GPUS[name] if name in GPUS else _cpu()


def _at_hand() -> Card | None:
    """The card of the first GPU that nvidia-smi lists; None where it lists none."""
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True)
    listed = re.match(r"(?P<name>.+), *(?P<mib>.+)", answer.stdout)
    if answer.returncode or not listed:  # no devices, or no driver
        return None
    name, mib = listed["name"], listed["mib"].strip()
    kind = next((kind for kind in PEAKS if kind in name), None)
    if kind is None or not mib.isdecimal():
        raise ValueError(
            f"No rate is known for the GPU at hand ({name}, {mib} MiB): choose a card to plan for, "
            f"one of {', '.join(NAMES)}."
        )
    found = _gpu(name, int(mib) / 1024, PEAKS[kind])
    near = [c for c in GPUS.values() if c.rate == found.rate and abs(c.memory - found.memory) < GIB]
    return near[0] if near else found


@cache
def _measured() -> dict:
    return json.loads((paths.DATA / "token_counts.json").read_text(encoding="utf-8"))


@cache
def mean(max_tokens: int) -> float:
    """Mean tokens of a C4 document truncated to `max_tokens`."""
    return fmean(min(n, max_tokens) for n in _measured()["c4"])


@cache
def largest(max_tokens: int, batch: int, micro_batch: int) -> int:
    """Most tokens of a micro-batch in STEPS steps of `batch` such documents, joined.

    Dealt out as `models.documents.arranged` does it; drawn from the documents of the sample.
    """
    lengths, parts = [min(n, max_tokens) for n in _measured()["c4"]], batch // micro_batch
    draw = random.Random(0)
    steps = (sorted(draw.choices(lengths, k=batch)) for _ in range(STEPS))
    return max(sum(step[parts - 1 :: parts]) for step in steps)


@cache
def context(max_tokens: int) -> float:
    """Mean number of tokens that a token of such a document attends to."""
    lengths = [min(n, max_tokens) for n in _measured()["c4"]]
    return sum(n * n for n in lengths) / 2 / sum(lengths)


@dataclass(frozen=True)
class Reading:
    """What the unpruned model reads of a task, in tokens; a pruned version the same."""

    tokens: float
    scored: float  # positions that lm_head runs on
    context: float  # mean number of tokens that a token attends to
    held: float = 0  # tokens of shared prefixes whose keys and values are held for every version
    repeated: float = 0  # the same, repeated for the rows of one batch, per token of the batch


def reading(asked: dict) -> Reading:
    """What is read of a task; `asked` is what a result's key says of it (`evaluation.params`)."""
    task = asked["task"]
    if task == "c4":
        length = mean(asked["max_tokens"])
        tokens = asked["sequences"] * length
        return Reading(tokens, tokens - asked["sequences"], context(asked["max_tokens"]))
    found = _measured()[task][str(asked["shots"])]
    groups, most = found["groups"], found["questions"]
    if "subjects" in asked:  # each a group with its own examples
        questions = asked["subjects"] * min(asked["questions"], most / groups)
        groups = asked["subjects"]
    else:
        questions = min(asked["questions"], most)
        groups = questions if groups == most else groups  # the answers to a question share it
    shared = found["prefix"] / found["groups"] if groups else 0
    return Reading(
        tokens=groups * shared + questions * found["own"],
        scored=questions * found["scored"],
        context=shared + found["own"] / 2,
        held=found["held"],
        repeated=found["repeated"],
    )
