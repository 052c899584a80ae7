"""A run as web pages that open offline: `python -m replication.show.site --profile quick`.

papermill_runs/report/<run>/ is whole: it can be opened from a disk or put on any static host. Its
index.html has the question, what was found, every figure of the gallery in figures/README.md, the
claims in words, and how it was measured; the executed notebooks and two guides are a page each.
"""

import argparse
import base64
import io
import json
import posixpath
import re
import shutil
from html import escape, unescape
from pathlib import Path

import nbformat
from jinja2 import Template
from matplotlib import mathtext
from nbconvert import HTMLExporter
from nbformat import NotebookNode, v4
from traitlets.config import Config

from lib import storage
from replication import paths
from replication.notebook import WIDGET
from replication.profiles import DRAWN, RECORDED
from replication.show import runs

FINDINGS = Path(__file__).with_name("findings.csv")
INDEX, PAGE = (Path(__file__).with_name(name) for name in ("index.md.j2", "page.html.j2"))
KINDS = ["text/html", "text/markdown", "image/png", "text/plain"]  # of outputs, the best first
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)
LINK = re.compile(r'<a href="([^":#]+)(#[^"]*)?"[^>]*>(.*?)</a>', re.DOTALL)  # to a file
PICTURE = re.compile(r'(?<= src=")\.\./[^"]+')  # of a file
HEADING = re.compile(r"<(h\d)>(.*?)</\1>", re.DOTALL)
EXPLORER = re.compile(r'srcdoc="[^"]*"')  # a page within a notebook
FIGURE = re.compile(r"^\|[^|]*overnight/(\w+)\.png[^|]*\| ([^|]*) \| ([^|]*) \|", re.MULTILINE)
GUIDES = {"guide": "notebooks/README.md", "exercises": "exercises/README.md"}  # pages of text


def build(run: str) -> Path:
    """Write the pages of a run anew, and return the index; after an error the old ones stay.

    Raises ValueError if the run has left neither a notebook nor a figure.
    """
    figures, folder = paths.FIGURES / run, paths.RUNS / "report" / run
    copies = sorted((paths.RUNS / run).glob("*.ipynb"), key=lambda file: file.stat().st_mtime)
    pages = {file.name.split(".")[0]: nbformat.read(file, as_version=4) for file in copies}
    if not pages and not figures.exists():
        raise ValueError(f"Nothing of run {run!r} is there: make figures PROFILE={run} makes it.")
    with storage.atomic_folder(folder) as site:
        shutil.copytree(paths.ROOT / "figures" / RECORDED, site / "recorded")
        if figures.exists():
            shutil.copytree(figures, site, dirs_exist_ok=True)
        targets = {f"notebooks/{name}.ipynb": f"{name}.html" for name in pages}
        pages["index"] = _index(run, site, pages)
        for name, source in GUIDES.items():
            text = (paths.ROOT / source).read_text(encoding="utf-8")
            pages[name] = v4.new_notebook(cells=[v4.new_markdown_cell(text)])
            targets[source] = f"{name}.html"
        for file in site.rglob("*.*"):
            address = file.relative_to(site).as_posix()
            source = address.replace("recorded/", f"figures/{RECORDED}/")  # in the checkout
            targets[source] = address
        for name, notebook in pages.items():
            (site / f"{name}.html").write_text(_page(name, notebook, targets), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
    return folder / "index.html"


# ---- the index ------------------------------------------------------------------------------


def _index(run: str, site: Path, pages: dict[str, NotebookNode]) -> NotebookNode:
    """Return the first page of a run as a notebook."""
    gallery = (paths.ROOT / "figures" / "README.md").read_text(encoding="utf-8")
    names = sorted(file.stem for file in paths.NOTEBOOKS.glob("*.ipynb"))
    sides = {"recorded run": runs.measured(paths.RECORDED / RECORDED)}
    if run != DRAWN:
        sides = {"this run": runs.measured(paths.TABLES / run)} | sides
    text = Template(INDEX.read_text(encoding="utf-8")).render(
        run=run,
        figures=FIGURE.findall(gallery),
        findings=storage.rows(FINDINGS),
        pictures=[file.relative_to(site).as_posix() for file in site.rglob("*.png")],
        notebooks={name: pages.get(name) for name in names},
        is_recorded=run == DRAWN,
        machines={w: map(json.loads, side.environment.unique()) for w, side in sides.items()},
    )
    sections = re.split(r"\n(?=## )", text)
    return v4.new_notebook(cells=[v4.new_markdown_cell(section) for section in sections])


# ---- a page ---------------------------------------------------------------------------------


def _page(name: str, notebook: NotebookNode, targets: dict[str, str]) -> str:
    """Return a notebook as HTML: code folded, formulas as pictures, nothing that asks a server.

    targets: the addresses of what the site has, by paths of the checkout; a link to any other file
    becomes its text.
    """
    notebook.metadata.pop("widgets", None)
    folder = {"index": "", "exercises": "exercises"}.get(name, "notebooks")
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = FORMULA.sub(lambda match: _formula(match[1] or match[2]), cell.source)
        else:
            cell.outputs = [o for o in cell.get("outputs", []) if _is_static(o.get("data", {}))]
    exporter = HTMLExporter(
        config=Config({"NbConvertBase": {"display_data_priority": KINDS}}),
        raw_template=PAGE.read_text(encoding="utf-8"),
        exclude_anchor_links=True,
    )
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": name}})
    html = EXPLORER.sub('src="explorer.html"', html)
    html = HEADING.sub(lambda match: _heading(*match.groups()), html)

    def address(source: str) -> str:
        return targets.get(posixpath.normpath(posixpath.join(folder, source)), "")

    def link(match: re.Match) -> str:
        source, place, text = match.groups("")
        page = address(source)
        return f'<a href="{page}{place}">{text}</a>' if page else text

    html = PICTURE.sub(lambda match: address(match[0]), html)
    return LINK.sub(link, html)


def _is_static(data: dict) -> bool:
    return WIDGET not in data or "image/png" in data


def _heading(tag: str, text: str) -> str:
    """Return a heading with the name that GitHub gives it in links."""
    plain = unescape(re.sub(r"<[^>]+>", "", text)).lower()
    name = re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
    return f'<{tag} id="{name}">{text}</{tag}>'


def _formula(latex: str) -> str:
    """Return a formula as a picture, or where it cannot be drawn, as its LaTeX."""
    picture, drawable = io.BytesIO(), re.sub(r"\\[lr]Vert", r"\\|", latex.strip())
    try:
        mathtext.math_to_image(f"${drawable}$", picture, format="svg")
    except ValueError:
        return f"`{latex}`"
    content = base64.b64encode(picture.getvalue()).decode()
    return f'<img class="formula" alt="{escape(latex)}" src="data:image/svg+xml;base64,{content}">'


def main() -> None:
    """Report the newest run of a profile, of whatever models."""
    parser = argparse.ArgumentParser(prog="python -m replication.show.site", description=__doc__)
    parser.add_argument("--profile", default="quick", help="the run to report")
    profile = parser.parse_args().profile
    newest = max(
        paths.RUNS.glob(f"{profile}*"),
        key=lambda folder: folder.stat().st_mtime,
        default=Path(profile),
    )
    try:
        print(build(newest.name))
    except ValueError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
