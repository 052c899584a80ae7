"""Names of a package that are imported at first use, so that reading a table loads no torch."""

from collections.abc import Callable
from importlib import import_module


def lazy(package: str, modules: dict[str, str]) -> Callable[[str], object]:
    """The `__getattr__` of a package; modules: of each public name, where it is defined."""

    def __getattr__(name: str):
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return __getattr__
