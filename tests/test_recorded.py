"""The profile `recorded`: the committed tables are drawn as they were, and nothing is computed."""

import re
from itertools import zip_longest

import nbformat
import pandas as pd
import pytest
from conftest import AS_RECORDED

from replication import notebook, paths
from replication.profiles import DRAW_ONLY_PROFILE, RECORD_PROFILE
from replication.run.notebooks import NOTEBOOKS
from scripts import executed

pytestmark = pytest.mark.real  # the whole record is drawn: minutes
COMMITTED = paths.ROOT / "figures" / RECORD_PROFILE


def test_everything_is_drawn_and_nothing_is_stored(recorded_run):
    printed = (recorded_run / "stdout").read_text()
    why = "the whole model is no better than its floor"
    assert re.search(rf"03_healing: ok, \d+ s: \d+ points without a value: {why}\n", printed)
    assert printed.endswith(f"Pictures: figures/{DRAW_ONLY_PROFILE}\n")
    assert not (recorded_run / "data").exists()
    said = []
    for of in NOTEBOOKS.values():
        for name in of.figures:
            assert (recorded_run / "figures" / DRAW_ONLY_PROFILE / f"{name}.png").exists()
        copy = recorded_run / "papermill_runs" / DRAW_ONLY_PROFILE / f"{of.file}.ipynb"
        for cell in nbformat.read(copy, as_version=4).cells:
            if cell.source.startswith(notebook.LIVE):
                shown = [output.text for output in cell.outputs if output.get("name") == "stdout"]
                said.append("".join(shown).rstrip())
    assert set(said) <= {notebook.SHOWN, notebook.SKIPPED}
    assert notebook.SHOWN in said


def numbers(file) -> pd.DataFrame:
    """Return a figure's table without its profile."""
    table = pd.read_csv(file)
    if {"task", "status"} <= set(table):  # a row may only name a model that was not measured
        table = table[table.task.notna() | table.status.eq("ok")]
    return table.drop(columns="profile", errors="ignore").reset_index(drop=True)


@pytest.mark.record
@pytest.mark.parametrize("file", sorted(COMMITTED.glob("*.csv")), ids=lambda file: file.stem)
def test_a_figure_has_the_numbers_of_the_committed_one(recorded_run, file):
    drawn = numbers(recorded_run / "figures" / DRAW_ONLY_PROFILE / file.name)
    pd.testing.assert_frame_equal(numbers(file), drawn, check_dtype=False, **AS_RECORDED)


NUMBER = re.compile(r"[-−]?\d+(\.\d+)?")


@pytest.mark.record
@pytest.mark.parametrize("name", [of.file for of in NOTEBOOKS.values()])
def test_an_executed_notebook_says_what_a_fresh_one_does(recorded_run, name):
    """Its texts and tables, cell by cell; numbers as far as another processor may round them."""
    fresh = executed.executed(
        nbformat.read(
            recorded_run / "papermill_runs" / DRAW_ONLY_PROFILE / f"{name}.ipynb", as_version=4
        )
    )
    committed = nbformat.read(executed.FOLDER / f"{name}.ipynb", as_version=4)
    assert [cell.source for cell in committed.cells] == [cell.source for cell in fresh.cells]
    for cell, other in zip(committed.cells, fresh.cells, strict=True):
        pairs = list(zip_longest(executed.words(cell), executed.words(other)))
        for word, again in pairs:
            if word and again and NUMBER.fullmatch(word) and NUMBER.fullmatch(again):
                close = pytest.approx(float(again.replace("−", "-")), rel=0.01, abs=0.011)
                assert float(word.replace("−", "-")) == close, cell.source
            else:
                assert word == again, cell.source


def test_the_links_of_executed_notebooks_lead_somewhere():
    for file in executed.FOLDER.glob("*.ipynb"):
        for cell in nbformat.read(file, as_version=4).cells:
            if cell.cell_type == "markdown":
                for link in re.findall(r"\]\(([^)#]+)", cell.source):
                    assert link.startswith("http") or (executed.FOLDER / link).exists(), link
