"""What CONTRIBUTING and replication/README say to add: a task, a strategy, a figure, a notebook and
a question, as they say it, in a copy."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from lib.data import sets
from lib.evaluation import TASK_SPECS
from replication import paths

# the last file that is named before a block of code, in the same paragraph, is that of the block
BLOCK = re.compile(r"```(diff|json|python)\n(.*?)```", re.DOTALL)
FILE = re.compile(r"`([\w/]+\.(?:py|csv|json|ipynb))`")
# in the copy, in one process, without what conftest imports
RUN = """
import sys
from dataclasses import replace
from types import SimpleNamespace

from replication import __main__, plan, profiles
from replication.measure import request
from replication.show import site
from scripts import readme

assert __main__.main(["--profile", "smoke", "--only", "17"]) == 0
smoke = profiles.get("smoke")


def real_task(name, **counts):
    return request.load_task(request.task_params(name, replace(smoke, **counts)))


sys.modules["conftest"] = SimpleNamespace(real_task=real_task)
sys.path.insert(0, "tests")
import test_labels

test_labels.test_every_task_has_rows_and_one_kind()
(name,), counts, rows = test_labels.QUESTIONS[0]
test_labels.test_the_answer_is_the_one_that_is_right(name, counts, rows)
few = replace(smoke, task_counts={"task_questions": 3})  # what is not there yet
print(plan.table(few, ["17"], "cpu"))
print(readme.figures())
print(site.build("smoke").read_text())
"""


def steps(page: str) -> list[tuple[str, str, str]]:
    """Return the file, the language and the code of each block of "Add …" of a page, in order."""
    text = (paths.ROOT / page).read_text("utf-8").partition("\n## Add ")[2]
    blocks = []
    for block in BLOCK.finditer(text):
        file = FILE.findall(text[: block.start()])[-1]
        blocks.append((file, *block.groups()))
    return blocks


def follow(root: Path, file: str, language: str, code: str) -> None:
    """Do what a block says: change a file, or write one."""
    path = root / file
    path.parent.mkdir(exist_ok=True)
    if language != "diff":
        path.write_text(code, "utf-8")
        return
    lines = code.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] in " -")
    new = "".join(line[1:] for line in lines if line[0] in " +")
    text = path.read_text("utf-8")
    assert text.count(old) == 1 or not old, f"{file} has not once: {old}"
    path.write_text(text.replace(old, new) if old else text + new, "utf-8")


def write_notebook(file: Path, cells: list[str]) -> None:
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook.metadata["kernelspec"] = kernel
    nbformat.write(notebook, file)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the project with all that the pages say to add."""
    root = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("lib", "replication", "notebooks", "tests", "scripts", "exercises"):
        shutil.copytree(paths.ROOT / folder, root / folder, ignore=ignored)
    shutil.copy(paths.ROOT / "pyproject.toml", root)  # by which `lib.paths` knows a checkout
    (root / "data").mkdir()
    for name in ("assets", "checkpoints", "recorded", "published.json"):
        (root / "data" / name).symlink_to(paths.ROOT / "data" / name)
    usual, of_question = (
        [code for file, _, code in steps(page) if file.endswith(".ipynb")][0]
        for page in ("CONTRIBUTING.md", "replication/README.md")
    )
    for page in ("CONTRIBUTING.md", "replication/README.md"):
        for file, language, code in steps(page):
            if not file.endswith(".ipynb"):
                follow(root, file, language, code)
    cells = usual.split("# %%\n")
    write_notebook(root / "notebooks/17_riddles.ipynb", cells)
    maps = cells[2].splitlines()[0]
    write_notebook(root / "notebooks/16_position.ipynb", [*cells[:2], maps, of_question])
    return root


def test_what_pages_say_to_add_is_measured_drawn_planned_and_shown(copy):
    environment = os.environ | {"PYTHONPATH": str(copy)}
    options = {"cwd": copy, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", RUN], **options)
    assert done.returncode == 0, done.stdout + done.stderr
    drawn = pd.read_csv(copy / "figures/smoke/figure_riddles.csv")
    assert set(drawn.strategy) == {"none", "similarity", "simple", "middle"}
    assert set(drawn.task) == {"riddles", "c4"}
    assert drawn.value[drawn.task == "c4"].notna().all()
    pages, _, report = done.stdout.partition("<!DOCTYPE html>")
    assert "Tokens of riddles: counted in 3 questions, by smollm2-135m." in pages
    for name in ("riddles", "position"):
        assert f"**{name}**" in pages
    assert 'src="figures/smoke/figure_riddles.png"' in report
    assert 'href="notebooks/17_riddles.html"' in report


def test_a_file_of_questions_is_the_one_that_its_row_names(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    monkeypatch.setattr(sets.paths, "DATA", tmp_path)
    (tmp_path / "mine.json").write_text('[{"question": "Which?"}]')
    with pytest.raises(sets.DataError, match="mine.json does not have the sha256 of its row"):
        sets.questions(sets.File("mine.json", "0" * 64), "wheels")
    with pytest.raises(sets.DataError, match="no file data/other.json"):
        sets.questions(sets.File("other.json", "0" * 64), "hub")
    assert not [spec for spec in TASK_SPECS.values() if isinstance(spec.data, sets.File)]
