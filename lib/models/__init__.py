"""A name becomes a decoder: `models.load`, and the table of known models.

The names of FACE are imported at first use: reading the table loads no torch.
"""

from importlib import import_module

FACE = {
    "MODELS": "registry",
    "ModelError": "registry",
    "load": "loading",
    "load_cached": "loading",
}


def __getattr__(name: str):
    if name not in FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{FACE[name]}"), name)
