"""The profile `recorded`: the committed tables are drawn as they were, and nothing is computed."""

import os
import pickle
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
from conftest import AS_RECORDED, replicate
from matplotlib import colors
from matplotlib.lines import Line2D

from replication import __main__ as run
from replication import notebook, paths
from replication.profiles import DRAWN, RECORDED
from replication.run.notebooks import NOTEBOOKS

COMMITTED = paths.ROOT / "figures" / RECORDED
FIGURES = [name for of in NOTEBOOKS.values() for name in of.figures]


def test_everything_is_drawn_and_nothing_is_stored(recorded_run):
    printed = (recorded_run / "stdout").read_text()
    assert re.search(r"03_healing: \d+ of \d+ points not recorded\n", printed)
    assert not (recorded_run / "data").exists()
    for name in FIGURES:
        assert (recorded_run / "figures" / DRAWN / f"{name}.png").exists()
    skipped = 0
    for of in NOTEBOOKS.values():
        copy = recorded_run / "papermill_runs" / DRAWN / f"{of.file}.ipynb"
        for cell in nbformat.read(copy, as_version=4).cells:
            if cell.source.startswith(notebook.LIVE):
                printed = "".join(message.text for message in cell.outputs)  # split anywhere
                assert printed == f"{notebook.SKIPPED}\n"
                skipped += 1
    assert skipped >= 6


@pytest.mark.record
@pytest.mark.parametrize("file", sorted(COMMITTED.glob("*.csv")), ids=lambda file: file.stem)
def test_a_figure_has_the_numbers_of_the_committed_one(recorded_run, file):
    tables = []
    for place in (file, recorded_run / "figures" / DRAWN / file.name):
        table = pd.read_csv(place)
        if {"task", "status"} <= set(table):  # a row may only name a model that was not measured
            table = table[table.task.notna() | table.status.eq("ok")]
        tables.append(table.drop(columns="profile", errors="ignore").reset_index(drop=True))
    pd.testing.assert_frame_equal(*tables, check_dtype=False, **AS_RECORDED)


def test_a_model_of_which_a_notebook_has_nothing_is_drawn_in_words(tmp_path):
    name, number = "qwen2.5-coder-0.5b", "13"
    done = replicate(tmp_path, "--profile", DRAWN, "--models", name, "--only", number)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"13_one_layer: (\d) of \1 points not recorded", done.stdout)
    for figure in NOTEBOOKS[number].figures:
        table = pd.read_csv(tmp_path / f"figures/{DRAWN}-{name}/{figure}.csv")
        assert table.status.tolist() == ["not measured"]


# ---- what is in a picture --------------------------------------------------------------------


@pytest.fixture(params=FIGURES)
def figure(recorded_run, request):
    """A figure of the recorded run, as a notebook had it."""
    yield pickle.loads((recorded_run / f"{request.param}.pickle").read_bytes())
    plt.close("all")


def in_data(artist, axis) -> bool:
    """Return whether an artist stands at numbers of both axes: a line of chance does not."""
    place = getattr(artist, "get_offset_transform", artist.get_transform)()
    placed = [place, artist.get_transform()]
    return any(all(t.contains_branch_seperately(axis.transData)) for t in placed)


def test_no_panel_is_empty_and_what_a_key_lists_is_drawn(figure):
    """A line with a hue is drawn in that hue; a black or grey one in that style."""
    for axis in figure.axes:
        lines = [of for of in axis.lines if np.isfinite(np.asarray(of.get_ydata(), float)).any()]
        shown = [*lines, *axis.patches, *axis.collections, *axis.images]
        assert not axis.axison or any(in_data(artist, axis) for artist in shown), axis.get_title()
    lines = [line for axis in figure.axes for line in axis.lines]
    shades = {colors.to_hex(line.get_color()) for line in lines}
    styles = {line.get_linestyle() for line in lines}
    for legend in figure.legends:
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            if isinstance(handle, Line2D):
                shade = colors.to_hex(handle.get_color())
                hue = len({shade[1:3], shade[3:5], shade[5:]}) > 1
                there = shade in shades if hue else handle.get_linestyle() in styles
                assert there, text.get_text()


# ---- how a run ends --------------------------------------------------------------------------


def kernels(folder) -> list:
    """Return the kernels of a run into `folder`."""
    running = psutil.process_iter(["environ", "cmdline"])
    mine = [p for p in running if (p.info["environ"] or {}).get("DEEPER_LAYERS_OUTPUT") == folder]
    return [p for p in mine if "ipykernel_launcher" in p.info["cmdline"]]


def test_an_interrupted_run_leaves_no_kernel(tmp_path):
    environment = os.environ | {"DEEPER_LAYERS_OUTPUT": str(tmp_path)}
    command = [sys.executable, "-m", "replication", "--profile", DRAWN, "--only", "10", "11"]
    runner = subprocess.Popen(command, env=environment, cwd=paths.ROOT, stdout=subprocess.DEVNULL)
    while not kernels(str(tmp_path)):
        assert runner.poll() is None
        time.sleep(0.1)
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(60) == 130
    assert not kernels(str(tmp_path))


def test_a_notebook_that_fails_is_told(monkeypatch, output):
    monkeypatch.setattr(run.drawing, "draw", lambda whole: {"01": run.batch.Outcome("failed")})
    assert run.main(["--profile", DRAWN, "--only", "01"]) == 1
