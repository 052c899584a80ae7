"""The report: nothing is dropped silently, nothing is asked of a network, a phone can show it."""

import os
import re
import shutil
import tomllib
from fnmatch import fnmatch

import nbformat
import pandas as pd
import pytest
from conftest import measured_scores
from matplotlib.figure import Figure
from nbformat import v4
from replication.report import __main__ as report

from lib.blocks import Block
from replication import claims, figures, paths, profiles
from replication.claims import bounds
from replication.measure import cache, distance_maps
from replication.run import notebooks
from replication.run.execution import Launch
from scripts import record

SMOKE = profiles.get("smoke")


@pytest.fixture
def ran(output, monkeypatch):
    """Notebook 01 finished, 02 failed, the rest missing; figure 4 drawn; all of it recorded."""
    monkeypatch.setattr(paths, "ROOT", output)
    monkeypatch.setattr(paths, "RECORDED", output / "data" / "recorded")
    folder = paths.RUNS / "smoke"
    folder.mkdir(parents=True)
    frame = pd.DataFrame({f"column_{i}": ["a <b> wide one"] for i in range(30)})
    page = {"text/plain": "the frame", "text/html": frame._repr_html_()}
    formula = r"$$d = \frac{1}{\pi} \arccos \lVert x \rVert$$ and $\nonsense$"
    outputs = [
        v4.new_output("execute_result", page, execution_count=1),
        v4.new_output("display_data", {"text/html": "<script src='http://x/'></script>"}),
        v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}}),
        v4.new_output("stream", text="printed\n"),
    ]
    cells = [
        v4.new_markdown_cell("# 1 · Similar <layers>\n\n" + formula),
        v4.new_code_cell("print('printed')  # " + "long " * 60, outputs=outputs),
    ]
    notebook = v4.new_notebook(cells=cells, metadata={"papermill": {"duration": 90.0}})
    nbformat.write(notebook, folder / f"{notebooks.NOTEBOOKS['01'].file}.ipynb")
    cells[1].outputs = [v4.new_output("error", ename="ValueError", evalue="why\nmore")]
    notebook.cells.insert(0, v4.new_markdown_cell("<span>An Exception was encountered</span>"))
    nbformat.write(notebook, folder / f"{notebooks.NOTEBOOKS['02'].file}.failed.ipynb")
    distance_maps.of_model("tiny-random", SMOKE)
    measured_scores("tiny-random", SMOKE, [Block(1, 2)], ["c4"])
    draw("smoke", "figure_4")
    draw(profiles.RECORDED, "figure_4")
    shutil.copytree(paths.RESULTS, paths.RECORDED / profiles.RECORDED)
    record.describe(profiles.RECORDED, "01", 0, 60)
    return output


def draw(profile, name):
    folder = paths.FIGURES / profile
    folder.mkdir(parents=True)
    figure = Figure(figsize=(12, 4))
    figure.subplots().plot([1, 2], [2, 1])
    figure.savefig(folder / f"{name}.png")
    (folder / f"{name}.csv").write_text("l,n\n1,2\n")


def test_finished_failed_and_missing_are_told_apart(ran):
    index = report.build(SMOKE).read_text()
    for name in ("01_similarity_heatmaps", "02_pruning_curves"):
        assert f'<a href="{name}.html">1 · Similar &lt;layers&gt;</a>' in index
        assert (paths.RUNS / "report" / "smoke" / f"{name}.html").exists()
    assert "failed: ValueError: why<" in index
    assert index.count('class="missing">missing') == len(notebooks.NOTEBOOKS) - 2
    missing = [name.replace("_", " ") for name in notebooks.FIGURES if name != "figure_4"]
    assert ", ".join(missing) in index
    assert index.count('src="data:image/png') == 2  # this run's figure 4 and the recorded one
    assert 'href="figure_4.csv"' in index
    assert set(re.findall(r'href="#([\w-]+)"', index)) <= set(re.findall(r'id="([\w-]+)"', index))


