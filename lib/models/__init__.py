"""A name becomes a decoder: `models.load`, and the table of known models.

Its names are imported at first use: reading the table loads no torch.
"""

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .loading import load, load_cached
    from .registry import MODELS, ModelError

__getattr__ = lazy(
    __name__,
    {
        "MODELS": "registry",
        "ModelError": "registry",
        "load": "loading",
        "load_cached": "loading",
    },
)
