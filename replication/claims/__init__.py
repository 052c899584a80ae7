"""The paper's 13 claims: a run's tables in, verdicts out.

Looked up when they are asked for: who shows verdicts does not wait for torch.
"""

from importlib import import_module

FACE = {
    "verdicts": "checks",
    "lights": "show",
    "light_table": "show",
    "markdown": "show",
    "beside": "tables",
    "deviations": "tables",
    "gather": "tables",
}


def __getattr__(name: str):
    if name not in FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{FACE[name]}"), name)
