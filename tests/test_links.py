"""No link between files leads nowhere."""

import re
from urllib.parse import unquote

import nbformat
import pytest

from replication import paths

LINK = re.compile(r"""(?:\]\(|(?:href|src)=")([^)\s"]+)[)"]""")
PAGES = [
    *sorted(paths.ROOT.glob("*.md")),
    *sorted(paths.ROOT.glob("[!.]*/*.md")),
    *sorted(paths.NOTEBOOKS.glob("*.ipynb")),
    *sorted((paths.ROOT / "exercises").glob("*.ipynb")),
]


def text(file) -> str:
    """What a reader sees, code left out."""
    if file.suffix == ".ipynb":
        cells = nbformat.read(file, as_version=4).cells
        return "\n\n".join(c.source for c in cells if c.cell_type == "markdown")
    return re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(file) -> set[str]:
    """The places of a page that a link can name, as GitHub makes them of headings."""
    places = set()
    for heading in re.findall(r"^#+ (.+)$", text(file), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        places.add(re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-"))
    return places


@pytest.mark.parametrize("file", PAGES, ids=lambda p: str(p.relative_to(paths.ROOT)))
def test_no_link_leads_nowhere(file):
    for link in LINK.findall(text(file)):
        if link.startswith(("http", "mailto:")):
            continue
        address, _, place = unquote(link).partition("#")
        target = (file.parent / address).resolve() if address else file
        assert target.exists(), link
        assert not place or place in anchors(target), link


def test_copies_have_what_they_link_to():
    """Those of `make lab`, and those of students."""
    pages = [text(file) for file in PAGES if file.parent.name in ("notebooks", "exercises")]
    linked = set(re.findall(r"\(\.\./([\w.]+)", "".join(pages))) - {"notebooks", "exercises"}
    for page, command in {"Makefile": "LINKED :=", "exercises/TEACHING.md": "ln -sf"}.items():
        line = (paths.ROOT / page).read_text().partition(command)[2].partition("\n")[0]
        assert not [name for name in linked if name not in line], page


def test_each_preregistered_entry_has_its_row_and_each_row_its_entry():
    page = paths.ROOT / "PREREGISTERED.md"
    rows = re.findall(r"^\| \d+: \[(.+)\]\(#([^)]+)\) \|(.*)\|$", text(page), re.MULTILINE)
    entries = [place for place in anchors(page) if re.match(r"\d+-", place)]
    assert sorted(place for _, place, _ in rows) == sorted(entries) and len(entries) > 20
    for title, place, cells in rows:
        assert place.endswith(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"))
        assert len(cells.split("|")) == 3 and all(cell.strip() for cell in cells.split("|")), title
