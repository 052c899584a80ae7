"""The site of a run, and what is missing of it."""

import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from nbformat import v4

from lib.blocks import BlockDistances
from lib.evaluation import weighted_mean
from replication import figures, paths, profiles, tables
from replication.run import notebooks
from replication.show import runs, site

GALLERY = """| picture | shows | notebook |
|---|---|---|
| <img src="overnight/figure_4.png"> | maps | [01](../notebooks/01_similarity_heatmaps.ipynb) |
| [5](overnight/figure_5.png) | two strategies | more |
"""
ENVIRONMENT = {"processor": "a slow one", "card": None, "torch": "9.9"}


# ---- a run -----------------------------------------------------------------------------------


def write_run(folder: Path, **changes) -> pd.DataFrame:
    """Write and return what a run measures: distances, and the loss whole, cut and healed.

    changes: of the requests of losses.
    """
    weights = {"model": "m", "revision": "1", "dtype": "bfloat16", "quantization": None}
    made = {"device": "cpu", "sequences": 4, "max_tokens": 24}
    params = weights | made
    environment = {"environment": json.dumps(ENVIRONMENT)}
    losses = np.array([3.0, 4, 6, 5])
    value, error = weighted_mean(losses, np.ones(4))
    rows = []
    for size, recipe in ((0, {}), (2, {}), (2, {"recipe": {"steps": 8, "rank": 4, "seed": 1}})):
        block = {"block_start": 1, "block_size": size}
        request = {"kind": "scores", "task": "c4"} | params | block | recipe | changes
        row = {
            "task": "c4",
            "value": value,
            "standard_error": error,
            "n": 4,
            "examples": losses,
            "weights": np.ones(4),
            "request": json.dumps(request),
        }
        rows.append(weights | block | row | environment)
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "unhealed.parquet")
    folds = np.random.default_rng(0).random((4, 5, 5))
    folds += folds.transpose(0, 2, 1)
    distances = BlockDistances(folds.mean(0), folds.std(0), folds, 8)
    similarity = pd.DataFrame(tables.rows_of(distances))
    request = json.dumps({"kind": "similarity"} | params)
    similarity = similarity.assign(request=request, **weights, **environment)
    similarity.to_parquet(folder / "similarity.parquet")
    return runs.measured(folder)


# ---- pages ----------------------------------------------------------------------------------


@pytest.fixture
def ran(output, monkeypatch):
    """Notebook 01 finished, 02 failed, the rest missing; figure 4 drawn; all of it recorded."""
    monkeypatch.setattr(paths, "ROOT", output)
    monkeypatch.setattr(paths, "RECORDED", output / "recorded")
    folder = paths.RUNS / "smoke"
    folder.mkdir(parents=True)
    lines = [
        "[next](02_pruning_curves.ipynb), [the library](../lib/blocks.py), $\\frac{1}{\\pi}$",
        "![maps](../figures/overnight/figure_4.png) [words](README.md#a-word-two-words)",
    ]
    cells = [v4.new_markdown_cell("\n".join(lines))]
    for guide in ("notebooks", "exercises"):
        (output / guide).mkdir()
        (output / guide / "README.md").write_text("## Glossary\n\n## A *word*: two words?")
    done = v4.new_notebook(cells=cells, metadata={"papermill": {"duration": 90.0}})
    nbformat.write(done, folder / "01_similarity_heatmaps.ipynb")
    error = v4.new_output("error", ename="ValueError", evalue="<why>")
    failed = v4.new_notebook(cells=[v4.new_code_cell("raise", outputs=[error])])
    nbformat.write(failed, folder / "02_pruning_curves.failed.ipynb")
    for run in ("smoke", profiles.RECORDED):
        figure = Figure()
        figure.table = pd.DataFrame({"l": [1]})
        figures.save(figure, "figure_4", profiles.get(run))
    write_run(paths.TABLES / "smoke")
    write_run(paths.RECORDED / profiles.RECORDED)
    (paths.FIGURES / "README.md").write_text(GALLERY)


def test_finished_failed_and_missing_notebooks_are_listed(ran):
    index = site.build("smoke").read_text()
    assert re.search(r"01_\w+</a></td>\s*<td>done</td>", index)
    assert "<strong>failed</strong>: ValueError: &lt;why&gt;" in index
    assert index.count("<strong>missing</strong>") == len(notebooks.NOTEBOOKS) - 2
    assert "<strong>Missing</strong>: figure_5, two strategies" in index
    assert index.count("<img") == 2  # this run's figure 4 and the recorded one
    assert "no notebook has judged them" in index


def test_pages_ask_no_server_and_have_no_dead_link(ran):
    folder = site.build("smoke").parent
    pages = {file.name: file.read_text() for file in folder.glob("*.html")}
    for name, html in pages.items():
        assert not re.search(r'src="(https?:)?//', html)
        for address in re.findall(r'<(?:a|img|iframe)[^>]* (?:href|src)="([^":]+)"', html):
            file, _, place = address.partition("#")
            assert not file or (folder / file).is_file(), (name, address)
            assert not place or f'id="{place}"' in pages[file or name], (name, address)
    maps = pages["01_similarity_heatmaps.html"]
    assert '<a href="guide.html#a-word-two-words">words</a>' in maps
    assert 'src="recorded/figure_4.png"' in maps
