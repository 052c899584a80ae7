"""The site of a run, and what is missing of it."""

import re
import shutil
import sys

import nbformat
import pandas as pd
import pytest
from matplotlib.figure import Figure
from nbformat import v4

from replication import figures, paths, profiles
from replication.run import notebooks
from replication.show import site


@pytest.fixture
def ran(output, monkeypatch):
    """Notebook 01 finished, 02 failed, 03 runs, the rest missing; figure 4 drawn, and recorded."""
    monkeypatch.setattr(paths, "ROOT", output)
    folder = paths.RUNS / "smoke"
    folder.mkdir(parents=True)
    lines = [
        "[next](02_pruning_curves.ipynb), [the library](../lib/blocks.py)",
        "![maps](../figures/overnight/figure_4.png) [words](README.md#a-word) $l^*$",
    ]
    page = v4.new_output("display_data", {"text/html": '<iframe srcdoc="&lt;p&gt;maps"></iframe>'})
    cells = [
        v4.new_markdown_cell("\n".join(lines)),
        v4.new_code_cell("explorer", outputs=[page]),
    ]
    for guide in ("notebooks", "exercises"):
        (output / guide).mkdir()
        (output / guide / "README.md").write_text("## A word")
    done = v4.new_notebook(cells=cells, metadata={"papermill": {"duration": 90.0}})
    nbformat.write(done, folder / "01_similarity_heatmaps.ipynb")
    error = v4.new_output("error", ename="ValueError", evalue="<why>")
    failed = v4.new_notebook(cells=[v4.new_code_cell("raise", outputs=[error])])
    nbformat.write(failed, folder / "02_pruning_curves.failed.ipynb")
    running = v4.new_notebook(metadata={"papermill": {"duration": None}})
    nbformat.write(running, folder / "03_healing.ipynb")
    for run, model, width in (("smoke", "recorded: m", 3), (profiles.RECORD_PROFILE, "m", 4)):
        tables = {
            "figure_4": (width, {"model": ["m"], "value": [0.1]}),  # this run's own
            "figure_1a": (3, {"step": ["measure"]}),  # the same picture
            "figure_2": (width, {"model": [model, "m"], "value": [0.5, None]}),
        }
        for name, (size, table) in tables.items():
            figure = Figure(figsize=(size, 1))
            figure.table = pd.DataFrame(table)
            figures.save(figure, name, profiles.get(run))


def test_finished_failed_and_missing_notebooks_are_listed(ran):
    index = site.build("smoke").read_text()
    assert re.search(r"01_\w+</a></td>\s*<td>done</td>", index)
    assert "<strong>failed</strong>: ValueError: &lt;why&gt;" in index
    assert index.count("<strong>missing</strong>") == len(notebooks.NOTEBOOKS) - 3
    assert re.search(r"03_\w+</a></td>\s*<td><strong>unfinished</strong></td>", index)
    assert "<strong>Missing</strong>: figure_5" in index
    assert index.count("<img") == 4  # this run's figure 4, and the recorded one of three figures
    assert index.count("The run adds nothing to the recorded picture.") == 2
    assert "no notebook has judged them" in index


RUNS = {
    "smoke": "--profile smoke",
    "smoke-TinyLlama": "--profile smoke --models made/TinyLlama",
    "smoke-notes.txt": "--profile smoke --texts /some/notes.txt",
    "recorded": "--profile recorded --models smollm2-135m qwen2.5-coder-0.5b qwen2.5-coder-1.5b",
    "quick": "",
}


@pytest.mark.parametrize("run", RUNS)
def test_a_report_is_of_the_run_that_is_named(run, output, monkeypatch, capsys):
    """Not of the newest that begins alike."""
    monkeypatch.setattr(site, "build", lambda run: run)
    for folder in ("smoke-zephyr", "recorded-other", "quick-tiny-qwen3"):
        (paths.RUNS / folder).mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["site", *RUNS[run].split()])
    site.main()
    assert capsys.readouterr().out.split() == [run]


def test_the_recorded_run_stands_next_to_no_other(ran):
    for place in (paths.RUNS, paths.FIGURES):
        shutil.copytree(place / "smoke", place / profiles.DRAW_ONLY_PROFILE)
    assert site.build(profiles.DRAW_ONLY_PROFILE).read_text().count("<img") == 3


def test_what_pages_share_is_a_file_of_the_site_once(ran):
    """The explorer, of megabytes, and the styles; and there is a page of questions."""
    folder = site.build("smoke").parent
    index = (folder / "index.html").read_text()
    maps = (folder / "notebooks/01_similarity_heatmaps.html").read_text()
    assert (folder / "explorer.html").read_text() == "<p>maps"
    assert '<iframe src="../explorer.html">' in maps and "srcdoc" not in maps
    for page in ("explorer", "questions"):
        assert f'<a href="{page}.html">' in index
    styles = re.findall(r'<link rel="stylesheet" href="([^"]+)">', index)
    assert styles and all(f'href=".{name}"' in maps for name in styles)  # ./ and ../
    assert max(map(len, re.findall(r"<style.*?</style>", maps, re.DOTALL))) < 2 * site.LARGE


def test_links_lead_to_files_of_the_site(ran):
    folder = site.build("smoke").parent
    for page in folder.rglob("*.html"):
        html = page.read_text()
        for address in re.findall(
            r'<(?:a|img|link|iframe)\b[^>]* (?:href|src)="([^":#]+)["#]', html
        ):
            assert (page.parent / address).is_file(), (page, address)
    maps = (folder / "notebooks/01_similarity_heatmaps.html").read_text()
    assert '<a href="README.html#a-word">words</a>' in maps
    assert '<h2 id="a-word">' in (folder / "notebooks/README.html").read_text()
    assert '<img alt="l^*"' in maps and "cdnjs" not in maps
    assert "the library" in maps and "blocks.py" not in maps
