"""The card at hand, by what nvidia-smi says."""

import subprocess

import pytest

from replication import __main__ as run
from replication.plan import assumptions


@pytest.fixture
def smi(monkeypatch):
    """nvidia-smi answers as a test says."""
    answer = {}
    monkeypatch.setattr(assumptions.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(
        assumptions.subprocess,
        "run",
        lambda *args, **how: subprocess.CompletedProcess(
            args, answer.get("code", 0), answer["text"], ""
        ),
    )
    return answer


@pytest.mark.parametrize(
    "line, name",
    [
        ("NVIDIA A100-SXM4-40GB, 40960", "a100-40"),
        ("NVIDIA A100-SXM4-80GB, 81920", "a100-80"),
        ("NVIDIA H100 80GB HBM3, 81559", "h100"),
        ("NVIDIA H200, 143771", "h200"),
    ],
)
def test_known_cards(smi, line, name):
    smi["text"] = f"{line}\n{line}\n"
    assert assumptions.get() == assumptions.GPUS[name]


def test_a_card_of_another_size_is_planned_for_by_its_memory(smi):
    smi["text"] = "NVIDIA GH200 480GB, 97871\n"
    found = assumptions.get()
    assert found.rate == assumptions.GPUS["h200"].rate
    assert found.memory == pytest.approx((97871 / 1024 - assumptions.RUNTIME) * assumptions.GIB)
    assert found.name == "NVIDIA GH200 480GB"


@pytest.mark.parametrize(
    "code, text", [(0, "No devices were found\n"), (9, "no driver\n"), (0, "")]
)
def test_no_card_at_all_is_the_cpu(smi, code, text):
    smi |= {"code": code, "text": text}
    assert assumptions.get().on_cpu


@pytest.mark.parametrize("line", ["Tesla V100-SXM2-16GB, 16384", "NVIDIA H100, [N/A]"])
def test_a_card_that_is_not_known_is_one_sentence(smi, line, capsys, output):
    smi["text"] = line
    assert run.main(["--plan", "--only", "01"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("No rate is known for the GPU at hand") and said.count("\n") == 1
    assert "choose a card to plan for, one of a100-40, a100-80, h100, h200, cpu." in said
