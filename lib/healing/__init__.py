"""Healing: the recipe, documents packed into rows, LoRA, training; a linear map in a block's place.

The names of FACE are imported at first use: reading a `Recipe` loads no torch.
"""

from importlib import import_module

FACE = {
    "Recipe": "recipe",
    "Healed": "training",
    "heal": "training",
}


def __getattr__(name: str):
    if name not in FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{FACE[name]}"), name)
