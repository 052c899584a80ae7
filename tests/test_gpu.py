"""`make gpu` where it ends early, what it keeps, and tests that leave a GPU alone."""

import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.bench import Bench, Measured
from replication import plan, profiles


def test_a_card_reaches_the_share_that_was_measured(tmp_path, monkeypatch):
    """Of all forward passes together, and of all steps of healing; other rows stay."""
    before = plan.cards()
    card = before["a100-80"]
    bench = Bench("any", {}, profiles.get("paper"), card, False)
    for kind, flops, share in [("scores", 6e15, 0.5), ("scores", 2e15, 0.5), ("healing", 6e15, 2)]:
        work = plan.Work(kind, flops, moved=1e12, weights=1e12, memory=0)
        measured = Measured(card.seconds(work) / share)
        bench.planned(kind, measured, work)
    file = tmp_path / "cards.csv"
    gpu.keep(gpu.measured_card(bench), file)
    monkeypatch.setattr(plan, "CARDS", file)
    after = plan.cards()
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
    "NVIDIA L4": "l4",
    "Tesla T4": "t4",
    "NVIDIA H200": "h200",
}


def test_nvidia_smis_name_of_a_card_leads_to_its_row():
    assert {name: plan.get_card(name).name for name in NAMES} == NAMES
    for other in ("NVIDIA GH200 480GB", "NVIDIA A10G", "NVIDIA GeForce RTX 4090 Laptop GPU"):
        with pytest.raises(ValueError, match="Unknown card"):
            plan.get_card(other)
