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
from nbclient.exceptions import DeadKernelError

from benchmarks.faults import processes
from lib.models import registry
from replication import paths, profiles, tables
from replication.__main__ import main
from replication.run import execution, notebooks
from replication.run.execution import Launch, RunError
from scripts import record

COLUMNS = {
    "profile", "model", "dtype", "quantization", "strategy", "block_start", "block_size",
    "fraction", "treatment", "task", "value", "standard_error", "n", "seed", "rank", "shots",
}  # fmt: skip


def launch(output, *arguments, cwd="/") -> subprocess.CompletedProcess:
    environment = os.environ | {"DEEPER_LAYERS_OUTPUT": str(output)}
    command = [sys.executable, "-m", "replication", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Every notebook once, from another working directory, into a folder with an odd name."""
    output = tmp_path_factory.mktemp("a füll run")
    done = launch(output, "--profile", "smoke", cwd=output)
    assert done.returncode == 0, done.stderr
    return output


def test_every_notebook_leaves_its_figures(smoke):
    for notebook in notebooks.NOTEBOOKS.values():
        assert (smoke / "papermill_runs/smoke" / f"{notebook.file}.ipynb").exists()
        for name in notebook.figures:
            picture = smoke / "figures/smoke" / f"{name}.png"
            assert picture.read_bytes().startswith(b"\x89PNG")
            assert len(pd.read_csv(picture.with_suffix(".csv"))) > 1
    assert not list(smoke.rglob("*.part")) and not list(smoke.rglob("*.running.ipynb"))


def test_a_record_from_nothing_is_whole_and_a_clean_clone_continues_it(smoke, output, monkeypatch):
    """Each notebook leaves what it left in `smoke`; then one runs, all of it restored.

    Nothing is measured twice, not even a healing, whose adapter is gone.
    """
    recorded, figures = output / "recorded" / "smoke", output / "figures" / "smoke"
    monkeypatch.setattr(paths, "RECORDED", recorded.parent)
    copies = smoke / "papermill_runs" / "smoke"
    named = {n: copies / f"{of.file}.ipynb" for n, of in notebooks.NOTEBOOKS.items() if of.figures}
    ends = {number: copy.stat().st_mtime for number, copy in named.items()}

    def leave(name: str, number: str) -> int:
        before = max((end for end in ends.values() if end < ends[number]), default=0)
        for file in (*smoke.glob("data/results/**/*.json"), *smoke.glob("figures/smoke/*.*")):
            if before < file.stat().st_mtime <= ends[number]:
                target = record.workplace(name) / file.relative_to(smoke)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(record, "_run", leave)
        assert record.record("smoke") == 0
    first = {file.name: file.read_bytes() for file in recorded.glob("*.jsonl")}
    drawn = {file.name for file in figures.iterdir()}
    committed = paths.ROOT / "figures" / profiles.RECORDED
    assert drawn == {file.name for file in committed.glob("figure_*")}
    kept = (paths.ROOT / "data" / "recorded" / profiles.RECORDED).glob("*.jsonl")
    assert {file.split(".")[0] for file in first} == {file.name.split(".")[0] for file in kept}
    described = results.archive(recorded).run
    assert described["environment"]["torch"] and set(described["notebooks"]) == set(ends)

    shutil.rmtree(paths.RUNS)
    shutil.rmtree(figures)
    assert record.record("smoke", ["03"]) == 0
    assert {file.name: file.read_bytes() for file in recorded.glob("*.jsonl")} == first
    assert {file.stem for file in figures.glob("*.png")} == {*notebooks.NOTEBOOKS["03"].figures}
    assert not (record.workplace("smoke") / "data/results/adapters").exists()
    assert not paths.RESULTS.exists()


@pytest.mark.parametrize("name", ["figure_2", "figure_3", "figure_5", "figure_6"])
def test_tables_are_tidy(smoke, name):
    table = pd.read_csv(smoke / "figures/smoke" / f"{name}.csv")
    assert set(table.columns) >= COLUMNS
    assert table[["value", "standard_error", "n", "chance"]].notna().all().all()
    point = ["model", "strategy", "treatment", "block_start", "block_size", "task"]
    assert not table.duplicated(point).any()
    assert set(table.treatment) == {"unpruned", "unhealed", "healed"}


AGAIN = ("03", "07", "10", "11", "12", "14")
DRAW = """
import sys, nbformat
for file in sys.argv[1:]:
    names = {}
    for cell in nbformat.read(file, 4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            names["PROFILE"] = "smoke"
"""


def test_a_second_run_only_draws(smoke):
    """Of one process that runs the cells of all, which starts once; with as many threads."""
    results = {p: p.stat().st_mtime_ns for p in smoke.rglob("data/results/**/*.json")}
    tables = {p: p.read_bytes() for p in smoke.rglob("figures/**/*.csv")}
    assert results and tables
    files = [paths.NOTEBOOKS / f"{notebooks.NOTEBOOKS[n].file}.ipynb" for n in AGAIN]
    environment = {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))} | os.environ
    environment |= {"DEEPER_LAYERS_OUTPUT": str(smoke), "PYTHONPATH": str(paths.ROOT)}
    command = [sys.executable, "-c", DRAW, *map(str, files)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    assert {p: p.stat().st_mtime_ns for p in smoke.rglob("data/results/**/*.json")} == results
    assert {p: p.read_bytes() for p in smoke.rglob("figures/**/*.csv")} == tables


def test_missing_ray_ends_it_before_anything_is_fetched(output, capsys, monkeypatch):
    monkeypatch.setattr("replication.__main__.find_spec", lambda name: None)
    assert main(["--profile", "smoke", "--engine", "ray"]) == 2
    assert "--engine ray needs Ray" in capsys.readouterr().err
    assert list(output.iterdir()) == []


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


@pytest.mark.parametrize(
    "given, seen",
    [(None, "0"), ("2,3", "2"), ("GPU-8b2c,GPU-11", "GPU-8b2c"), ("5", "5"), ("", "")],
)
def test_a_kernel_sees_one_gpu(monkeypatch, given, seen):
    """The first of those that are visible; none where all are hidden."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    with execution._environment(Launch(notebooks.NOTEBOOKS["01"])):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == given


def test_a_relative_folder_is_the_same_from_everywhere(tmp_path):
    """Jobs and kernels start in the checkout."""
    command = [sys.executable, "-c", "from replication import paths; print(paths.FIGURES)"]
    code = f"from replication import paths; import subprocess; subprocess.run({command}, cwd='/')"
    environment = {"DEEPER_LAYERS_FIGURES": "pictures", "PYTHONPATH": str(paths.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(tmp_path / "pictures"), done.stderr


def test_a_gpus_memory_grows_in_segments():
    """Set before torch starts, for old and new releases of it; somebody's own setting stays."""
    code = "import os, lib; print([os.getenv(f'PYTORCH_{n}ALLOC_CONF') for n in ('', 'CUDA_')])"
    others = {k: v for k, v in os.environ.items() if not k.endswith("ALLOC_CONF")}
    growing, own = "expandable_segments:True", "backend:cudaMallocAsync"
    cases = [
        ({}, [growing, growing]),
        ({"PYTORCH_ALLOC_CONF": own}, [own, None]),
        ({"PYTORCH_CUDA_ALLOC_CONF": own}, [None, own]),
    ]
    for given, expected in cases:
        done = subprocess.run(
            [sys.executable, "-c", code], env=others | given, capture_output=True, text=True
        )
        assert done.stdout.strip() == str(expected)


def test_cublas_is_set_before_torch_starts():
    """By whatever of lib is imported first; somebody's own setting stays."""
    code = "import os, lib; print(os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    others = {k: v for k, v in os.environ.items() if k != "CUBLAS_WORKSPACE_CONFIG"}
    for given, expected in (({}, ":4096:8"), ({"CUBLAS_WORKSPACE_CONFIG": ":16:8"}, ":16:8")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=others | given, capture_output=True, text=True
        )
        assert done.stdout.strip() == expected


@pytest.mark.parametrize("fault", processes.QUICK, ids=lambda fault: fault.fault)
def test_faults_of_processes(tmp_path, fault):
    assert fault.check(tmp_path / "ä run")


@pytest.mark.parametrize("file", sorted(paths.NOTEBOOKS.glob("*.ipynb")), ids=lambda p: p.stem)
def test_committed_notebooks_are_clean(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
            assert len(cell.source.splitlines()) <= 15
    assert file.stem in {n.file for n in notebooks.NOTEBOOKS.values()}


def test_repository_is_complete_and_small():
    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=paths.ROOT, capture_output=True, text=True)
        return done.stdout.splitlines()

    modules = [
        file for room in ("lib", "replication") for file in (paths.ROOT / room).rglob("*.py")
    ]
    assert git("check-ignore", *map(str, modules)) == []
    for name in git("ls-files"):
        assert (paths.ROOT / name).stat().st_size < 2_000_000, name
        assert "/" in name or "." in name or name in ("LICENSE", "Makefile"), "a run's leftover"


def test_killed_in_the_middle_of_a_healing_and_continued(smoke, tmp_path):
    """kill -9 of runner and kernel; the next run does what is missing and ends with the same."""
    only = ("--profile", "smoke", "--only")
    environment = os.environ | {"DEEPER_LAYERS_OUTPUT": str(tmp_path)}
    runner = subprocess.Popen(
        [sys.executable, "-m", "replication", *only, "03"],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list(tmp_path.glob("data/results/adapters/*/checkpoint-*")):
        assert runner.poll() is None
        time.sleep(0.02)
    os.killpg(runner.pid, signal.SIGKILL)
    for kernel in psutil.process_iter(["cmdline", "environ"]):  # kernels have their own session
        if (kernel.info["environ"] or {}).get("DEEPER_LAYERS_OUTPUT") == str(tmp_path):
            kernel.kill()
    runner.wait()
    assert not (tmp_path / "papermill_runs/smoke/03_healing.ipynb").exists()
    done = {p: p.stat().st_mtime_ns for p in tmp_path.glob("data/results/*/*/*.json")}
    assert launch(tmp_path, *only, "01", "03").returncode == 0
    assert {p: p.stat().st_mtime_ns for p in done} == done
    for name in ("figure_1d", "figure_2", "figure_3", "figure_4", "figure_6"):
        again, once = (f / "figures/smoke" / f"{name}.csv" for f in (tmp_path, smoke))
        assert again.read_bytes() == once.read_bytes(), name
