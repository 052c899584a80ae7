"""`make gpu` where it ends early, what it keeps, and tests that leave a GPU alone."""

from types import SimpleNamespace

import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.bench import Bench, Measured
from lib import cards
from lib.models import machine
from replication import profiles


def test_a_card_reaches_the_share_that_was_measured(tmp_path, monkeypatch):
    """Of all forward passes together, and of all steps of healing; other rows stay."""
    before = cards.known_cards()
    card = before["a100-80"]
    bench = Bench("any", {}, profiles.get("paper"), card, False)
    for kind, flops, share in [("scores", 6e15, 0.5), ("scores", 2e15, 0.5), ("healing", 6e15, 2)]:
        work = cards.Work(kind, flops, moved=1e12, weights=1e12, memory=0)
        measured = Measured(card.seconds(work) / share)
        bench.planned(kind, measured, work)
    file = tmp_path / "cards.csv"
    gpu.keep(gpu.measured_card(bench), file)
    monkeypatch.setattr(cards, "CARDS", file)
    after = cards.known_cards()
    changed = after["a100-80"]
    assert changed.source.startswith("measured by `make gpu`")
    expected = card._replace(forward=0.5, training=2, source=changed.source)
    assert after == before | {"a100-80": expected}


NAMES = {
    "NVIDIA A100-SXM4-80GB": "a100-80",
    "NVIDIA A100-PCIE-40GB": "a100-40",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H100 PCIe": "h100-pcie",
    "NVIDIA H100 NVL": "h100-nvl",
    "NVIDIA L40S": "l40s",
    "NVIDIA GeForce RTX 4090": "4090",
    "NVIDIA GeForce RTX 3090": "3090",
    "NVIDIA A10": "a10",
    "NVIDIA A10G": "a10g",
    "NVIDIA RTX A6000": "a6000",
    "NVIDIA GeForce RTX 5090": "5090",
    "NVIDIA B200": "b200",
    "NVIDIA L4": "l4",
    "Tesla T4": "t4",
    "NVIDIA H200": "h200",
}


def test_nvidia_smis_name_of_a_card_leads_to_its_row():
    assert {name: cards.get_card(name).name for name in NAMES} == NAMES
    parts = [f"{name} MIG 3g.40gb" for name in NAMES]
    for other in (
        "NVIDIA GH200 480GB",
        "NVIDIA GB200",
        *parts,
        "NVIDIA GeForce RTX 4090 Laptop GPU",
    ):
        with pytest.raises(ValueError, match="Unknown card"):
            cards.get_card(other)


LISTED = """\
GPU 0: NVIDIA A100 80GB PCIe (UUID: GPU-5c89852c)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-1a2b3c4d)
  MIG 3g.40gb     Device  0: (UUID: MIG-c7384736-a75d)
  MIG 1g.10gb     Device  1: (UUID: MIG-a28ad590-3fda)
GPU 2: Tesla T4 (UUID: GPU-9d8e7f6a)
"""
FIRST = {
    "0": "NVIDIA A100 80GB PCIe",
    "1": "NVIDIA A100-SXM4-80GB MIG 3g.40gb",
    "2,0": "Tesla T4",
    "3": None,
    "GPU-9d8e7f6a": "Tesla T4",
    "MIG-a28ad590": "NVIDIA A100-SXM4-80GB MIG 1g.10gb",
    "MIG-c7384736-a75d,MIG-a28ad590-3fda": "NVIDIA A100-SXM4-80GB MIG 3g.40gb",
    "": None,
}


def test_the_card_at_hand_is_the_first_that_may_be_used_or_a_part_of_it(monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda name: name)
    said = SimpleNamespace(stdout=LISTED)
    monkeypatch.setattr(machine.subprocess, "run", lambda *_, **__: said)
    monkeypatch.setattr(machine, "listed_gpus", machine.listed_gpus.__wrapped__)
    for visible, name in FIRST.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert machine.gpu_at_hand() == name, visible
