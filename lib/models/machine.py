"""What computes here: whether a GPU can be used, and the dtype that a CPU multiplies fastest in.

The dtype is measured: processors whose flags are the same differ by a factor of five. Whoever keeps
results names a file in `format_file`: a run that resumes on another processor stays with the dtype
that is kept there.
Importing this imports no torch.
"""

import json
import logging
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from filelock import FileLock

from lib import storage
from lib.models.registry import ModelError

NF4_BYTES = 0.516  # a weight in NF4 with double quantisation: 4 bits and its share of the scales
UNPACKED = 1 / 3  # of a GPU's memory: NF4 weights that take no more in 16 bits are unpacked
DTYPES = ("bfloat16", "float32", "float16")  # of weights
TRIED = DTYPES[:2]
MATRICES = ((576, 1536), (1536, 1536))  # inputs, outputs: as in decoders of 0.1 and 1.5 billion
TOKENS = 512
TURNS = 3
HIDDEN = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES; Slurm sets the last one

format_file: Callable[[], Path] | None = None  # where the dtype is kept; None: in this process

log = logging.getLogger(__name__)
_warned = set()  # files that were begun on another processor, after the warning


def checked(dtype: str) -> str:
    """Return `dtype`. Raises ValueError if it is no format of weights."""
    if dtype not in DTYPES:
        raise ValueError(f"Unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}.")
    return dtype


def cores() -> int:
    """The number of CPU cores this process may use; on macOS, of all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def first_gpu() -> str:
    """The first of CUDA_VISIBLE_DEVICES, of several: a process computes on one. Empty: none."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def gpu_at_hand() -> str | None:
    """Return what nvidia-smi calls the first GPU that this process may use; None without one."""
    first, listed = first_gpu(), listed_gpus()
    if not listed or first in HIDDEN:
        return None
    return listed[int(first) if first.isdecimal() else 0]


def gpus() -> int:
    """How many GPUs this process may use, by CUDA_VISIBLE_DEVICES or nvidia-smi."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return 0 if visible in HIDDEN else len(visible.split(","))
    return len(listed_gpus())


def check_gpu() -> None:
    """Raise ModelError where there is a GPU that PyTorch cannot use, as with an old driver."""
    listed = listed_gpus()
    if not listed or os.environ.get("CUDA_VISIBLE_DEVICES") in HIDDEN:
        return
    import torch

    if not torch.cuda.is_available():
        raise ModelError(
            f"nvidia-smi lists a GPU, {listed[0]}, that PyTorch {torch.__version__} cannot use: "
            "update its driver, install PyTorch's build for an older CUDA (make TORCH_INDEX=…), or "
            "set CUDA_VISIBLE_DEVICES to nothing to compute on the CPU."
        )


@cache
def listed_gpus() -> list[str]:
    """Return the names of the GPUs that nvidia-smi lists."""
    if not shutil.which("nvidia-smi"):
        return []
    answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return re.findall(r"^GPU \d+: (.+) \(UUID", answer.stdout, re.MULTILINE)


def fastest() -> str:
    """The dtype that `format_file` keeps; on the first call, measured on this processor."""
    if format_file is None:
        return _measured_once()["dtype"]
    file, here = format_file(), processor()
    kept = remembered()
    if kept is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            kept = remembered()  # another process may have been first
            if kept is None:
                if file.exists():
                    aside = storage.set_aside(file)
                    log.warning("%s is not valid: set aside as %s.", file, aside.name)
                kept = measured() | {"processor": here}
                storage.atomic_write(file, json.dumps(kept, indent=1).encode())
    if kept["processor"] != here and file not in _warned:
        _warned.add(file)
        log.warning(
            "Weights stay in %s: %s was begun on %s, this is %s (DTYPE= asks for another format).",
            kept["dtype"],
            file.parent,
            kept["processor"],
            here,
        )
    return kept["dtype"]


def remembered() -> dict | None:
    """dtype, processor, and seconds of each dtype, as `format_file` has them; else None."""
    if format_file is None:
        return None
    try:
        kept = json.loads(format_file().read_text(encoding="utf-8"))
        return kept | {"dtype": checked(kept["dtype"]), "processor": str(kept["processor"])}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def measured() -> dict:
    """The faster format of TRIED, and the least seconds of each; both in turn."""
    turns = [{dtype: seconds(dtype) for dtype in TRIED} for _ in range(TURNS + 1)]
    least = {dtype: min(turn[dtype] for turn in turns[1:]) for dtype in TRIED}
    return {"dtype": min(least, key=least.get), "seconds": least}


_measured_once = cache(measured)


def seconds(dtype: str) -> float:
    """The time of a decoder's linear maps of TOKENS tokens on the CPU."""
    import torch

    kind = getattr(torch, dtype)
    pairs = []
    for inputs, outputs in MATRICES:
        states = torch.ones(TOKENS, inputs, dtype=kind)
        pairs.append((states, torch.ones(outputs, inputs, dtype=kind)))
    with torch.inference_mode():
        start = time.perf_counter()
        for states, weight in pairs:
            torch.nn.functional.linear(states, weight)
        return time.perf_counter() - start


@cache
def processor(device: str = "cpu") -> str:
    """The name of what computes: this machine's CPU, or with "cuda" the GPU."""
    if device != "cpu":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else device
    cpuinfo = Path("/proc/cpuinfo")  # of Linux; other systems tell it through `platform`
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
