"""The profile `recorded`: the committed run is drawn as it was, and nothing is computed."""

import os
import re
import signal
import subprocess
import sys
import time

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import AS_RECORDED
from matplotlib import colors
from matplotlib.lines import Line2D

from lib.models import loading
from replication import __main__ as run
from replication import measure, notebook, paths, profiles, tables
from replication.figures import style
from replication.measure import cache, scores
from replication.measure.experiments import unhealed
from replication.profiles import DRAWN, RECORDED
from replication.run import drawing
from replication.run.notebooks import FIGURES, NOTEBOOKS
from replication.show import sliders

COMMITTED = paths.ROOT / "figures" / RECORDED


@pytest.fixture
def started(output, monkeypatch):
    """What a notebook has done after its first cell; the model cannot be loaded."""
    monkeypatch.setattr(results, "_process_archive", None)
    monkeypatch.setattr(loading, "load", lambda *a, **k: pytest.fail("loaded"))
    profile = profiles.get(DRAWN)
    notebook.start(profile)
    return profile


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Every notebook, run as `make figures PROFILE=recorded` does; its folder and its ending."""
    folder = tmp_path_factory.mktemp("recorded")
    return folder, draw(folder)


def draw(folder, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"DEEPER_LAYERS_OUTPUT": str(folder), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = str(paths.ROOT)
    command = [sys.executable, "-m", "replication", "--profile", DRAWN, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=paths.ROOT)


def test_a_model_of_which_a_notebook_has_nothing_is_drawn_in_words(tmp_path):
    name, numbers = "qwen2.5-coder-0.5b", ("09", "12", "13")
    done = draw(tmp_path, "--models", name, "--only", *numbers)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f": nothing of {name} recorded") == len(numbers)
    for notebook_of_run in map(NOTEBOOKS.get, numbers):
        assert (tmp_path / f"papermill_runs/{DRAWN}-{name}/{notebook_of_run.file}.ipynb").exists()
        for figure in notebook_of_run.figures:
            table = pd.read_csv(tmp_path / f"figures/{DRAWN}-{name}/{figure}.csv")
            assert table.status.tolist() == ["not measured"]


def test_everything_is_drawn_and_nothing_is_stored(drawn):
    folder, done = drawn
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"03_healing: \d+ of \d+ points not recorded\n", done.stdout)
    assert not (folder / "data").exists()
    for row in NOTEBOOKS.values():
        assert (folder / "papermill_runs" / DRAWN / f"{row.file}.ipynb").exists()
        for name in row.figures:
            assert (folder / "figures" / DRAWN / f"{name}.png").exists()


@pytest.mark.record
@pytest.mark.parametrize("file", sorted(COMMITTED.glob("*.csv")), ids=lambda file: file.stem)
def test_a_figure_has_the_numbers_of_the_committed_one(drawn, file):
    tables = []
    for place in (file, drawn[0] / "figures" / DRAWN / file.name):
        table = pd.read_csv(place)
        if {"task", "status"} <= set(table):  # a row may only name a model that was not measured
            table = table[table.task.notna() | table.status.eq("ok")]
        tables.append(table.drop(columns="profile", errors="ignore").reset_index(drop=True))
    pd.testing.assert_frame_equal(*tables, check_dtype=False, **AS_RECORDED)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Every figure of the recorded run by its name, drawn by the notebooks' cells, and open."""
    figures, save = {}, style.save_figure

    def keep(figure, table, name, *args, **kwargs):
        figures[name] = figure
        return save(figure, table, name, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPER_LAYERS_OUTPUT", str(tmp_path_factory.mktemp("pictures")))
        patch.setattr(paths, "FIGURES", tmp_path_factory.mktemp("figures"))
        patch.setattr(results, "_process_archive", None)
        patch.setattr(loading, "load", lambda *a, **k: pytest.fail("loaded"))
        patch.setattr(plt, "close", lambda *_: None)
        patch.setattr(sliders, "slide", lambda *_, **__: None)
        for module in [m for name, m in sys.modules.items() if name.startswith("replication.")]:
            if getattr(module, "save_figure", None) is save:
                patch.setattr(module, "save_figure", keep)
        for row in (row for row in NOTEBOOKS.values() if row.figures):
            names = {}
            for cell in nbformat.read(paths.ROOT / "notebooks" / f"{row.file}.ipynb", 4).cells:
                if cell.cell_type == "code" and not cell.source.startswith(notebook.LIVE):
                    source = re.sub('PROFILE: str = "[a-z]+"', f"PROFILE = {DRAWN!r}", cell.source)
                    exec(source, names)
        yield figures
    plt.close("all")


def in_data(artist, axis) -> bool:
    """Whether an artist stands at numbers of both axes: a line of chance does not."""
    place = getattr(artist, "get_offset_transform", artist.get_transform)()
    placed = [place, artist.get_transform()]
    return any(all(t.contains_branch_seperately(axis.transData)) for t in placed)


def artists(axis) -> list:
    """What a panel shows of its data."""
    lines = [line for line in axis.lines if np.isfinite(np.asarray(line.get_ydata(), float)).any()]
    drawn = [*lines, *axis.patches, *axis.collections, *axis.images]
    return [artist for artist in drawn if in_data(artist, axis)]


def test_no_empty_panel_is_drawn(pictures):
    assert set(pictures) >= {name for row in NOTEBOOKS.values() for name in row.figures}
    empty = [
        (name, axis.get_label())
        for name, figure in pictures.items()
        for axis in figure.axes
        if axis.axison and not artists(axis)
    ]
    assert empty == []


def test_what_a_key_lists_is_drawn(pictures):
    """A line with a hue: in that hue; a black or grey one: in that style."""
    for name, figure in pictures.items():
        lines = [line for axis in figure.axes for line in axis.lines]
        shades = {colors.to_hex(line.get_color()) for line in lines}
        styles = {line.get_linestyle() for line in lines}
        for legend in figure.legends:
            for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
                if isinstance(handle, Line2D):
                    shade = colors.to_hex(handle.get_color())
                    hue = len({shade[1:3], shade[3:5], shade[5:]}) > 1
                    there = shade in shades if hue else handle.get_linestyle() in styles
                    assert there, (name, text.get_text())


def test_a_cell_that_runs_the_model_says_that_it_is_skipped(drawn):
    skipped = 0
    for row in NOTEBOOKS.values():
        copy = drawn[0] / "papermill_runs" / DRAWN / f"{row.file}.ipynb"
        for cell in nbformat.read(copy, as_version=4).cells:
            if cell.source.startswith(notebook.LIVE):
                printed = "".join(message.text for message in cell.outputs)  # split anywhere
                assert printed == f"{notebook.SKIPPED}\n"
                skipped += 1
    assert skipped >= 6


def kernels(folder) -> list:
    """The kernels of a run into `folder`."""
    running = psutil.process_iter(["environ", "cmdline"])
    mine = [p for p in running if (p.info["environ"] or {}).get("DEEPER_LAYERS_OUTPUT") == folder]
    return [p for p in mine if "ipykernel_launcher" in p.info["cmdline"]]


def test_an_interrupted_run_leaves_no_kernel(tmp_path):
    environment = os.environ | {"DEEPER_LAYERS_OUTPUT": str(tmp_path)}
    command = [sys.executable, "-m", "replication", "--profile", DRAWN, "--only", "08", "10", "11"]
    runner = subprocess.Popen(command, env=environment, cwd=paths.ROOT, stdout=subprocess.DEVNULL)
    while not kernels(str(tmp_path)):
        assert runner.poll() is None
        time.sleep(0.1)
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(60) == 130
    assert not kernels(str(tmp_path))


def test_the_record_is_read_until_another_profile_starts(started):
    maps, profile = measure.distances(started, ["smollm2-135m"])
    table = scores.score_table(maps, unhealed, profile, ["c4"])
    assert table.value.notna().any() and set(table.profile) == {DRAWN}
    notebook.start(profiles.get("smoke"))
    assert results.archive_in_use() is None


def test_nothing_else_is_read(started, monkeypatch):
    """A result of this machine with the very parameters is not seen."""
    params = {"model": "smollm2-135m", "a": 1}
    cache.save("scores", params, {"value": 1.0}, 0)
    assert cache.load("scores", params) is None
    with pytest.raises(tables.NotMeasured):
        cache.load_or_compute("scores", params, lambda: pytest.fail("computed"))


@pytest.mark.parametrize(
    "options, words",
    [
        (["--limit", "5"], "takes no LIMIT"),
        (["--steps", "5"], "takes no LIMIT, STEPS"),
        (["--dtype", "float32"], "or DTYPE"),
        (["--models", "tiny-random"], "No 'tiny-random' is recorded: choose among smollm2-135m"),
        (["--plan"], "no plan of it"),
    ],
)
def test_what_the_record_cannot_show_ends_in_a_sentence(options, words, capsys):
    assert run.main(["--profile", DRAWN, *options]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("source", ["x = 1\n", "\n", f"# {notebook.LIVE}\n", ""])
def test_other_cells_stay_as_they_are(source):
    lines = source.splitlines(keepends=True)
    assert notebook.skip_live(lines) == lines


def test_the_settings_are_those_of_the_recorded_run():
    here, recorded = profiles.get(DRAWN), profiles.get(RECORDED)
    assert {k: v for k, v in vars(here).items() if k != "name"} == {
        k: v for k, v in vars(recorded).items() if k != "name"
    }


def test_a_notebook_that_fails_is_told(monkeypatch, output, capsys):
    ended = {"ok": 0, "failed": 1}
    for status, code in ended.items():
        outcome = run.batch.Outcome(status)
        monkeypatch.setattr(drawing, "draw", lambda whole, o=outcome: {"01": o})
        assert run.main(["--profile", DRAWN, "--only", "01"]) == code
    assert re.search(r"failed +0 s  01", capsys.readouterr().out)


# ---- the report -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reported(drawn):
    """The folder of the report of that run."""
    environment = os.environ | {"DEEPER_LAYERS_OUTPUT": str(drawn[0])}
    environment["PYTHONPATH"] = str(paths.ROOT)
    command = [sys.executable, "-m", "replication.show.site", "--profile", DRAWN]
    subprocess.run(command, env=environment, check=True, cwd=paths.ROOT)
    return drawn[0] / "papermill_runs" / "report" / DRAWN


def test_the_report_has_every_figure_and_notebook(reported):
    index = (reported / "index.html").read_text(encoding="utf-8")
    assert index.count("<img") == len(FIGURES) and "issing" not in index
    assert index.count("<td>done</td>") == len(NOTEBOOKS)


def test_the_report_can_be_put_on_a_host(reported):
    size = sum(file.stat().st_size for file in reported.rglob("*"))
    assert size < 25e6
    for page in reported.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        for address in re.findall(r'<(?:a|img|iframe)[^>]* (?:href|src)="([^":#]+)"', html):
            assert (page.parent / address).resolve().is_relative_to(reported), (page.name, address)
            assert (page.parent / address).is_file(), (page.name, address)
    assert (reported / "explorer.html").is_file()
    assert "srcdoc" not in (reported / f"{NOTEBOOKS['08'].file}.html").read_text()


@pytest.mark.real
@pytest.mark.parametrize("width", [400, 800])
def test_the_first_page_of_the_report_does_not_scroll_sideways(reported, chromium, width):
    page = chromium.new_page(viewport={"width": width, "height": 900})
    page.goto((reported / "index.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
