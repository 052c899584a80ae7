"""`make gpu` where it ends early, and tests that leave a GPU alone."""

import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.bench import HEADER, Row


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
    assert gpu.measure(bench, {fails: 9, hangs: 0.1, ends: 9}, budget=50) == ["fails"]
    assert [row.what for row in bench.rows] == ["fails", "hangs", "last"]
    assert "ValueError: inside" in bench.rows[0].note
    assert all(len(row.cells()) == len(HEADER) for row in bench.rows)


def test_no_test_sees_a_gpu():
    """Nor does a process that a test starts, as a notebook's kernel: they compute on the CPU."""
    code = "import os, torch; print([os.getenv('CUDA_VISIBLE_DEVICES'), torch.cuda.device_count()])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "['', 0]", done.stderr
