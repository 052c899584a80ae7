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
from replication.show import site

# ---- a run -----------------------------------------------------------------------------------


def write_run(folder: Path, **changes) -> None:
    """Write what a run measures: distances, and the loss whole, cut and healed.

    changes: of the requests of losses.
    """
    weights = {"model": "m", "revision": "1", "dtype": "bfloat16", "quantization": None}
    made = {"device": "cpu", "sequences": 4, "max_tokens": 24}
    params = weights | made
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
        rows.append(weights | block | row)
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "unhealed.parquet")
    folds = np.random.default_rng(0).random((4, 5, 5))
    folds += folds.transpose(0, 2, 1)
    distances = BlockDistances(folds.mean(0), folds.std(0), folds, 8)
    similarity = pd.DataFrame(tables.rows_of(distances))
    request = json.dumps({"kind": "similarity"} | params)
    similarity = similarity.assign(request=request, **weights)
    similarity.to_parquet(folder / "similarity.parquet")


# ---- pages ----------------------------------------------------------------------------------


@pytest.fixture
def ran(output, monkeypatch):
    """Notebook 01 finished, 02 failed, the rest missing; figure 4 drawn; all of it recorded."""
    monkeypatch.setattr(paths, "ROOT", output)
    monkeypatch.setattr(paths, "RECORDED", output / "recorded")
    folder = paths.RUNS / "smoke"
    folder.mkdir(parents=True)
    lines = [
        "[next](02_pruning_curves.ipynb), [the library](../lib/blocks.py)",
        "![maps](../figures/overnight/figure_4.png) [words](README.md#a-word)",
    ]
    cells = [v4.new_markdown_cell("\n".join(lines))]
    for guide in ("notebooks", "exercises"):
        (output / guide).mkdir()
        (output / guide / "README.md").write_text("## A word")
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


def test_finished_failed_and_missing_notebooks_are_listed(ran):
    index = site.build("smoke").read_text()
    assert re.search(r"01_\w+</a></td>\s*<td>done</td>", index)
    assert "<strong>failed</strong>: ValueError: &lt;why&gt;" in index
    assert index.count("<strong>missing</strong>") == len(notebooks.NOTEBOOKS) - 2
    assert "<strong>Missing</strong>: figure_5" in index
    assert index.count("<img") == 2  # this run's figure 4 and the recorded one
    assert "no notebook has judged them" in index


def test_links_lead_to_files_of_the_site(ran):
    folder = site.build("smoke").parent
    for page in folder.rglob("*.html"):
        html = page.read_text()
        for address in re.findall(r'<(?:a|img)\b[^>]* (?:href|src)="([^":#]+)["#]', html):
            assert (page.parent / address).is_file(), (page, address)
    maps = (folder / "notebooks/01_similarity_heatmaps.html").read_text()
    assert '<a href="README.html#a-word">words</a>' in maps
    assert "the library" in maps and "blocks.py" not in maps
