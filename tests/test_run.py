"""The notebooks, headless, in `smoke`: what they leave, and what is left of one that ends early."""

import os
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
import torch
from nbclient.exceptions import DeadKernelError

from benchmarks.faults import processes
from lib.models import registry
from replication import paths, tables
from replication.run import execution, notebooks
from replication.run.execution import Launch, RunError

COLUMNS = {
    "profile", "model", "dtype", "quantization", "strategy", "block_start", "block_size",
    "fraction", "treatment", "task", "value", "standard_error", "n", "seed", "rank", "shots",
}  # fmt: skip


def test_every_notebook_leaves_its_figures(smoke_run):
    for notebook in notebooks.NOTEBOOKS.values():
        assert (smoke_run / "papermill_runs/smoke" / f"{notebook.file}.ipynb").exists()
        for name in notebook.figures:
            picture = smoke_run / "figures/smoke" / f"{name}.png"
            assert picture.read_bytes().startswith(b"\x89PNG")
            assert len(pd.read_csv(picture.with_suffix(".csv"))) > 1
    assert not list(smoke_run.rglob("*.part")) and not list(smoke_run.rglob("*.running.ipynb"))
    for name in ("figure_2", "figure_3", "figure_5", "figure_6"):
        table = pd.read_csv(smoke_run / "figures/smoke" / f"{name}.csv")
        assert set(table.columns) >= COLUMNS
        assert table[["value", "standard_error", "n", "chance"]].notna().all().all()
        point = ["model", "strategy", "treatment", "block_start", "block_size", "task"]
        assert not table.duplicated(point).any()
        assert set(table.treatment) == {"unpruned", "unhealed", "healed"}


TOKEN = "hf_ThisTokenMustNotBeShown"


def test_a_failed_notebook_is_kept_as_failed(output, tmp_path, monkeypatch):
    """And without the hub's token, which it prints."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    cells = [
        nbformat.v4.new_code_cell("PROFILE = 'smoke'", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import os\nprint(os.environ['HF_TOKEN'])"),
        nbformat.v4.new_code_cell("raise ValueError('the reason\\nand more')"),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    file = notebooks.NOTEBOOKS["01"].file
    nbformat.write(notebook, tmp_path / f"{file}.ipynb")
    launch = Launch(notebooks.NOTEBOOKS["01"], {"PROFILE": "smoke"})
    with pytest.raises(RunError, match="failed: the reason$"):
        execution.execute(launch)
    (copy,) = (paths.RUNS / "smoke").iterdir()
    assert copy.name == f"{file}.failed.ipynb"
    assert "<token>" in copy.read_text() and TOKEN not in copy.read_text()
    notebook.cells.pop()
    nbformat.write(notebook, tmp_path / f"{file}.ipynb")
    with pytest.raises(RunError, match="figure_1a.png"):  # it ends well without its figure
        execution.execute(launch)


@pytest.mark.parametrize(
    "code, status",
    [
        ("print(json.dumps({'status': 'oom', 'reason': 'it says', 'seconds': 1.0}))", "oom"),
        ("raise SystemExit(1)", "failed"),
        ("os.kill(os.getpid(), 9)", "killed"),
    ],
)
def test_a_job_ends_as_its_last_line_says(output, monkeypatch, code, status):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    begin = "import json, os; print(os.environ['HF_TOKEN'], flush=True); "
    outcome = execution.attempt(Launch(job="a", command=(sys.executable, "-c", begin + code)))
    assert outcome.status == status and outcome.reason
    log = (paths.RESULTS / "jobs" / "a.log").read_text()
    assert log.startswith("<token>") and TOKEN not in log


@pytest.mark.parametrize(
    "error, status",
    [
        (registry.GatedError("…"), "skipped: gated"),
        (registry.ModelError("…"), "skipped: not available"),
        (tables.NotMeasured("…"), "incomplete"),
        (torch.OutOfMemoryError("CUDA out of memory."), "oom"),
        (SimpleNamespace(ename="GatedError", evalue="…"), "skipped: gated"),
        (DeadKernelError("Kernel died"), "killed"),
        (ValueError("…"), "failed"),
    ],
)
def test_a_failure_has_a_word(error, status):
    """Of an error here, or one of a kernel, which comes by name."""
    assert execution.failure(error).status == status


@pytest.mark.parametrize("visible, seen", [(None, "0"), ("GPU-8b2c,GPU-11", "GPU-8b2c"), ("", "")])
def test_a_kernel_sees_one_gpu(monkeypatch, visible, seen):
    """The first of those that are visible; none where all are hidden."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with execution._environment(Launch(notebooks.NOTEBOOKS["01"])):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible


def test_cuda_is_set_up_before_torch_starts():
    """By whatever of lib is imported first, for old and new releases; a setting of yours stays."""
    own = {"PYTORCH_ALLOC_CONF": "backend:cudaMallocAsync"}
    names = (*own, "PYTORCH_CUDA_ALLOC_CONF", "CUBLAS_WORKSPACE_CONFIG")
    for given, seen in (({}, ("expandable_segments:True",) * 2), (own, (*own.values(), None))):
        code = f"import os, lib; print(tuple(map(os.getenv, {names})))"
        others = {name: value for name, value in os.environ.items() if name not in names}
        command = [sys.executable, "-c", code]
        printed = subprocess.check_output(command, env=others | given, text=True)
        assert printed.strip() == str((*seen, ":4096:8"))


def test_a_relative_folder_is_the_same_from_everywhere(tmp_path):
    """Jobs and kernels start in the checkout."""
    command = [sys.executable, "-c", "from replication import paths; print(paths.FIGURES)"]
    code = f"from replication import paths; import subprocess; subprocess.run({command}, cwd='/')"
    environment = os.environ | {"DEEPER_LAYERS_FIGURES": "pictures", "PYTHONPATH": str(paths.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(tmp_path / "pictures"), done.stderr


@pytest.mark.parametrize("fault", processes.QUICK, ids=lambda fault: fault.fault)
def test_faults_of_processes(tmp_path, fault):
    assert fault.check(tmp_path / "ä run")


def test_repository_is_complete_and_small():
    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=paths.ROOT, capture_output=True, text=True)
        return done.stdout.splitlines()

    modules = [str(f) for room in ("lib", "replication") for f in (paths.ROOT / room).rglob("*.py")]
    assert git("check-ignore", *modules) == []
    for name in git("ls-files"):
        assert (paths.ROOT / name).stat().st_size < 2_000_000, name
        assert "/" in name or "." in name or name in ("LICENSE", "Makefile"), "a run's leftover"
