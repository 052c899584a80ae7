"""The rooms of lib, and which of them may import which: down the floors only, and no circle."""

import ast
import subprocess
import sys

import pytest

from lib import paths

LIB = paths.ROOT / "lib"
FLOORS = (  # from the ground up; a module imports those of its own floor or of one below
    ("paths", "blocks"),
    ("data",),
    ("models",),
    ("profiles", "results"),
    ("evaluation", "pruning", "similarity", "sweep", "healing"),
    ("analysis",),
    ("figures",),
    ("measure",),
    ("claims",),
    ("plan",),
    ("run",),
    ("report",),
)
ORDER = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
METHOD = FLOORS[4]
FORBIDDEN = {  # beyond the floors
    "analysis": {"results", "profiles"},
    "figures": {"results"},
    "plan": {"claims", "figures", "analysis", *METHOD},
    "run": {"claims", "figures", "analysis", *METHOD},
    **dict.fromkeys(METHOD, {"results"}),
}


def modules() -> dict[str, set[str]]:
    """Every module of lib, and the modules of lib that it imports."""
    found = {}
    for file in LIB.rglob("*.py"):
        place = file.relative_to(LIB).with_suffix("")
        name = ".".join(p for p in place.parts if p != "__init__")
        tree = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        nodes = [
            n for n in tree if isinstance(n, ast.ImportFrom) and (n.module or "") != "__future__"
        ]
        found[name] = {
            dotted
            for node in nodes
            if node.module.split(".")[0] == "lib"
            for alias in node.names
            for dotted in [f"{node.module}.{alias.name}".removeprefix("lib.")]
        }
    return {name: {_module(i, found) for i in imports} for name, imports in found.items() if name}


def _module(dotted: str, known: dict) -> str:
    """The module of an imported name."""
    while dotted and dotted not in known:
        dotted = dotted.rpartition(".")[0]
    return dotted


def room(module: str) -> str:
    return module.partition(".")[0]


def test_imports_go_down_the_floors():
    for module, imports in modules().items():
        for other in imports:
            assert ORDER[room(other)] <= ORDER[room(module)], f"{module} imports {other}"


def test_rooms_know_only_what_they_may():
    for module, imports in modules().items():
        known = {room(other) for other in imports} & FORBIDDEN.get(room(module), set())
        assert not known, f"{module} imports {known}"


def test_no_module_reaches_itself():
    arrows = modules()

    def reached(start: str) -> set[str]:
        seen, ways = set(), [start]
        while ways:
            new = arrows[ways.pop()] - seen
            seen |= new
            ways += new
        return seen

    circles = [module for module in arrows if module in reached(module)]
    assert not circles


@pytest.mark.parametrize(
    "module",
    [
        "plan.printing",
        "run.__main__",
        "report.__main__",
        "measure.experiments",
        "analysis",
        "figures",
    ],
)
def test_who_does_not_compute_loads_no_torch(module):
    code = f"import sys, lib.{module}; print({{'torch', 'transformers'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
