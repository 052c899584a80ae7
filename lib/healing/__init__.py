"""Healing: the recipe, documents packed into rows, LoRA, training; a linear map in a block's place.

Its names are imported at first use: reading a `Recipe` loads no torch.
"""

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .recipe import Recipe
    from .training import Healed, heal

__getattr__ = lazy(
    __name__,
    {
        "Recipe": "recipe",
        "Healed": "training",
        "heal": "training",
    },
)
