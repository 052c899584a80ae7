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

import numpy as np
import pytest
import simulated_device
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from conftest import DEVICE, stored, wide_llama
from test_packed_healing import BLOCK, RECIPE, WEIGHTS

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import random_model, sections
from lib.data import sets
from lib.healing import packing, training
from lib.models import loading
from lib.pruning import dropped, save_pruned
from replication import paths
from replication.measure import latency

on_the_cpu = pytest.mark.skipif(DEVICE != "cpu", reason="starts the process of the device")
on_the_device = pytest.mark.skipif(DEVICE != "sim", reason="asks for the simulated device")

pytestmark = pytest.mark.usefixtures("few_articles")


@on_the_cpu
@pytest.mark.skipif(bool(simulated_device.missing()), reason=simulated_device.missing())
def test_the_method_on_the_device():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command.append(f"@{simulated_device.HERE / 'tests.txt'}")
    environment = os.environ | {"DEEPER_LAYERS_DEVICE": "sim"}
    done = subprocess.run(command, cwd=paths.ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-9000:] + done.stderr[-999:]


# ---- the device's own rules ----------------------------------------------------------------


@on_the_device
def test_tensors_of_two_devices_do_not_meet():
    ours, theirs = torch.ones(3, 3, device="sim"), torch.ones(3, 3)
    ids = torch.zeros(2, dtype=torch.long)
    mixed = [
        lambda: ours + theirs,
        lambda: ours.gather(1, ids[:, None]),
        lambda: torch.nn.functional.embedding(ids, ours),
    ]
    for operation in mixed:
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            operation()
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, device="sim", generator=torch.Generator())
    with pytest.raises(TypeError, match="can't convert sim:0"):
        np.asarray(ours)
    assert torch.equal(ours[ids].cpu() * 2, theirs[ids] * torch.tensor(2.0))  # CUDA allows these
    drawn = torch.randn(9, device="sim", generator=torch.Generator("sim").manual_seed(1))
    assert torch.equal(drawn.cpu(), torch.randn(9, generator=torch.Generator().manual_seed(1)))


@on_the_device
def test_memory_is_counted_and_ends():
    held = torch.sim.memory_allocated()
    block = torch.ones(1000, device="sim")
    assert torch.sim.memory_allocated() == held + 4000
    with simulated_device.at_most(3999), pytest.raises(torch.OutOfMemoryError):
        torch.ones(1000, device="sim")
    torch.sim.reset_peak_memory_stats()
    del block
    assert torch.sim.memory_allocated() == held
    assert torch.sim.max_memory_allocated() == held + 4000


# ---- memory that ends ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    return str(stored(wide_llama(), tmp_path_factory.mktemp("wide")))


@on_the_device
def test_nf4_is_unpacked_where_a_third_of_the_memory_is_enough(name, monkeypatch):
    """The values stay. Asked to stay packed, or to multiply in bf16 what is in fp32, it does."""
    whole = 2 * wide_llama().num_parameters()
    packed, _ = loading.load(name, quantization="nf4", dtype="bfloat16")
    linear = {n: m for n, m in packed.named_modules() if isinstance(m, Linear4bit)}
    monkeypatch.setattr(loading, "UNPACKED", 1 / 3)
    cases = [
        (3 * whole + 1, {}, True),
        (3 * whole - 1, {}, False),
        (3 * whole + 1, {"packed": True}, False),
        (6 * whole + 1, {"dtype": "float32"}, False),
    ]
    for memory, options, expected in cases:
        monkeypatch.setattr(loading, "_gpu_memory", lambda device, memory=memory: memory)
        options = {"quantization": "nf4", "dtype": "bfloat16"} | options
        model, _ = loading.load(name, **options)
        assert (torch.uint8 not in {p.dtype for p in model.parameters()}) == expected, options
        for path, module in linear.items() if expected else ():
            values = dequantize_4bit(module.weight.data, module.weight.quant_state)
            assert torch.equal(model.get_submodule(path).weight, values), path


