"""Web pages that need nothing but themselves: pictures, formulas and styles are inside."""

import base64
import io
import re
from pathlib import Path

import jinja2
import pandas as pd
from matplotlib import mathtext
from matplotlib.font_manager import FontProperties
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from replication import paths

FOLDED = """{%- extends 'basic/index.html.j2' -%}
{% block input_group %}<details class="code"><summary>code</summary>{{ super() }}</details>
{% endblock %}"""
HERE = jinja2.FileSystemLoader(Path(__file__).parent)
TEMPLATES = jinja2.Environment(loader=HERE, autoescape=True)
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)
PICTURE = re.compile(r'src="\.\./(figures/[^"]+\.png)"')  # that a cell of text shows
LINK = re.compile(r'<a href="([^":#]+)"[^>]*>(.*?)</a>', re.DOTALL)  # to a file of the project
PAGE = re.compile(r"(\d\d_\w+)\.ipynb")  # a notebook, whose page lies next to this one
EMBEDDED = re.compile(r'srcdoc="[^"]*"')  # a page within a page
STATIC = ("image/png", "image/svg+xml", "text/html", "text/markdown", "text/plain")


def page(**context) -> str:
    """The page of page.html.j2: of an executed notebook (`body`), or of a whole run."""
    code = HtmlFormatter(style="default").get_style_defs(".highlight")
    return TEMPLATES.get_template("page.html.j2").render(code_style=code, **context)


def notebook(executed: NotebookNode, explorer: str | None = None) -> str:
    """An executed notebook as HTML: code folded, formulas as pictures, nothing that asks a server.

    Interactive outputs are left out; they need a running kernel. explorer: the address of the page
    that the notebook embeds; None: it stays within.
    """
    executed.metadata.pop("widgets", None)
    for cell in executed.cells:
        if cell.cell_type == "markdown":
            cell.source = FORMULA.sub(lambda match: _formula(match[1] or match[2]), cell.source)
        elif cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _is_static(output)]
    exporter = HTMLExporter(
        raw_template=FOLDED, exclude_input_prompt=True, exclude_output_prompt=True
    )
    html = exporter.from_notebook_node(executed)[0]
    html = PICTURE.sub(lambda match: f'src="{picture(paths.ROOT / match[1])}"', html)
    html = LINK.sub(_link, html)
    return EMBEDDED.sub(f'src="{explorer}"', html) if explorer else html


def _link(match: re.Match) -> str:
    """A link to another notebook leads to its page; of any other file, which is not there, text."""
    target = PAGE.fullmatch(match[1])
    return f'<a href="{target[1]}.html">{match[2]}</a>' if target else match[2]


def _is_static(output: NotebookNode) -> bool:
    """Whether an output can be shown without a kernel; takes from it what cannot."""
    if "data" not in output:
        return True
    interactive = any("vnd." in kind for kind in output.data)
    html = output.data.get("text/html", "")
    kinds = STATIC[:2] if interactive else STATIC
    output.data = {kind: output.data[kind] for kind in kinds if kind in output.data}
    if "<script" in "".join(html):
        output.data.pop("text/html", None)
    return bool(output.data)


def _formula(latex: str) -> str:
    """A formula as a picture, or where it cannot be drawn, its LaTeX."""
    drawable = latex.replace(r"\lVert", r"\|").replace(r"\rVert", r"\|").strip()
    picture = io.BytesIO()
    try:
        mathtext.math_to_image(f"${drawable}$", picture, FontProperties(size=13), format="svg")
    except ValueError:
        return f"`{latex}`"
    alt = latex.replace('"', "&quot;").replace("\n", " ")
    address = data_address(picture.getvalue(), "svg+xml")
    return f'<img class="formula" alt="{alt}" src="{address}">'


def picture(file: Path) -> str | None:
    """A PNG file as an address that holds it; None if it is not there."""
    return data_address(file.read_bytes(), "png") if file.exists() else None


def data_address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def table(frame: pd.DataFrame) -> str:
    """A table as HTML, numbers to three digits, empty where there is nothing."""
    frame = frame.dropna(axis="columns", how="all")
    return frame.to_html(index=False, border=0, na_rep="", float_format=lambda x: f"{x:.3g}")