def test_pictures_come_first_and_the_folder_needs_no_other(ran):
    (paths.FIGURES / "smoke" / "explorer.html").write_text("a page")
    index = report.build(SMOKE)
    text, folder = index.read_text(), paths.RUNS / "report" / "smoke"
    assert index.parent == folder and text.index("<img") < text.index("<table")
    linked = {name for name in re.findall(r'(?:href|src)="([^":#]+)"', text)}
    assert {"figure_4.csv", "explorer.html"} <= linked
    assert all((folder / name).is_file() and ".." not in name for name in linked)
    left = folder / "of_an_earlier_run.html"
    left.write_text("")
    report.build(SMOKE)
    assert not left.exists()


def test_a_report_that_fails_leaves_those_that_are_there(ran, monkeypatch):
    """Of its own profile, whatever fails, and of every other."""

    def files() -> dict:
        return {f: f.read_bytes() for f in (paths.RUNS / "report").rglob("*") if f.is_file()}

    report.build(SMOKE)
    before = files()
    with pytest.raises(ValueError, match="make figures PROFILE=paper"):
        report.build(profiles.get("paper"))
    monkeypatch.setattr(report.compare, "compare", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.build(SMOKE)
    assert files() == before


def test_an_embedded_page_is_in_the_folder_once():
    frame = v4.new_output(
        "display_data", {"text/html": '<iframe srcdoc="&lt;p&gt;" id="x"></iframe>'}
    )
    executed = v4.new_notebook(cells=[v4.new_code_cell("explore()", outputs=[frame])])
    assert 'srcdoc="&lt;p&gt;"' in report.pages.notebook(executed)
    page = report.pages.notebook(executed, "explorer.html")
    assert re.search(r'<iframe [^>]*src="explorer.html"', page) and "srcdoc" not in page


def test_what_was_measured_and_by_what(ran):
    index = report.build(SMOKE).read_text()
    environment = cache.environment()
    assert environment["torch"] in index and environment["processor"] in index
    assert row(index, "C4 loss", f"n = {SMOKE.c4_sequences}; versions: 2, healed: 0")
    texts = SMOKE.similarity_sequences
    assert row(index, "angular distance", f"n = {texts}; versions: 1, healed: 0")


def test_a_newer_state_replaces_an_older_one(ran):
    done = paths.RUNS / "smoke/01_similarity_heatmaps.ipynb"
    failed = shutil.copy(done, done.with_suffix(".failed.ipynb"))
    for newer, state in ((failed, "failed"), (done, "done")):
        os.utime(newer, (os.stat(newer).st_atime, 2e9 + (newer == done)))
        assert report._notebook("01", SMOKE, ran)["state"] == state


def row(index, *cells):
    """Whether a table of the page has these cells next to each other in a row."""
    return re.search(r"\s*".join(f"<td>{re.escape(cell)}</td>" for cell in cells), index)


def test_what_came_out_is_the_table_of_claims(ran):
    interval = (0.4, 0.35, 0.45)
    judged = [bounds.judged("1", "tiny-random", "c4", interval, {"<c4>": 90})]
    judged.append(bounds.judged("4a", "tiny-random", "", (-0.1, -0.2, -0.05), {"texts": 90}))
    judged.append(bounds.judged("4b", "tiny-random", "", (0.5, 0.2, 0.9), {"texts": 9}))
    judged.append(bounds.judged("8"))
    figures.figure_claims(judged)
    index = report.build(SMOKE).read_text()
    table, _ = claims.lights(judged).split("\n\n")
    for line in table.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert row(index, *cells), line
    assert row(index, "1", judged[0].statement, judged[0].verdict)
    assert "agrees 2, can&#39;t tell 1." in index and "&lt;c4&gt;" in index


def test_claims_in_words_count_their_verdicts():
    """A claim of two models is mixed where they differ; one that was not run says so."""
    agrees, differs = (0.4, 0.35, 0.45), (0.8, 0.7, 0.9)
    judged = [bounds.judged("1", "SmolLM2-135M", "mmlu", agrees, {"mmlu": 90})]
    judged.append(bounds.judged("1", "Phi-2", "arc_easy", differs, {"arc_easy": 90}))
    judged.append(bounds.judged("4a", "Phi-2", "", (-0.1, -0.2, -0.05), {"texts": 90}))
    judged.append(bounds.judged("4b", "Phi-2", "", (0.5, 0.2, 0.9), {"texts": 9}))
    first, *others = claims.in_words(judged).splitlines()[2:]
    assert first.endswith(
        "| **mixed**: 1 for it (1 decided), 1 against it (1 decided) "
        "| SmolLM2-135M (MMLU); Phi-2 (ARC-Easy) |"
    )
    assert others[2].endswith("| **agrees**: 1 for it (1 decided), 1 open | Phi-2 |")
    assert others[0].endswith("| not measured |  |")


def test_the_run_stands_beside_the_recorded_one(ran, monkeypatch):
    assert "<b>0</b> differ" in report.build(SMOKE).read_text()
    monkeypatch.setattr(report.compare, "BEYOND", -1)
    assert "<b>0</b> differ" not in report.build(SMOKE).read_text()
    shutil.rmtree(paths.RECORDED)
    assert "can be compared" not in report.build(SMOKE).read_text()


def test_notebooks_become_pages_without_kernel_or_network(ran):
    report.build(SMOKE)
    page = (paths.RUNS / "report/smoke/01_similarity_heatmaps.html").read_text()
    assert "printed" in page and "a &lt;b&gt; wide" in page
    assert 'class="formula"' in page and r"<code>\nonsense</code>" in page
    assert not re.search(r'(src|href)="?\s*(https?:)?//', page) and page.count("<script") == 1


def test_the_run_is_reported_as_it_was_asked(ran):
    """With the models and the limit of the newest notebook, not those of the bare profile."""
    assert report.newest_run("smoke") == SMOKE
    parameters = {"PROFILE": "smoke", "MODELS": ["smollm2-135m"], "LIMIT": 3}
    folder = Launch(parameters=parameters).folder
    assert folder.name == "smoke-smollm2-135m"  # figures and notebooks of SMOKE stay
    folder.mkdir()
    copy = folder / f"{notebooks.NOTEBOOKS['04'].file}.ipynb"
    nbformat.write(v4.new_notebook(metadata={"papermill": {"parameters": parameters}}), copy)
    assert report.newest_run("smoke") == profiles.get("smoke", ["smollm2-135m"], 3)


def test_every_figure_of_the_report_is_drawn_by_a_notebook():
    drawn = {name for notebook in notebooks.NOTEBOOKS.values() for name in notebook.figures}
    assert {name.removesuffix("_unhealed") for name in drawn} == set(notebooks.FIGURES)


def test_what_the_package_reads_is_installed_with_it():
    settings = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    files = [*(paths.ROOT / "lib").rglob("*.*"), *(paths.ROOT / "replication").rglob("*.*")]
    names = {file.name for file in files if file.suffix not in (".py", ".pyc")}
    assert {"page.html.j2", "claims.csv", "models.csv", "profiles.csv"} <= names
    for name in names:
        assert any(fnmatch(name, pattern) for pattern in settings["package-data"]["*"]), name


# ---- in a browser -------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(ran, chromium, width):
    """From a file: no request, no console message, no scrolling sideways, every picture drawn."""
    index = report.build(SMOKE)
    page = chromium.new_page(viewport={"width": width, "height": 844})
    addresses, messages = [], []
    page.on("request", lambda request: addresses.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    for file in sorted(index.parent.glob("*.html")):
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), file.name
        pictures = "[...document.images].map(i => [i.naturalWidth, i.width])"
        for natural_width, drawn_width in page.evaluate(pictures):
            assert natural_width and drawn_width >= min(natural_width, width) / 2, file.name
    assert not messages
    assert {address.partition(":")[0] for address in addresses} <= {"file", "data"}
