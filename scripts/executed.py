"""The notebooks as they look when they were run: `python -m scripts.executed` makes them anew.

papermill_runs/executed/ has a copy of each, executed from the record, for readers of a page that
shows notebooks and runs none. What differs from run to run is taken away: times, paths, versions,
progress bars and widgets. Links lead to the same places. The explorer's page, of megabytes, is
its picture.
"""

import os
import re
import subprocess
import sys
import tempfile
from html import unescape
from pathlib import Path

import nbformat

from replication import paths
from replication.notebook import WIDGET
from replication.profiles import DRAW_ONLY_PROFILE
from replication.run.notebooks import NOTEBOOKS

FOLDER = paths.ROOT / "papermill_runs" / "executed"
LINK = re.compile(r"(\]\()(?!https?:|#|\d\d_\w+\.ipynb)([^)]+\))")  # but to another notebook
VERSIONS = re.compile(r"^torch \S+ \| transformers \S+$")
LARGEST = 500_000  # characters of a page within a cell: more is the explorer
PICTURE = '<img src="../../figures/overnight/explorer.png">'


def executed(notebook):
    """Return a copy of an executed notebook without what differs from run to run."""
    copy = nbformat.v4.new_notebook(metadata={"language_info": {"name": "python"}})
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            source = LINK.sub(_from_here, cell.source)
            copy.cells.append(nbformat.v4.new_markdown_cell(source, id=cell.id))
            continue
        outputs = [output for output in map(_output, cell.outputs) if output]
        count = cell.execution_count
        code = nbformat.v4.new_code_cell(
            cell.source, id=cell.id, outputs=outputs, execution_count=count
        )
        copy.cells.append(code)
    return copy


def _from_here(link: re.Match) -> str:
    """A link of a file in notebooks/, from FOLDER."""
    return link[1] + os.path.normpath(os.path.join("../../notebooks", link[2]))


def _output(output):
    """Return what stays of an output, or None."""
    if output.output_type == "stream":
        is_said = output.name == "stdout" and not VERSIONS.match(output.text.strip())
        return (
            nbformat.v4.new_output("stream", name="stdout", text=output.text) if is_said else None
        )
    if output.output_type == "error":
        return None
    if WIDGET in output.data:  # of a slider one picture stays, of a bar of progress nothing
        still = {kind: of for kind, of in output.data.items() if kind == "image/png"}
        return nbformat.v4.new_output("display_data", data=still) if still else None
    data = {kind: of for kind, of in output.data.items() if not kind.startswith("application")}
    if len(data.get("text/html", "")) > LARGEST:
        data = {"text/html": PICTURE}
    return nbformat.v4.new_output("display_data", data=data, metadata=output.metadata)


def words(cell) -> list[str]:
    """Return the words of a cell's texts and tables, not of its pictures."""
    texts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {"text/plain": output.get("text", "")})
        if "image/png" not in data:
            texts.append(data.get("text/html") or data.get("text/plain", ""))
    return unescape(re.sub(r"<style.*?</style>|<[^>]*>", " ", "\n".join(texts), flags=re.S)).split()


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        environment = os.environ | {"DEEPER_LAYERS_OUTPUT": place}
        command = [sys.executable, "-m", "replication", "--profile", DRAW_ONLY_PROFILE]
        subprocess.run(command, env=environment, cwd=paths.ROOT, check=True)
        FOLDER.mkdir(exist_ok=True)
        for of in NOTEBOOKS.values():
            file = Path(place) / "papermill_runs" / DRAW_ONLY_PROFILE / f"{of.file}.ipynb"
            copy = executed(nbformat.read(file, as_version=4))
            nbformat.write(copy, FOLDER / file.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
