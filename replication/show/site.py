"""A run as web pages that open offline: `python -m replication.show.site --profile quick`.

papermill_runs/report/<run>/ is whole: it can be opened from a disk or put on any static host. Its
index.html has every figure of the gallery in figures/README.md, the executed notebooks (a page
each), the claims in words, and the run next to the recorded one.
"""

import argparse
import base64
import io
import json
import re
import shutil
from html import escape
from pathlib import Path

import nbformat
import pandas as pd
from jinja2 import Template
from matplotlib import mathtext
from nbconvert import HTMLExporter
from nbformat import NotebookNode, v4
from traitlets.config import Config

from lib import storage
from replication import claims, paths
from replication.profiles import DRAWN, RECORDED
from replication.show import compare, runs

INDEX, PAGE = (Path(__file__).with_name(name) for name in ("index.md.j2", "page.html.j2"))
KINDS = ["text/html", "text/markdown", "image/png", "text/plain"]  # of outputs, the best first
WIDGET = "application/vnd.jupyter.widget-view+json"  # an output that needs a kernel
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)
LINK = re.compile(r'<a href="([^":#]+)(?:#[^"]*)?"[^>]*>(.*?)</a>', re.DOTALL)  # to a file
EXPLORER = re.compile(r'srcdoc="[^"]*"')  # a page within a notebook
FIGURE = re.compile(r"^\|[^|]*overnight/(\w+)\.png[^|]*\| ([^|]*) \|", re.MULTILINE)


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
        pages["index"] = _index(run, site, pages)
        targets = {f"{name}.html" for name in pages} | {file.name for file in site.iterdir()}
        for name, notebook in pages.items():
            (site / f"{name}.html").write_text(_page(name, notebook, targets), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
    return folder / "index.html"


# ---- the index ------------------------------------------------------------------------------


def _index(run: str, site: Path, pages: dict[str, NotebookNode]) -> NotebookNode:
    """Return the first page of a run as a notebook; of the recorded run without a comparison."""
    gallery = (paths.ROOT / "figures" / "README.md").read_text(encoding="utf-8")
    names = sorted(file.stem for file in paths.NOTEBOOKS.glob("*.ipynb"))
    sides, compared = {"recorded run": runs.measured(paths.RECORDED / RECORDED)}, None
    if run != DRAWN:
        sides = {"this run": runs.measured(paths.TABLES / run)} | sides
        compared = compare.compare(*sides.values())
        compared.to_csv(site / "compared.csv", index=False)
    text = Template(INDEX.read_text(encoding="utf-8")).render(
        run=run,
        figures=FIGURE.findall(gallery),
        pictures=[file.relative_to(site).as_posix() for file in site.rglob("*.png")],
        notebooks={name: pages.get(name) for name in names},
        errors={name: _error(notebook) for name, notebook in pages.items()},
        claims=_claims(site / "figure_claims.csv"),
        compared=compared,
        beyond=compare.BEYOND,
        machines={w: map(json.loads, side.environment.unique()) for w, side in sides.items()},
    )
    sections = re.split(r"\n(?=## )", text)
    return v4.new_notebook(cells=[v4.new_markdown_cell(section) for section in sections])


def _error(notebook: NotebookNode) -> str:
    """Return the last error of an executed notebook in one line; "" if it has none."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    errors = [f"{o.ename}: {o.evalue}" for o in outputs if o.output_type == "error"]
    return errors[-1].splitlines()[0] if errors else ""


def _claims(file: Path) -> str:
    """Return the claims in words, of the table of their figure; "" if it is not there."""
    if not file.exists():
        return ""
    judged = pd.read_csv(file, dtype={"claim": str}).rename(columns={"way": "direction"})
    judged = judged[judged.claim.notna()].fillna("")  # a model that could not be had has no claim
    return claims.in_words(list(judged.itertuples()))


# ---- a page ---------------------------------------------------------------------------------


def _page(name: str, notebook: NotebookNode, targets: set[str]) -> str:
    """Return a notebook as HTML: code folded, formulas as pictures, nothing that asks a server.

    targets: the files beside it; a link to any other file becomes its text.
    """
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            source = cell.source.replace("](../figures/", "](figures/")
            cell.source = FORMULA.sub(lambda match: _formula(match[1] or match[2]), source)
        else:
            cell.outputs = [o for o in cell.get("outputs", []) if _is_static(o.get("data", {}))]
    exporter = HTMLExporter(
        config=Config({"NbConvertBase": {"display_data_priority": KINDS}}),
        raw_template=PAGE.read_text(encoding="utf-8"),
        embed_images=True,
    )
    metadata = {"name": name, "path": str(paths.ROOT)}
    html, _ = exporter.from_notebook_node(notebook, {"metadata": metadata})
    html = EXPLORER.sub('src="explorer.html"', html)
    return LINK.sub(lambda match: _link(*match.groups(), targets), html)


def _is_static(data: dict) -> bool:
    return WIDGET not in data or "image/png" in data


def _link(address: str, text: str, targets: set[str]) -> str:
    name = Path(address).name.replace(".ipynb", ".html")
    return f'<a href="{name}">{text}</a>' if name in targets else text


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
    folders = [*paths.RUNS.glob(profile), *paths.RUNS.glob(f"{profile}-*")]
    newest = max(folders, key=lambda folder: folder.stat().st_mtime, default=Path(profile))
    try:
        print(build(newest.name))
    except ValueError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
