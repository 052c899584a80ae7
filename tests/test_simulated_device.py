"""What a GPU would refuse: tests of the method on a device simulated on the CPU.

They are those of simulated_device/tests.txt, in a process of their own, as PyTorch cannot forget a
device; and in that process those of this file that ask for the device. `make gpu` runs the same
list on CUDA.
"""

import gc
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import simulated_device
import torch
from conftest import DEVICE, stored, wide_llama
from test_healing import weights
from test_packed import RECIPE, heal

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import sections
from lib.healing import packing, training
from lib.models import loading
from replication import paths

on_the_device = pytest.mark.skipif(DEVICE != "sim", reason="asks for the simulated device")

pytestmark = pytest.mark.usefixtures("few_articles")


@pytest.mark.skipif(DEVICE != "cpu", reason="starts the process of the device")
@pytest.mark.skipif(bool(simulated_device.missing()), reason=simulated_device.missing())
def test_the_method_on_the_device():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command.append(f"@{simulated_device.HERE / 'tests.txt'}")
    environment = os.environ | {"DEEPER_LAYERS_DEVICE": "sim"}
    done = subprocess.run(command, cwd=paths.ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-9000:] + done.stderr[-999:]


@on_the_device
def test_the_device_has_the_rules_of_a_gpu():
    """Tensors of two devices do not meet, and memory ends."""
    ours, theirs = torch.ones(3, 3, device="sim"), torch.ones(3, 3)
    ids = torch.zeros(2, dtype=torch.long)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        ours + theirs
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        torch.nn.functional.embedding(ids, ours)
    assert torch.equal(ours[ids].cpu() * 2, theirs[ids] * torch.tensor(2.0))  # CUDA allows these
    held = torch.sim.memory_allocated()
    block = torch.ones(1000, device="sim")
    assert torch.sim.memory_allocated() == held + 4000
    with simulated_device.at_most(3999), pytest.raises(torch.OutOfMemoryError):
        torch.ones(1000, device="sim")
    torch.sim.reset_peak_memory_stats()
    del block
    assert torch.sim.memory_allocated() == held
    assert torch.sim.max_memory_allocated() == held + 4000


@on_the_device
def test_healing_out_of_memory(tmp_path, monkeypatch):
    """The longest documents come last: with room for 4 at a time, no step of 8 is made in vain."""
    name = str(stored(wide_llama(), tmp_path / "model"))
    base = loading.load(name, quantization="nf4", dtype="bfloat16")
    recipe, steps, peaks = replace(RECIPE, steps=2, max_tokens=64), [], {}
    sequences_of, on_step_end = packing.training_sequences, training._Watch.on_step_end

    def longest_last(*arguments):
        sequences, epochs = sequences_of(*arguments)
        return sorted(sequences, key=lambda s: packing.real_tokens([s])), epochs

    def noted(self, args, state, *rest, **kwargs):
        steps.append(state.global_step)
        on_step_end(self, args, state, *rest, **kwargs)

    monkeypatch.setattr(packing, "training_sequences", longest_last)
    gc.collect()
    held = torch.sim.memory_allocated()
    for micro in (8, 4):
        torch.sim.reset_peak_memory_stats()
        whole = heal(base, tmp_path / str(micro), recipe, micro_batch=micro)
        peaks[micro] = torch.sim.max_memory_allocated() - held
        assert comes_back(held)
    monkeypatch.setattr(training._Watch, "on_step_end", noted)
    with simulated_device.at_most((peaks[8] + peaks[4]) // 2):
        halved = heal(base, tmp_path / "halved", recipe)
    assert halved.micro_batch == 4 and steps == [1, 2]
    assert halved.losses == whole.losses and weights(halved) == weights(whole)


def comes_back(held: int) -> bool:
    """Return whether the device holds that many bytes again; autograd's thread may be late."""
    for _ in range(100):
        gc.collect()
        if torch.sim.memory_allocated() == held:
            return True
        time.sleep(0.1)
    return False


@on_the_device
def test_make_gpu(tmp_path):
    bench = gpu.bench(tmp_path / "work", tiny=True)
    kinds = (sections.load, sections.distances, sections.sweeps)
    assert gpu.measure(bench, dict.fromkeys(kinds, 600), budget=600) == []
    assert all(row.measured.peak for row in bench.rows[1:])
