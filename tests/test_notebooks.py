"""What a reader meets: clean notebooks, their findings and pictures, and what they show."""

import re
from dataclasses import fields

import nbformat
import numpy as np
import pytest

from lib import similarity
from replication import notebook, paths, profiles
from replication.run.notebooks import NOTEBOOKS

FINDINGS = re.compile(r"^## What we found\n(.*?)(?=^#|\Z)", re.DOTALL | re.MULTILINE)
IMPORT = re.compile(r"^(from|import) ", re.MULTILINE)
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")
PAIR = r"(?: ± \d+(?:\.\d+)?| \[-?\d+(?:\.\d+)?, -?\d+(?:\.\d+)?\])?"  # an error, an interval
MEASURED = re.compile(rf"(?<![\w.])[-+]?\d+\.\d+(?![\dB]){PAIR}")  # not that of Qwen2.5 or of 0.5B
ROW = re.compile(r"<th>([^<]*)</th>\s*<td>([^<]*)</td>\s*<td>([^<]*)</td>")


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


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_a_notebook_shows_the_recorded_pictures(number):
    """Of what it draws itself; each with words for those who do not see it."""
    pictures = PICTURE.findall("\n\n".join(cells(number, "markdown")))
    assert pictures
    for words, address in pictures:
        assert len(words.split()) >= 5, address
        file = (paths.NOTEBOOKS / address).resolve()
        assert file.exists() and file.parent.name == "overnight", address
        if number != "00":
            drawn = {name.removesuffix("_unhealed") for name in NOTEBOOKS[number].figures}
            drawn |= {"explorer"}  # a page, of which `scripts.explorer` takes a picture
            assert file.stem in drawn, f"{number} does not draw {file.stem}"


@pytest.mark.parametrize("number", list(NOTEBOOKS)[1:])  # the tour has no findings
def test_a_finding_is_a_sentence_with_at_most_two_numbers(number):
    (findings,) = FINDINGS.findall("\n\n".join(cells(number, "markdown")))
    bullets = re.split(r"^- ", findings, flags=re.MULTILINE)[1:]
    assert 2 <= len(bullets) <= 6
    for bullet in bullets:
        assert bullet.startswith("**"), bullet
        assert len(MEASURED.findall(bullet.partition("\n\n")[0])) <= 2, bullet


# ---- what notebooks show of themselves -------------------------------------------------------


def test_a_profile_stands_beside_the_papers():
    profile = profiles.get("quick", limit=3)
    short, everything = (
        {row: (here, paper) for row, here, paper in ROW.findall(part)}
        for part in notebook.settings(profile).data.split("<details>")
    )
    assert short.keys() == notebook.ROWS.keys()
    assert short["BoolQ"] == ("3 questions", "3,270 questions")
    assert everything.keys() == {field.name for field in fields(profile)}


def test_code_and_tokens_are_shown_as_they_are():
    html = notebook.source(similarity.angular_distances).data
    assert "<summary><code>lib.similarity.angular_distances</code></summary>" in html
    assert "-&gt; np.ndarray" in html and "<pre>def angular_distances(" in html
    html = notebook.shaded(["<s>", " a", " b"], np.array([0.0, 0.2, 0.1])).data
    shades = re.findall(r"background: #(\w+)", html)
    brightness = [sum(bytes.fromhex(shade)) for shade in shades]
    assert brightness[1] < brightness[2] < brightness[0]  # the darker the larger its value
    assert 'title="0.200"> a</span>' in html and "&lt;s&gt;" in html
