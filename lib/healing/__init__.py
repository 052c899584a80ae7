"""Healing: the recipe, documents packed into rows, LoRA, training; a linear map in a block's place.

Looked up when they are asked for: who reads a `Recipe` does not wait for torch.
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
