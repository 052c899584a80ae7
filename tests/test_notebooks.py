"""What a reader meets: clean notebooks, their findings and pictures, and what they show."""

import re

import nbformat
import pytest

from replication import notebook, paths
from replication.run.notebooks import NOTEBOOKS

IMPORT = re.compile(r"^(from|import) ", re.MULTILINE)


def read(number: str) -> nbformat.NotebookNode:
    return nbformat.read(paths.NOTEBOOKS / f"{NOTEBOOKS[number].file}.ipynb", 4)


def cells(number: str, kind: str) -> list[str]:
    """Return the sources of a notebook's cells of one kind."""
    return [cell.source for cell in read(number).cells if cell.cell_type == kind]


def test_every_notebook_is_listed():
    files = {file.stem for file in paths.NOTEBOOKS.glob("*.ipynb")}
    assert files == {notebook.file for notebook in NOTEBOOKS.values()}


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_a_notebook_is_clean(number):
    """Its second cell imports; one that runs a model may import what only it needs."""
    file = read(number)
    nbformat.validate(file)
    assert file.metadata.kernelspec.name == "python3"
    for cell in (cell for cell in file.cells if cell.cell_type == "code"):
        assert not cell.outputs and cell.execution_count is None
        assert len(cell.source.splitlines()) <= 15
    parameters, imports, *others = cells(number, "code")
    assert parameters.startswith("PROFILE: str") and IMPORT.search(imports)
    for source in others:
        assert not IMPORT.search(source) or source.startswith(notebook.LIVE), source
