"""The rooms of lib and replication, and which of them may import which: down only."""

import ast
import re
import subprocess
import sys

import pytest

from lib import evaluation
from replication import measure, paths
from replication.beyond import QUESTIONS
from replication.figures import curves
from replication.measure import cache, fetching
from replication.measure.question import Question, register
from replication.run.notebooks import NOTEBOOKS, with_questions

PACKAGES = ("lib", "replication")
FLOORS = (  # from the ground up; a module imports those of its own floor or of one below
    ("lib", "lib.lazy", "lib.paths", "lib.storage", "lib.blocks"),
    ("lib.data",),
    ("lib.models", "lib.gpu"),
    ("lib.tasks", "lib.lm_eval_tasks"),
    (
        "lib.evaluation",
        "lib.pruning",
        "lib.similarity",
        "lib.sweep",
        "lib.healing",
        "lib.counting",
        "lib.cards",
    ),
    ("lib.prune",),
    ("lib.__main__",),
    ("replication", "replication.paths"),
    ("replication.profiles", "replication.notebook"),
    ("replication.tables",),
    ("replication.analysis",),
    ("replication.figures",),
    ("replication.measure",),
    ("replication.claims",),
    ("replication.beyond",),
    (
        "replication.plan",
        "replication.token_counts",
        "replication.run",
        "replication.unbias",
        "replication.row",
    ),
    ("replication.show",),
    ("replication.__main__",),
)
ORDER = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
LIGHT = (
    "lib.prune",
    "lib.prune.plan",
    "replication.plan",
    "replication.__main__",
    "replication.unbias",
    "replication.row.__main__",
    "replication.show.site",
    "replication.show.explorer",
    "replication.measure.experiments",
    "replication.claims",
    "replication.analysis",
    "replication.figures",
)


def imported(file) -> list[str]:
    """Return the dotted names that a file imports of both packages; within lib by dots."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            folders = file.relative_to(paths.ROOT).parts[: -node.level or None]
            module = [*(folders if node.level else ()), *filter(None, [node.module])]
            names += [".".join([*module, alias.name]) for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name.split(".")[0] in PACKAGES]


def floor(dotted: str) -> int:
    """Return the floor of a module, or of a name in it."""
    package, *rest = dotted.split(".")
    return ORDER.get(f"{package}.{rest[0]}" if rest else package, ORDER[package])


def test_imports_go_down_the_floors():
    assert "lib.healing.lora" in imported(paths.ROOT / "lib" / "healing" / "training.py")
    for package in PACKAGES:
        for file in (paths.ROOT / package).rglob("*.py"):
            parts = file.relative_to(paths.ROOT).with_suffix("").parts
            module = ".".join(part for part in parts if part != "__init__")
            for name in imported(file):
                assert floor(name) <= floor(module), f"{module} imports {name}"


def test_the_paper_needs_no_question_of_our_own():
    """Neither its rooms nor its notebooks, 00 to 09 and 15, import a file of `beyond`."""
    folders = ("profiles", "analysis", "figures", "measure", "claims")
    files = [f for name in folders for f in (paths.ROOT / "replication" / name).rglob("*.py")]
    notebooks = [paths.NOTEBOOKS.glob("0*.ipynb"), paths.NOTEBOOKS.glob("15*.ipynb")]
    files += [file for each in notebooks for file in each]
    assert len(files) > 40
    for file in files:
        assert "replication.beyond" not in file.read_text(encoding="utf-8"), file


def test_what_is_known_does_not_depend_on_what_was_imported():
    """The first file of `beyond` that is imported, whichever, has all questions registered."""
    code = """import importlib, sys
importlib.import_module(sys.argv[1])
from replication import measure
from replication.measure import cache, fetching
from lib import evaluation
for names in (evaluation.TASK_SPECS, fetching.MEASURE, measure.TABLES, cache.RESULTS_OF):
    print(*sorted(names))"""
    known = evaluation.TASK_SPECS, fetching.MEASURE, measure.TABLES, cache.RESULTS_OF
    expected = [" ".join(sorted(names)) for names in known]
    for module in ("replication.beyond.letters.states", "replication.run.notebooks"):
        command = [sys.executable, "-c", code, module]
        done = subprocess.run(command, capture_output=True, text=True, cwd=paths.ROOT)
        assert done.stdout.splitlines() == expected, done.stderr


def test_a_name_that_stands_for_something_else_is_refused():
    with pytest.raises(ValueError, match="There is a 'scores' already"):
        register([Question("16_mine", kinds={"scores": print})])
    assert fetching.MEASURE["scores"] is not print


def unhealed(name, distances, profile):
    """An experiment that is called like one of notebook 02."""


@pytest.mark.parametrize(
    "bad, sentence",
    [
        (Question("16_mine", unhealed), "experiments of 16_mine must be a tuple of functions"),
        (Question("16_mine", ("unhealed",)), "experiments of 16_mine must be a tuple of functions"),
        (Question("16_mine", (unhealed,), tables={"healed": print}), "no experiment of that name"),
        (Question("16_mine", (unhealed,)), "There is an experiment 'unhealed' already"),
        (Question("15_mine"), "Notebook 15 is 15_claims: give 15_mine another number"),
    ],
    ids=lambda case: case if isinstance(case, str) else "question",
)
def test_a_question_that_cannot_be_asked_is_refused(bad, sentence):
    """Before anything runs, and before anything of it is registered."""
    with pytest.raises(ValueError, match=sentence):
        register([bad])
        with_questions(NOTEBOOKS, [bad])
    assert "healed" not in measure.TABLES


def test_no_file_registers_by_being_imported():
    """None assigns to a table of another room, nor is one imported for its effect."""
    rooms = ("replication", "lib", "tests", "scripts", "exercises", "benchmarks")
    for file in (f for room in rooms for f in (paths.ROOT / room).rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        in_room = "replication/measure" in file.as_posix()
        assert in_room or not re.search(r"^\w+\.[A-Z_]+(\[.*\])? \|?= ", text, re.M), file
        assert file.name == "test_rooms.py" or "noqa: F401" not in text, file


def test_what_shows_a_run_measures_nothing():
    for folder in ("analysis", "figures", "claims", "show"):
        for file in (paths.ROOT / "replication" / folder).rglob("*.py"):
            assert not [name for name in imported(file) if "replication.measure" in name], file


def test_statistics_and_figures_know_no_task_of_one_question_and_statistics_no_label():
    of_questions = set(evaluation.TASK_SPECS) - set(curves.TASKS)
    assert len(of_questions) > 5
    for folder in ("analysis", "figures"):
        for file in (paths.ROOT / "replication" / folder).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            assert not [task for task in of_questions if f'"{task}"' in text], file
            assert folder == "figures" or "registry" not in text, file


def test_who_does_not_compute_loads_no_torch():
    code = """import sys, importlib
for module in sys.argv[1:]:
    importlib.import_module(module)
    if {"torch", "transformers", "datasets"} & sys.modules.keys():
        sys.exit(module)"""
    command = [sys.executable, "-c", code, *LIGHT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_lib_knows_nothing_of_one_question():
    """Of no task that only one of our own questions asks."""
    own = {task for question in QUESTIONS for task in question.tasks}
    assert own
    for file in (paths.ROOT / "lib").rglob("*.py"):
        assert not own & set(re.findall(r"\w+", file.read_text(encoding="utf-8"))), file
