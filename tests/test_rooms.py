"""The rooms of lib and replication, and which of them may import which: down only, no circle."""

import ast
import subprocess
import sys
from functools import cache

from replication import paths

PACKAGES = ("lib", "replication")
FLOORS = (  # from the ground up; a module imports those of its own floor or of one below
    ("lib", "lib.lazy", "lib.paths", "lib.storage", "lib.blocks"),
    ("lib.data",),
    ("lib.models",),
    ("lib.evaluation", "lib.pruning", "lib.similarity", "lib.sweep", "lib.healing"),
    ("lib.prune", "lib.counting"),
    ("replication", "replication.paths"),
    ("replication.profiles", "replication.notebook"),
    ("replication.tables",),
    ("replication.analysis",),
    ("replication.figures",),
    ("replication.measure",),
    ("replication.claims",),
    ("replication.beyond",),
    ("replication.plan", "replication.plan_prune", "replication.run"),
    ("replication.show",),
    ("replication.__main__",),
)
ORDER = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
METHOD = {"lib.evaluation", "lib.pruning", "lib.similarity", "lib.sweep", "lib.healing"}
NO_TORCH = {"lib.healing", "lib.healing.recipe", "lib.evaluation"}  # of the method, for a plan
LIGHT = (
    "lib",
    "lib.healing.recipe",
    "lib.prune",
    "replication.plan",
    "replication.__main__",
    "replication.show.site",
    "replication.measure.experiments",
    "replication.measure.scores",
    "replication.measure.inference_cost",
    "replication.claims",
    "replication.show.explorer",
    "replication.show.sliders",
    "replication.tables",
    "replication.notebook",
    "replication.analysis",
    "replication.figures",
)
FORBIDDEN = {  # beyond the floors
    "replication.analysis": {"replication.tables", "replication.profiles"},
    "replication.plan": {"replication.claims", "replication.figures", *METHOD},
    "replication.show": {"replication.measure", "replication.run", *METHOD},
    "replication.run": {"replication.claims", *METHOD},
}


@cache
def modules() -> dict[str, set[str]]:
    """Every module of both packages, and the modules of both that it imports."""
    imported = {}
    for package in PACKAGES:
        for file in (paths.ROOT / package).rglob("*.py"):
            parts = file.relative_to(paths.ROOT).with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__")
            tree = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            imported[name] = {
                f"{node.module}.{alias.name}"
                for node in tree
                if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in PACKAGES
                for alias in node.names
            }
    return {name: {_module(i, imported) for i in of} - {name} for name, of in imported.items()}


def _module(dotted: str, known: dict) -> str:
    """The module of an imported name."""
    while dotted not in known:
        dotted = dotted.rpartition(".")[0]
    return dotted


def room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def test_imports_go_down_the_floors():
    for module, imports in modules().items():
        for other in imports:
            assert ORDER[room(other)] <= ORDER[room(module)], f"{module} imports {other}"


def test_the_library_knows_nothing_of_the_replication():
    for module, imports in modules().items():
        if module.startswith("lib"):
            assert not {other for other in imports if other.startswith("replication")}, module
    for file in (paths.ROOT / "lib").rglob("*.py"):
        assert "replication" not in file.read_text(encoding="utf-8"), file


def test_rooms_know_only_what_they_may():
    for module, imports in modules().items():
        known = {room(other) for other in imports - NO_TORCH} & FORBIDDEN.get(room(module), set())
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


def test_who_does_not_compute_loads_no_torch():
    code = """import sys, importlib
for module in sys.argv[1:]:
    importlib.import_module(module)
    if {"torch", "transformers"} & sys.modules.keys():
        sys.exit(module)"""
    done = subprocess.run([sys.executable, "-c", code, *LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
