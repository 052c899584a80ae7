"""Notebooks link each other, and no link between files leads nowhere."""

import re
import subprocess
import sys
from urllib.parse import unquote

import nbformat
import pytest

from benchmarks import links
from lib import paths
from lib.run.notebooks import NOTEBOOKS

LINK = re.compile(r"\]\(([^)\s]+)\)")
PAGES = [
    *sorted(paths.ROOT.glob("*.md")),
    *sorted(paths.ROOT.glob("[!.]*/*.md")),
    *sorted(paths.NOTEBOOKS.glob("*.ipynb")),
    *sorted((paths.ROOT / "exercises").glob("*.ipynb")),
]
WITHOUT = [
    paths.ROOT / name for name in ("LOG.md", "data/README.md", "exercises/pitfall_lab.ipynb")
]


def text(file) -> str:
    """What a reader sees, code left out."""
    if file.suffix == ".ipynb":
        cells = nbformat.read(file, as_version=4).cells
        return "\n\n".join(c.source for c in cells if c.cell_type == "markdown")
    return re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(file) -> set[str]:
    """The places of a page that a link can name, as GitHub makes them of headings."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text(file), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_first_and_last_cells_are_those_of_the_table(number):
    """`python -m benchmarks.links` brings them up to date."""
    assert links.place(number).read_text(encoding="utf-8") == links.renewed(number)
    assert len([e for e in links.exercises() if e.notebook == number]) >= links.IN_FOOTER
    assert (paths.ROOT / "lib" / links.SHOWN[number][2]).exists()


@pytest.mark.parametrize("host", ["COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE", None])
def test_only_a_hosted_notebook_installs_the_project(host, monkeypatch):
    asked, path = [], sys.path[:]
    monkeypatch.setattr(subprocess, "run", lambda command, check: asked.append(command))
    monkeypatch.setattr("builtins.input", lambda text: "https://example.org/project.git")
    monkeypatch.setattr(sys, "path", path)
    for name in ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    if host:
        monkeypatch.setenv(host, "1")
    exec(links.HOSTED)
    assert (path[0] == "/tmp/project") is bool(host) and len(asked) == 2 * bool(host)
    if host:
        assert asked[0][:2] == ["git", "clone"] and "https://example.org/project.git" in asked[0]
        assert asked[1][1:4] == ["-m", "pip", "install"] and "/tmp/project" in asked[1]


@pytest.mark.parametrize("file", PAGES, ids=lambda p: str(p.relative_to(paths.ROOT)))
def test_no_link_leads_nowhere(file):
    found = [link for link in LINK.findall(text(file)) if not link.startswith(("http", "mailto:"))]
    assert found or file in WITHOUT
    for link in found:
        address, _, place = unquote(link).partition("#")
        target = (file.parent / address).resolve() if address else file
        assert target.exists(), f"{file.name} links {link}"
        assert not place or place in anchors(target), f"{file.name} links {link}"


def test_a_broken_link_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n## The [first](x.md) `part`, here\n\n[there](absent.md)")
    assert anchors(page) == {"a-page", "the-first-part-here"}
    with pytest.raises(AssertionError, match="links absent.md|links x.md"):
        test_no_link_leads_nowhere(page)
