"""What computes here: whether a GPU can be used, and the dtype that a CPU multiplies fastest in.

Importing this imports no torch.
"""

import os
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from .registry import ModelError

NF4_BYTES = 0.516  # a weight in NF4 with double quantisation: 4 bits and its share of the scales
BF16_UNITS = ("amx_bf16", "avx512_bf16")  # flags of a CPU
DTYPES = ("bfloat16", "float32", "float16")  # of weights
OLDER = "cu126"  # PyTorch's build for GPUs before sm_75
OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",
)
FLASH = (8, 0)  # the compute capability from which a GPU has flash attention
LISTED = r"^(?:GPU \d+: (.+)|  MIG (\S+) .*) \(UUID: (.+)\)"  # a line of nvidia-smi -L
HIDDEN = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES; Slurm sets the last one


def checked(dtype: str) -> str:
    """Return `dtype`. Raises ModelError if it is no format of weights."""
    if dtype not in DTYPES:
        raise ModelError(f"Unknown dtype {dtype!r}: choose one of {', '.join(DTYPES)}.")
    return dtype


def cores() -> int:
    """Return the number of CPU cores this process may use; on macOS, of all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def first_gpu() -> str:
    """Return the first of CUDA_VISIBLE_DEVICES: a process computes on one. Empty: none."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def gpu_at_hand() -> str | None:
    """Return what nvidia-smi calls the first GPU that this process may use; None without one.

    A part of a GPU (MIG) has both names, as PyTorch calls it: "NVIDIA A100-SXM4-80GB MIG 3g.40gb".
    """
    first, listed = first_gpu(), listed_gpus()
    if first in HIDDEN:
        return None
    if first.isdecimal():
        parts = listed[int(first) :][:1]
        names = [[*names.values()] for names in parts]
        return names[0][:2][-1] if names else None  # CUDA computes on the first part, if any
    return next((gpu[uuid] for gpu in listed for uuid in gpu if uuid.startswith(first)), None)


def check_gpu() -> None:
    """Raise ModelError for a GPU that PyTorch cannot use: an old driver, or no kernels for it."""
    gpu = gpu_at_hand()
    if gpu is None:
        return
    import torch

    if not torch.cuda.is_available():
        raise ModelError(
            f"nvidia-smi lists a GPU, {gpu}, that PyTorch {torch.__version__} cannot use: "
            "update its driver, install PyTorch's build for it (delete .venv, then make with "
            "TORCH=auto), or set CUDA_VISIBLE_DEVICES to nothing to compute on the CPU."
        )
    capability = "{}{}".format(*torch.cuda.get_device_capability())
    built = [int(re.sub(r"\D", "", architecture)) for architecture in torch.cuda.get_arch_list()]
    if int(capability) < min(built):
        raise ModelError(
            f"{gpu} is older than every GPU that PyTorch {torch.__version__} has kernels for "
            f"(sm_{capability}; the oldest is sm_{min(built)}): install the build that has them "
            f"(delete .venv, then make with TORCH={OLDER}), or set CUDA_VISIBLE_DEVICES to "
            "nothing to compute on the CPU."
        )


def is_out_of_memory(message: str) -> bool:
    """Return whether an error's message says that memory ran out (cuBLAS words it differently)."""
    return any(words in message.lower() for words in OUT_OF_MEMORY)


@cache
def listed_gpus() -> list[dict[str, str]]:
    """Return the GPUs that nvidia-smi lists, each as names by UUID: its own, then its parts'."""
    if not shutil.which("nvidia-smi"):
        return []
    answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    gpus = []
    for whole, part, uuid in re.findall(LISTED, answer.stdout, re.MULTILINE):
        if whole:
            name, gpu = whole, {}
            gpus.append(gpu)
        gpu[uuid] = f"{name} MIG {part}" if part else name
    return gpus


def fastest() -> str:
    """Return the dtype that this CPU multiplies fastest in: bf16 if it has units for it."""
    has_units = any(flag in _cpuinfo() for flag in BF16_UNITS)
    return "bfloat16" if has_units else "float32"


@cache
def processor(device: str = "cpu") -> str:
    """Return the name of what computes: this machine's CPU, or with "cuda" the GPU."""
    if device != "cpu":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else device
    name = re.search(r"^model name\s*: (.*)$", _cpuinfo(), re.MULTILINE)
    return name[1].strip() if name else platform.processor() or platform.machine()


def _cpuinfo() -> str:
    """Return what Linux says of the processor; other systems have no such file."""
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8") if file.exists() else ""
