"""A run as web pages: `python -m replication.show.site --profile quick`.

papermill_runs/report/<run>/ has the folders of the checkout, so links hold: the executed notebooks
and two guides as pages, the figures, and index.html with the question, what was found, every
figure, the claims in words, and how it was measured. Open it from a disk, or put it on any static
host. It needs no network: formulas are pictures.
"""

import argparse
import base64
import hashlib
import io
import posixpath
import re
import shutil
from html import unescape
from pathlib import Path

import nbformat
from jinja2 import Template
from matplotlib.mathtext import math_to_image
from nbconvert import HTMLExporter
from nbformat import NotebookNode, v4
from traitlets.config import Config

from lib import storage
from lib.models import registry
from replication import paths, profiles
from replication.notebook import WIDGET
from replication.profiles import DRAW_ONLY_PROFILE, RECORD_PROFILE
from replication.run.notebooks import FIGURES, NOTEBOOKS
from replication.show import questions
from replication.tables import RECORD_PREFIX

INDEX = Path(__file__).with_name("index.md.j2")
PAGE = Path(__file__).with_name("page.html.j2")
FINDINGS = Path(__file__).with_name("findings.csv")
GUIDES = ("notebooks/README", "exercises/README")  # pages of text
KINDS = ["text/html", "text/markdown", "image/png", "text/plain"]  # of outputs, the best first
EXPLORER = re.compile(r'srcdoc="[^"]*"')  # a page of megabytes within a notebook
STYLE = re.compile(r"<style[^>]*>(.*?)</style>", re.DOTALL)
LARGE = 2_000  # characters of a style that pages share
LINK = re.compile(r'<a href="([^":#]+)(#[^"]*)?"[^>]*>(.*?)</a>', re.DOTALL)  # to a file
SOURCE = re.compile(r"\.(ipynb|md)$")  # of a page
FORMULA = re.compile(r"(?<!`)(\$\$?)([^$`]+)\1")
HEADING = re.compile(r"<h(\d)>(.*?)</h", re.DOTALL)


def build(run: str) -> Path:
    """Write the pages of a run anew, and return the index; after an error the old ones stay.

    Raises ValueError if the run has left no notebook.
    """
    folder = paths.RUNS / "report" / run
    copies = sorted((paths.RUNS / run).glob("*.ipynb"), key=lambda file: file.stat().st_mtime)
    if not copies:
        raise ValueError(
            f"Nothing of run {run!r} is there: make figures makes it, with the same PROFILE, "
            "MODELS and TEXTS."
        )
    notebooks = {file.name.split(".")[0]: nbformat.read(file, as_version=4) for file in copies}
    with storage.atomic_folder(folder) as site:
        for figures in {paths.ROOT / "figures" / RECORD_PROFILE, paths.FIGURES / run}:
            if figures.exists():
                no_pages = shutil.ignore_patterns("*.html")  # notebook 08's explorer, a page below
                shutil.copytree(figures, site / "figures" / figures.name, ignore=no_pages)
        questions.build(site / "questions.html")
        pages = {f"notebooks/{name}": notebook for name, notebook in notebooks.items()}
        for guide in GUIDES:
            pages[guide] = _text_page((paths.ROOT / f"{guide}.md").read_text(encoding="utf-8"))
        pages["index"] = _text_page(_index(run, site, notebooks))
        addresses = {file.relative_to(site).as_posix() for file in site.rglob("*.*")}
        addresses |= {f"{page}.html" for page in pages}
        written = {page: _html(page, notebook) for page, notebook in pages.items()}
        if any(map(EXPLORER.search, written.values())):
            addresses.add("explorer.html")
        for page, html in written.items():
            html = _shared(_linked(html, page, addresses), page, site)
            storage.atomic_write(site / f"{page}.html", html.encode())
        shutil.rmtree(folder, ignore_errors=True)
    return folder / "index.html"


def _shared(html: str, page: str, site: Path) -> str:
    """Return a page without what others have, too, or that is a page itself: files of the site."""
    up = posixpath.relpath(".", posixpath.dirname(page) or ".")

    def style(match: re.Match) -> str:
        if len(match[1]) < LARGE:
            return match[0]
        name = f"style-{hashlib.sha256(match[1].encode()).hexdigest()[:8]}.css"
        (site / name).write_text(match[1], encoding="utf-8")
        return f'<link rel="stylesheet" href="{up}/{name}">'

    def explorer(match: re.Match) -> str:
        page = unescape(match[0].removeprefix('srcdoc="').removesuffix('"'))
        (site / "explorer.html").write_text(page, encoding="utf-8")
        return f'src="{up}/explorer.html"'

    return EXPLORER.sub(explorer, STYLE.sub(style, html))


