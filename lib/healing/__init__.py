"""Healing: the recipe, documents packed into rows, LoRA, training; a linear map in a block's place.

Its names are imported at first use: reading a `Recipe` loads no torch.
"""

from ..lazy import lazy

__getattr__ = lazy(
    __name__,
    {
        "Recipe": "recipe",
        "Healed": "training",
        "heal": "training",
    },
)
