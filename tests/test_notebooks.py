"""What a reader meets: the length of notebooks and of the README, their findings and pictures."""

import re

import nbformat
import pytest

from replication import paths
from replication.run.notebooks import NOTEBOOKS

MOST_WORDS = 1300  # of prose in a notebook
README_LINES = 140
FINDINGS = re.compile(r"^## What we found\n(.*?)(?=^#|\Z)", re.DOTALL | re.MULTILINE)
IMPORT = re.compile(r"^(from|import) ", re.MULTILINE)
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")
PAIR = r"(?: ± \d+(?:\.\d+)?| \[-?\d+(?:\.\d+)?, -?\d+(?:\.\d+)?\])?"  # an error, an interval
MEASURED = re.compile(rf"(?<![\w.])[-+]?\d+\.\d+(?![\dB]){PAIR}")  # not that of Qwen2.5 or of 0.5B


def cells(number: str, kind: str) -> list[str]:
    """The sources of a notebook's cells of one kind."""
    file = paths.NOTEBOOKS / f"{NOTEBOOKS[number].file}.ipynb"
    return [cell.source for cell in nbformat.read(file, 4).cells if cell.cell_type == kind]


def words(text: str) -> int:
    """Words outside code, tables, formulas and the texts of pictures."""
    text = re.sub(r"```.*?```|\$\$.*?\$\$", "", text, flags=re.DOTALL)
    text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    text = PICTURE.sub("", text)
    return len(re.sub(r"\]\([^)]*\)", "]", text).split())


def findings(number: str) -> str:
    """The part "What we found" of a notebook."""
    (found,) = FINDINGS.findall("\n\n".join(cells(number, "markdown")))
    return found


def bullets(text: str) -> list[str]:
    """The bullets of a text, each without what follows it."""
    return [part.partition("\n\n")[0] for part in re.split(r"^- ", text, flags=re.MULTILINE)[1:]]


JUDGED = list(NOTEBOOKS)[1:]  # the tour has no findings


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_a_notebook_can_be_read_at_one_sitting(number):
    assert words("\n\n".join(cells(number, "markdown"))) <= MOST_WORDS


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_a_notebook_shows_the_recorded_pictures(number):
    """Of what it draws itself; each with words for those who do not see it."""
    pictures = PICTURE.findall("\n\n".join(cells(number, "markdown")))
    assert pictures
    for words_for_it, address in pictures:
        assert len(words_for_it.split()) >= 5, address
        file = (paths.NOTEBOOKS / address).resolve()
        assert file.exists() and file.parent.name == "overnight", address
        if number != "00":
            drawn = {name.removesuffix("_unhealed") for name in NOTEBOOKS[number].figures}
            drawn |= {"explorer"}  # a page, of which `scripts.explorer` takes a picture
            assert file.stem in drawn, f"{number} does not draw {file.stem}"


@pytest.mark.parametrize("number", JUDGED)
def test_a_finding_is_a_sentence_with_at_most_two_numbers(number):
    few = bullets(findings(number))
    assert 2 <= len(few) <= 6
    for bullet in few:
        assert bullet.startswith("**"), bullet
        assert len(MEASURED.findall(bullet)) <= 2, bullet


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_one_cell_imports(number):
    """The cell after the parameters. One that runs a model may import what only it needs."""
    parameters, imports, *others = cells(number, "code")
    assert parameters.startswith("PROFILE: str") and IMPORT.search(imports)
    for source in others:
        assert not IMPORT.search(source) or source.startswith("# runs the model"), source


def test_the_readme_is_short():
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= README_LINES
    assert all(len(words_for_it.split()) >= 5 for words_for_it, _ in PICTURE.findall(text))


def test_what_is_counted():
    text = "- **One.** It is 0.5 ± 0.1 and -0.2 [-0.3, 0.1] of Qwen2.5-0.5B.\n\nNo bullet, 0.7."
    (bullet,) = bullets(text)
    assert MEASURED.findall(bullet) == ["0.5 ± 0.1", "-0.2 [-0.3, 0.1]"]
    assert words("![a b c](x.png) two [words](x.md)\n\n| no | row |\n\n$$a b$$") == 2
