"""The notebooks, headless, in `smoke`: what they leave, and what is left of one that ends early."""

import base64
import os
import queue
import subprocess
import sys

import nbformat
import pandas as pd
import psutil
import pytest
from nbclient.exceptions import DeadKernelError

from lib import evaluation
from lib.models.registry import GatedError
from replication import paths, profiles, tables
from replication.run import execution, notebooks
from replication.run.execution import Launch

COLUMNS = {
    "profile", "model", "dtype", "quantization", "strategy", "block_start", "block_size",
    "fraction", "treatment", "task", "value", "standard_error", "n", "seed", "rank", "shots",
}  # fmt: skip


def test_every_notebook_leaves_its_figures(smoke_run):
    figures = smoke_run / "figures/smoke"
    for notebook in notebooks.NOTEBOOKS.values():
        assert (smoke_run / "papermill_runs/smoke" / f"{notebook.file}.ipynb").exists()
        for name in notebook.figures:
            assert (figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")
            assert len(pd.read_csv(figures / f"{name}.csv")) > 1
        shown = nbformat.read(smoke_run / f"papermill_runs/smoke/{notebook.file}.ipynb", 4)
        outputs = [output for cell in shown.cells for output in cell.get("outputs", [])]
        assert not [o.text for o in outputs if "Warning" in o.get("text", "")]
        pictures = [o for o in outputs if "alt" in o.get("metadata", {}).get("image/png", {})]
        assert bool(pictures) == bool(notebook.figures)
        for output in pictures:  # a notebook shows what was saved, not drawn once more
            file = figures / f"{output.metadata['image/png']['alt']}.png"
            assert base64.b64decode(output.data["image/png"]) == file.read_bytes()
    assert not list(smoke_run.rglob("*.part"))
    for name in ("figure_2", "figure_3", "figure_5", "figure_6"):
        table = pd.read_csv(figures / f"{name}.csv")
        assert set(table.columns) >= COLUMNS
        point = ["model", "strategy", "treatment", "block_start", "block_size", "task"]
        assert not table.duplicated(point).any()
        own = table[table.model == "tiny-random"]
        assert set(own.treatment) == {"unpruned", "unhealed", "healed"}
        measured = own[own.task == "c4"]
        assert measured[["value", "standard_error", "n", "chance"]].notna().all().all()


def test_no_score_of_few_questions_is_drawn(smoke_run):
    """`smoke` asks at most eight: its figures draw their recorded curves, and its losses."""
    drawn = 0
    for file in (smoke_run / "figures/smoke").glob("*.csv"):
        table = pd.read_csv(file)
        if {"task", "n", "value"} <= set(table):
            with_questions = {*evaluation.TASK_SPECS, "boolq_ranking"} - {*tables.LOSSES}
            questions = table[table.task.isin(with_questions) & table.value.notna()]
            assert (questions.n >= 30).all(), file
            drawn += len(questions)
    assert drawn > 500


TOKEN = "hf_ThisTokenMustNotBeShown"


def test_a_failed_notebook_is_kept_as_failed(output, tmp_path, monkeypatch):
    """Without the hub's token, which it prints and raises."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    cells = [
        nbformat.v4.new_code_cell("PROFILE = 'smoke'", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import os\nprint(os.environ['HF_TOKEN'])"),
        nbformat.v4.new_code_cell(
            "raise ValueError(f'{os.environ[\"HF_TOKEN\"]}: why\\nand more')"
        ),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    file = notebooks.NOTEBOOKS["01"].file
    nbformat.write(notebook, tmp_path / f"{file}.ipynb")
    launch = Launch(notebooks.NOTEBOOKS["01"], {"PROFILE": "smoke"})
    outcome = execution.attempt(launch)
    assert (outcome.status, outcome.reason) == ("failed", f"{file}.ipynb failed: <token>: why")
    (copy,) = (paths.RUNS / "smoke").iterdir()
    assert copy.name == f"{file}.failed.ipynb"
    assert "<token>" in copy.read_text() and TOKEN not in copy.read_text()
    notebook.cells.pop()
    nbformat.write(notebook, tmp_path / f"{file}.ipynb")  # it ends well without its figure
    assert "without writing figure_1a.png" in execution.attempt(launch).reason


def test_a_drawn_run_says_why_points_have_no_value(output):
    """Two scores of a model that cannot answer, and one of a model that needs more memory."""
    launch = Launch(notebooks.NOTEBOOKS["03"], {"PROFILE": profiles.DRAW_ONLY_PROFILE})
    first, *others = launch.tables
    futile = "no answer: the whole model is no better than its floor"
    statuses = ["ok", futile, "oom", futile]
    rows = pd.DataFrame({"model": "m", "value": [0.5, None, None, None], "status": statuses})
    first.parent.mkdir(parents=True)
    rows.to_csv(first, index=False)
    for table in others:
        rows.head(1).to_csv(table, index=False)
    assert execution._gaps(launch).reason == (
        "2 points without a value: the whole model is no better than its floor; "
        "1 points without a value: oom"
    )


@pytest.mark.parametrize(
    "code, status",
    [
        ("print(json.dumps({'status': 'oom', 'reason': 'it says', 'seconds': 1.0}))", "oom"),
        ("raise SystemExit(os.environ['HF_TOKEN'])", "failed"),
        ("os.kill(os.getpid(), 9)", "killed"),
        ("os.kill(os.getpid(), 11)", "failed"),  # as a broken driver does
    ],
)
def test_a_job_ends_as_its_last_line_says(output, monkeypatch, code, status):
    """Its log has no token of the hub."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    begin = "import json, os; print(os.environ['HF_TOKEN'], flush=True); "
    launch = Launch(job="a", command=(sys.executable, "-c", begin + code))
    outcome = execution.attempt(launch)
    assert outcome.status == status and outcome.reason
    assert launch.log.read_text().startswith("<token>") and TOKEN not in launch.log.read_text()
    assert TOKEN not in outcome.reason


ERRORS = {
    "killed": DeadKernelError("Kernel died"),
    "oom": MemoryError(),
    "skipped: gated": GatedError("accept its licence"),
}


@pytest.mark.parametrize("status", ERRORS)
def test_an_error_has_its_status(status):
    assert execution.failure(ERRORS[status]).status == status


# ---- a run that is ended -------------------------------------------------------------------


def test_a_job_ends_when_its_runner_is_gone(monkeypatch):
    exits = queue.Queue()
    monkeypatch.setenv(execution.RUNNER, "0")  # which is no process's parent
    monkeypatch.setattr(os, "_exit", exits.put)
    execution.end_with_runner()
    assert exits.get(timeout=9) == 1


@pytest.mark.real
def test_no_kernel_stays_behind(tmp_path):
    """Of a run that Slurm ends."""
    command = [sys.executable, "-m", "replication", "--profile", "smoke", "--only", "01"]
    environment = os.environ | {"DEEPER_LAYERS_OUTPUT": str(tmp_path)}
    runner = psutil.Popen(command, cwd=paths.ROOT, env=environment, stderr=subprocess.PIPE)
    while not (started := runner.children(recursive=True)):
        assert runner.poll() is None
    runner.terminate()
    said = runner.stderr.read().decode()
    assert runner.wait() == 130 and said.endswith("the same command resumes from here.\n"), said
    assert not psutil.wait_procs(started, timeout=60)[1]
