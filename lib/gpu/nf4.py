"""Weights that stay packed in NF4 on a GPU, and those that are unpacked there once.

Packed weights are a quarter as large: Llama-2-70B fits an A100-80 in no other way. But each pass
unpacks them again. Gain of unpacking once what has room, by the plan of `a100`: 5 % of its
hours. No GPU has run it yet: `make gpu` times both. On a CPU weights are always unpacked
(`models.loading`). Importing this imports no torch.
"""

from math import ceil, isinf

UNPACKED = 1 / 3  # of a GPU's nominal memory: weights that take no more in 16 bits are unpacked
STEP = 8 * 2**30  # bytes, of which the memory of a GPU is a multiple


def stays_packed(size: float, memory: float) -> bool:
    """Return whether weights that take `size` bytes unpacked stay packed on a GPU of `memory`.

    By its nominal memory, not by what it reports or has free: a resumed healing must compute the
    same last bits.
    """
    return size > UNPACKED * nominal(memory)


def nominal(memory: float) -> float:
    """Round a GPU's memory up to its nominal size: it reports less, by its kind and driver.

    A plan counts a CPU's as infinite.
    """
    return memory if isinf(memory) else ceil(memory / STEP) * STEP
