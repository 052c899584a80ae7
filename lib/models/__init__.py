"""A name becomes a decoder: `models.load`, and the table of known models.

Its names are imported at first use: reading the table loads no torch.
"""

from ..lazy import lazy

__getattr__ = lazy(
    __name__,
    {
        "MODELS": "registry",
        "ModelError": "registry",
        "load": "loading",
        "load_cached": "loading",
    },
)
