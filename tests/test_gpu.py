"""`make gpu` where it ends early, what it keeps, and tests that leave a GPU alone."""

import os
import shutil
import time
from types import SimpleNamespace

import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.bench import HEADER, Bench, Measured, Row
from replication import plan, profiles


def test_without_room_on_the_disk_it_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1e9))
    monkeypatch.setattr(gpu, "WORK", tmp_path / "work")
    assert gpu.main([]) == 2
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


def test_a_card_reaches_the_share_that_was_measured(tmp_path, monkeypatch):
    """Of all forward passes together, and of all steps of healing; other rows stay."""
    card = plan.get_card("a100-80")
    bench = Bench("any", 10, profiles.get("paper"), card, False)
    for kind, flops, share in [("scores", 6e15, 0.5), ("scores", 2e15, 0.5), ("healing", 6e15, 2)]:
        work = plan.Work(kind, 1, flops, moved=1e12, weights=1e12, memory=0)
        bench.planned(kind, Measured(card.seconds(work) / share), work)
    before, file = plan.cards(), tmp_path / "cards.csv"
    gpu.keep(gpu.measured_card(bench), file)
    monkeypatch.setattr(plan, "CARDS", file)
    after = plan.cards()
    changed = after.pop("a100-80")
    assert changed.source.startswith("measured by `make gpu`")
    assert changed == card._replace(forward=0.5, training=2, source=changed.source)
    assert after == {name: row for name, row in before.items() if name != "a100-80"}


def test_no_test_sees_a_gpu():
    """Nor does a process that a test starts, as a notebook's kernel: they inherit it."""
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "" and torch.cuda.device_count() == 0
