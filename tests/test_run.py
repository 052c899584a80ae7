"""The notebooks, headless, in `smoke`: what they leave, and what is left of one that ends early."""

import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import nbformat
import pandas as pd
import psutil
import pytest
import torch
from conftest import replicate
from nbclient.exceptions import DeadKernelError

from benchmarks.faults import processes
from lib.models import registry
from replication import paths, tables
from replication.__main__ import main
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


@pytest.mark.parametrize("name", ["figure_2", "figure_3", "figure_5", "figure_6"])
def test_tables_are_tidy(smoke_run, name):
    table = pd.read_csv(smoke_run / "figures/smoke" / f"{name}.csv")
    assert set(table.columns) >= COLUMNS
    assert table[["value", "standard_error", "n", "chance"]].notna().all().all()
    point = ["model", "strategy", "treatment", "block_start", "block_size", "task"]
    assert not table.duplicated(point).any()
    assert set(table.treatment) == {"unpruned", "unhealed", "healed"}


def test_killed_in_the_middle_of_a_healing_and_continued(smoke_run, tmp_path):
    """kill -9 of runner and kernel; the next run does what is missing and ends with the same."""
    only, results = ("--profile", "smoke", "--only", "03"), tmp_path / "data" / "results"
    shutil.copytree(smoke_run / "data/results", results)
    shutil.rmtree(results / "healing")
    shutil.rmtree(results / "adapters")
    for file in results.glob("scores/*/*healed*.json"):
        file.unlink()
    kept = {file: file.stat().st_mtime_ns for file in results.glob("*/*/*.json")}
    runner = subprocess.Popen(
        [sys.executable, "-m", "replication", *only],
        env=os.environ | {"DEEPER_LAYERS_OUTPUT": str(tmp_path)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    while not list(results.glob("adapters/*/checkpoint-*")):
        assert runner.poll() is None
        time.sleep(0.02)
    os.killpg(runner.pid, signal.SIGKILL)
    for kernel in psutil.process_iter(["environ"]):  # kernels have their own session
        if (kernel.info["environ"] or {}).get("DEEPER_LAYERS_OUTPUT") == str(tmp_path):
            kernel.kill()
    runner.wait()
    assert not (tmp_path / "papermill_runs/smoke/03_healing.ipynb").exists()
    done = replicate(tmp_path, *only)
    assert done.returncode == 0, done.stderr
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    for name in notebooks.NOTEBOOKS["03"].figures:
        again, once = (f / "figures/smoke" / f"{name}.csv" for f in (tmp_path, smoke_run))
        assert again.read_bytes() == once.read_bytes(), name


def test_a_failed_notebook_is_kept_as_failed(output, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    cells = [
        nbformat.v4.new_code_cell("PROFILE = 'smoke'", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("raise ValueError('the reason\\nand more')"),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    file = notebooks.NOTEBOOKS["01"].file
    nbformat.write(notebook, tmp_path / f"{file}.ipynb")
    launch = Launch(notebooks.NOTEBOOKS["01"], {"PROFILE": "smoke"})
    with pytest.raises(RunError, match="failed: the reason$"):
        execution.execute(launch)
    names = [p.name for p in (paths.RUNS / "smoke").iterdir()]
    assert names == [f"{file}.failed.ipynb"]
    notebook.cells.pop()
    nbformat.write(notebook, tmp_path / f"{file}.ipynb")
    with pytest.raises(RunError, match="figure_1a.png"):  # it ends well without its figure
        execution.execute(launch)


def test_a_job_at_its_time_limit_says_so(output):
    """It is killed for it; the log of what it printed stays."""
    command = (sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)")
    outcome = execution.attempt(Launch(job="slow", command=command, time_limit=0.02))
    assert outcome.status == "time limit" and "longer than 0.02 minutes" in outcome.reason
    assert (paths.RESULTS / "jobs" / "slow.log").read_text() == "begun\n"


@pytest.mark.parametrize(
    "error, status",
    [
        (registry.GatedError("…"), "skipped: gated"),
        (registry.ModelError("…"), "skipped: not available"),
        (tables.NotMeasured("…"), "incomplete"),
        (MemoryError(), "oom"),
        (torch.OutOfMemoryError("CUDA out of memory."), "oom"),
        (SimpleNamespace(ename="GatedError", evalue="…"), "skipped: gated"),
        (DeadKernelError("Kernel died"), "killed"),
        (ValueError("…"), "failed"),
    ],
)
def test_a_failure_has_a_word(error, status):
    """Of an error here, or one of a kernel, which comes by name."""
    assert execution.failure(error).status == status


def test_missing_ray_ends_it_before_anything_is_fetched(output, capsys, monkeypatch):
    monkeypatch.setattr("replication.__main__.find_spec", lambda name: None)
    assert main(["--profile", "smoke", "--engine", "ray"]) == 2
    assert "Ray" in capsys.readouterr().err and not list(output.iterdir())


@pytest.mark.parametrize(
    "visible, seen",
    [(None, "0"), ("2,3", "2"), ("GPU-8b2c,GPU-11", "GPU-8b2c"), ("", "")],
)
def test_a_kernel_sees_one_gpu(monkeypatch, visible, seen):
    """The first of those that are visible; none where all are hidden."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with execution._environment(Launch(notebooks.NOTEBOOKS["01"])):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible


GROWING, OWN = "expandable_segments:True", "backend:cudaMallocAsync"
ALLOCATORS, CUBLAS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"), "CUBLAS_WORKSPACE_CONFIG"


@pytest.mark.parametrize(
    "given, seen",
    [
        ({}, (GROWING, GROWING, ":4096:8")),
        ({ALLOCATORS[0]: OWN, CUBLAS: ":16:8"}, (OWN, None, ":16:8")),
        ({ALLOCATORS[1]: OWN}, (None, OWN, ":4096:8")),
    ],
)
def test_cuda_is_set_up_before_torch_starts(given, seen):
    """By whatever of lib is imported first, for old and new releases; a setting of yours stays."""
    names = (*ALLOCATORS, CUBLAS)
    code = f"import os, lib; print(tuple(map(os.getenv, {names})))"
    others = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run([sys.executable, "-c", code], env=others | given, capture_output=True)
    assert done.stdout.decode().strip() == str(seen)


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


@pytest.mark.parametrize("file", sorted(paths.NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_committed_notebooks_are_clean(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        assert not cell.outputs and cell.execution_count is None
        assert len(cell.source.splitlines()) <= 15
    assert file.stem in {of.file for of in notebooks.NOTEBOOKS.values()}


def test_repository_is_complete_and_small():
    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=paths.ROOT, capture_output=True, text=True)
        return done.stdout.splitlines()

    modules = [str(f) for room in ("lib", "replication") for f in (paths.ROOT / room).rglob("*.py")]
    assert git("check-ignore", *modules) == []
    for name in git("ls-files"):
        assert (paths.ROOT / name).stat().st_size < 2_000_000, name
        assert "/" in name or "." in name or name in ("LICENSE", "Makefile"), "a run's leftover"
