"""A GPU simulated on the CPU: `register()` gives this process a device "sim" (see sim.cpp).

It is for a process of its own: PyTorch cannot forget a device, and takes it for the accelerator.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import types
from contextlib import contextmanager
from pathlib import Path

import torch
import torch._dynamo

HERE = Path(__file__).resolve().parent
BUILT = HERE / "build"  # git ignores it
NAME = "sim"
MEMORY = 80_000_000_000  # bytes that it says to have
COMPILER = "g++"
aten = torch.library.Library("aten", "IMPL")


def missing() -> str:
    """Return why there can be no simulated device here, in one sentence; empty if there can."""
    return "" if shutil.which(COMPILER) else f"The simulated device needs a compiler, {COMPILER}."


def library() -> Path:
    """Return the compiled sim.cpp; made once for each PyTorch and each version of the source.

    Needs a compiler and what comes with PyTorch's wheel, no Python headers and no build tool.
    """
    home, source = Path(torch.__file__).parent, HERE / "sim.cpp"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    built = BUILT / f"sim-{torch.__version__}-{digest[:16]}.so"
    if not built.exists():
        BUILT.mkdir(exist_ok=True)
        part = built.with_suffix(f".{os.getpid()}.part")
        command = [
            *(COMPILER, "-std=c++20", "-O0", "-w", "-fPIC", "-shared", str(source)),
            f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
            *(f"-I{home / 'include'}", f"-L{home / 'lib'}", "-lc10", "-ltorch_cpu"),
            *("-o", str(part)),
        ]
        subprocess.run(command, check=True)
        part.replace(built)
    return built


def register() -> None:
    """Give this process the device "sim", and torch.sim what torch.cuda has."""
    torch._dynamo.config.disable = True  # no code is generated for it
    lib = ctypes.CDLL(str(library()))
    for count in (lib.sim_held, lib.sim_peak, lib.sim_waits):
        count.restype = ctypes.c_int64
    lib.sim_register()
    torch.utils.rename_privateuse1_backend(NAME)
    module = types.ModuleType(f"torch.{NAME}")
    answers = {
        **{"is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0},
        **{"_is_in_bad_fork": False, "is_bf16_supported": True, "synchronize": None},
        **{"set_device": None, "empty_cache": None, "manual_seed": None, "manual_seed_all": None},
        **{"get_rng_state": None, "set_rng_state": None},  # what is drawn there, the CPU draws
        **{"get_amp_supported_dtype": [torch.bfloat16, torch.float16]},
    }
    for name, answer in answers.items():
        setattr(module, name, lambda *args, answer=answer: answer)
    module.memory_allocated = lambda device=None: lib.sim_held()
    module.memory_reserved = module.memory_allocated
    module.mem_get_info = lambda device=None: (MEMORY - lib.sim_held(), MEMORY)
    module.max_memory_allocated = lambda device=None: lib.sim_peak()
    module.waits = lib.sim_waits  # how often this process has waited for the device
    module.reset_peak_memory_stats = lambda device=None: lib.sim_reset_peak()
    torch._register_device_module(NAME, module)
    for key in ("PrivateUse1", "AutogradPrivateUse1"):
        aten.impl("rms_norm", _rms_norm, key)
    torch.utils.generate_methods_for_privateuse1_backend()


def _rms_norm(x, shape, weight, epsilon):
    """Round once, so that last bits are not those of the same in PyTorch's operators, as CUDA."""
    wide = x.double()
    scale = (wide.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    return (wide * scale * weight).to(x.dtype)