def _index(run: str, site: Path, notebooks: dict[str, NotebookNode]) -> str:
    """Return the first page of a run, in Markdown."""
    sides = {"this run": run, "the recorded run": RECORD_PROFILE}
    if run == DRAW_ONLY_PROFILE:
        sides.pop("this run")
    files = {file.relative_to(site).as_posix() for file in site.rglob("*.*")}
    return Template(INDEX.read_text(encoding="utf-8")).render(
        run=run,
        sides={whose: f"figures/{folder}" for whose, folder in sides.items()},
        files=files,
        shown=files
        - {f"figures/{run}/{name}.png" for name in FIGURES if _is_record(site, run, name)},
        figures=FIGURES,
        findings=storage.rows(FINDINGS),
        notebooks={one.file: notebooks.get(one.file) for one in NOTEBOOKS.values()},
    )


def _is_record(site: Path, run: str, figure: str) -> bool:
    """Return whether a run's picture shows nothing but the recorded one, which is there, too."""
    own, recorded = (
        site / "figures" / folder / f"{figure}.png" for folder in (run, RECORD_PROFILE)
    )
    if run == DRAW_ONLY_PROFILE or not (own.exists() and recorded.exists()):
        return False
    if own.read_bytes() == recorded.read_bytes():
        return True
    table = storage.rows(own.with_suffix(".csv"))
    scores = [row for row in table if row.get("value") and "model" in row]
    return bool(scores) and all(row["model"].startswith(RECORD_PREFIX) for row in scores)


def _text_page(text: str) -> NotebookNode:
    return v4.new_notebook(cells=[v4.new_markdown_cell(text)])


def _html(page: str, notebook: NotebookNode) -> str:
    """Return a notebook as HTML, without what needs a kernel."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = FORMULA.sub(picture, cell.source)
        if "outputs" in cell:
            cell.outputs = [o for o in cell.outputs if _is_static(o.get("data", {}))]
    config = Config({"NbConvertBase": {"display_data_priority": KINDS}})
    exporter = HTMLExporter(config=config, exclude_anchor_links=True, template_file=str(PAGE))
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": page}})
    return HEADING.sub(_with_place, html)


def picture(formula: re.Match) -> str:
    """Return a formula as a picture within the page."""
    tex, svg = " ".join(formula[2].split()), io.BytesIO()
    math_to_image(f"${tex}$", svg, format="svg")
    data, kind = base64.b64encode(svg.getvalue()).decode(), len(formula[1])  # of dollars
    return f'<img alt="{tex}" class="formula{kind}" src="data:image/svg+xml;base64,{data}">'


def _with_place(heading: re.Match) -> str:
    """Return the begin of a heading with the name that links have for it, as GitHub makes it."""
    level, title = heading.groups()
    words = re.sub(r"<[^>]*>|[^\w\- ]", "", title.lower())
    return f'<h{level} id="{words.strip().replace(" ", "-")}">{title}</h'


def _is_static(data: dict) -> bool:
    return WIDGET not in data or "image/png" in data


def _linked(html: str, page: str, addresses: set[str]) -> str:
    """Return HTML whose links lead to files of the site; a link to another becomes its text."""

    def link(match: re.Match) -> str:
        source, place, text = match.groups("")
        target = SOURCE.sub(".html", source)
        address = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        return f'<a href="{target}{place}">{text}</a>' if address in addresses else text

    return LINK.sub(link, html)


def main() -> None:
    """Report the run of a profile, with its own models and texts or with others."""
    parser = argparse.ArgumentParser(prog="python -m replication.show.site", description=__doc__)
    parser.add_argument("--profile", default="quick", help="the run to report")
    parser.add_argument("--models", nargs="+", type=registry.canonical, help="of that run")
    parser.add_argument("--texts", help="of that run")
    options = parser.parse_args()
    try:
        run = profiles.get(options.profile, options.models, texts=options.texts)
        print(build(run.folder))
    except ValueError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
