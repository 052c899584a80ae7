"""`make gpu` rehearsed on a CPU, and tests that leave a GPU alone."""

import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.bench import HEADER, Row
from replication import paths


def test_the_tiny_shape_on_a_cpu(tmp_path):
    """Every section ends well and leaves its rows; the folder it worked in is gone."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--work", str(tmp_path / "work")]
    environment = os.environ | {"TQDM_DISABLE": "1"}
    done = subprocess.run(command, cwd=paths.ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "Nothing failed."
    table = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    rows = {cells[0].removeprefix("| "): cells[1:] for cells in table}
    assert all(rows[what][0] and rows[what][1] for what in ("distances", "sweep c4", "sweep mmlu"))
    steps = [cells for what, cells in rows.items() if what.startswith("a step of")]
    assert len(steps) == 6 and all(", ok, losses" in cells[-1] for cells in steps)
    assert not (tmp_path / "work").exists() and not list(tmp_path.glob("*"))
    assert not list((paths.ROOT / "benchmarks" / "results").glob("gpu-*no*"))


def test_without_room_on_the_disk_it_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1e9))
    assert gpu.main(["--work", str(tmp_path / "work")]) == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert "disk" in sentence and not (tmp_path / "work").exists()


def test_a_section_ends_alone():
    """One that fails, and one that takes too long: those after them run, and each has a row."""

    def fails(bench):
        raise ValueError("inside\nmore")

    def hangs(bench):
        time.sleep(60)

    def ends(bench):
        bench.add(Row("last"))

    bench = SimpleNamespace(rows=[])
    bench.add = bench.rows.append
    failed = gpu.measure(bench, {fails: 9, hangs: 0.1, ends: 9}, budget=50)
    assert failed == ["fails"]
    assert [row.what for row in bench.rows] == ["fails", "hangs", "last"]
    assert "ValueError: inside" in bench.rows[0].note
    assert all(len(row.cells()) == len(HEADER) for row in bench.rows)


def test_no_test_sees_a_gpu():
    """Nor does a process that a test starts, as a notebook's kernel: they compute on the CPU."""
    code = "import os, torch; print([os.getenv('CUDA_VISIBLE_DEVICES'), torch.cuda.device_count()])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "['', 0]", done.stderr
    assert not torch.cuda.is_available()
