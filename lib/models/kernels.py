"""The kernels that a GPU computes with, where transformers would take slower ones."""

from functools import partial

import torch
from torch.nn import functional

from lib.models.machine import FLASH


def fuse_norms(model) -> None:
    """Let each RMS norm of a model on a GPU be one kernel, in place of eight.

    Of transformers' classes of that name, those with a `variance_epsilon` compute one function.
    Norms whose weights have another format than the states stay as they are.
    """
    for module in model.modules():
        is_norm = type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")
        if is_norm and module.weight.dtype == model.dtype:
            module.forward = partial(rms_norm, module)


def rms_norm(module, x: torch.Tensor) -> torch.Tensor:
    """Return the norm of x, computed in fp32 and rounded once.

    Under autocast it would be read and written in fp32, too.
    """
    with torch.autocast(x.device.type, enabled=False):
        return functional.rms_norm(x, x.shape[-1:], module.weight, module.variance_epsilon)


def has_flash(x: torch.Tensor) -> bool:
    """Return whether flash attention takes a tensor: in 16 bits, on a GPU from Ampere on."""
    if not x.is_cuda or x.dtype == torch.float32:
        return False
    return torch.cuda.get_device_capability(x.device) >= FLASH