@on_the_device
def test_healing_out_of_memory(name, tmp_path, monkeypatch):
    """The longest documents come last: with room for 4 at a time, no step of 8 is made in vain."""
    model, tokenizer = loading.load(name, quantization="nf4", dtype="bfloat16")
    recipe, steps, peaks = replace(RECIPE, steps=2, batch=8, max_tokens=64), [], {}
    real, step = packing.training_sequences, training._Watch.on_step_end

    def longest_last(*arguments):
        sequences, epochs = real(*arguments)
        return sorted(sequences, key=lambda s: packing.real_tokens([s])), epochs

    def counted(self, args, state, *rest, **kwargs):
        steps.append(state.global_step)
        step(self, args, state, *rest, **kwargs)

    def healed(folder: str, micro: int = 8) -> training.Healed:
        torch.sim.reset_peak_memory_stats()
        with dropped(model, BLOCK):
            result = training.heal(model, tokenizer, recipe, tmp_path / folder, micro)
        peaks[micro] = torch.sim.max_memory_allocated() - held
        assert comes_back(held)
        return result

    monkeypatch.setattr(packing, "training_sequences", longest_last)
    monkeypatch.setattr(training._Watch, "on_step_end", counted)
    gc.collect()
    held = torch.sim.memory_allocated()
    healed("8")
    whole = healed("4", 4)
    with monkeypatch.context() as patch:
        patch.setattr(training, "_raises", lambda device: False)
        untried = healed("untried", 4)
    assert untried.losses == whole.losses and weights(untried) == weights(whole)
    steps.clear()
    with simulated_device.at_most((peaks[8] + peaks[4]) // 2):
        halved = healed("halved")
    assert halved.micro_batch == whole.micro_batch == 4 and halved.losses == whole.losses
    assert steps == [1, 2]
    assert weights(halved) == weights(whole)
    with simulated_device.at_most(peaks[4] // 16):
        assert healed("none").status == "oom"


@on_the_device
def test_a_model_is_saved_where_a_second_one_has_no_room(tmp_path):
    name = str(stored(wide_llama(num_hidden_layers=10), tmp_path / "model"))
    model, tokenizer = loading.load(name, dtype="bfloat16")
    with simulated_device.at_most(latency.weight_bytes(model) * 2 // 3):
        save_pruned(model, tokenizer, BLOCK, tmp_path / "pruned")


def weights(healed: training.Healed) -> bytes:
    return (healed.adapter / WEIGHTS).read_bytes()


def comes_back(held: int) -> bool:
    """Whether the device holds that many bytes again; a thread of autograd may still let go."""
    for _ in range(100):
        gc.collect()
        if torch.sim.memory_allocated() == held:
            return True
        time.sleep(0.1)
    return False


@on_the_device
def test_make_gpu(tmp_path, monkeypatch):
    """Its sections, with memory that is counted; a healing's from the attempt that had room."""
    bench = gpu.bench(tmp_path / "work", tiny=True)
    kinds = (sections.load, sections.distances, sections.sweeps)
    assert gpu.measure(bench, dict.fromkeys(kinds, 60), budget=60) == []
    assert all(row.measured.peak for row in bench.rows[1:])
    recipe, texts = replace(RECIPE, batch=4, max_tokens=64), random_model.texts(96, 64, 16)
    monkeypatch.setattr(sets, "healing_texts", lambda source, count: texts)
    _, took = sections.healing.heal(bench, recipe, tmp_path / "2", 2)
    with simulated_device.at_most(took.peak * 5 // 4):
        healed, limited = sections.healing.heal(bench, recipe, tmp_path / "4", 4)
    assert healed.micro_batch == 2 and took.seconds and limited.seconds
    assert limited.peak == pytest.approx(took.peak, rel=0.02)
