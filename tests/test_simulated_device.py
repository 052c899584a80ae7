"""What a GPU would refuse: tests of the method on a device simulated on the CPU.

They are those of simulated_device/tests.txt, in a process of their own, as PyTorch cannot forget a
device; and in that process those of this file that ask for the device. `make gpu` runs the same
list on CUDA.
"""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import nbformat
import pytest
import simulated_device
import torch
from conftest import DEVICE, letters, tiny

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import sections
from lib.gpu import norms
from lib.healing import training
from lib.models import registry
from replication import paths, profiles
from replication.run import job_results, job_worker, jobs
from replication.run.notebooks import NOTEBOOKS

on_the_device = pytest.mark.skipif(DEVICE != "sim", reason="asks for the simulated device")


@pytest.mark.real
@pytest.mark.skipif(DEVICE != "cpu", reason="starts the process of the device")
@pytest.mark.skipif(bool(simulated_device.missing()), reason=simulated_device.missing())
def test_the_method_on_the_device():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command.append(f"@{simulated_device.HERE / 'tests.txt'}")
    environment = os.environ | {"DEEPER_LAYERS_DEVICE": "sim"}
    done = subprocess.run(command, cwd=paths.ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-9000:] + done.stderr[-999:]


@on_the_device
def test_make_gpu(tmp_path):
    bench = gpu.bench(tmp_path / "work", tiny=True)
    kinds = (sections.load, sections.distances, sections.sweeps)
    assert gpu.measure(bench, dict.fromkeys(kinds, 600), budget=600) == []
    assert all(row.measured.peak for row in bench.rows[1:])


# ---- healing -------------------------------------------------------------------------------

NORMED = ("llama", "phi", "gpt2", "gpt_neox", "bloom")  # RMS norms, and layer norms
RECIPE = profiles.recipe("tiny-random", profiles.get("smoke"), steps=3, warmup_steps=1)
RECIPE = replace(RECIPE, batch=4, max_tokens=64)


@on_the_device
@pytest.mark.parametrize("name", NORMED)
def test_training_keeps_16_bits_of_each_number(name, tmp_path):
    """Of states and in FFNs, by their widths: as planned, by `counting.layer_costs`."""
    model, kept = tiny(name).bfloat16(), []
    norms.fuse_norms(model)

    def note(tensor):
        is_state = tensor.ndim == 3 and tensor.shape[-1] in (32, 48, 128)
        if is_state and tensor.device.type == DEVICE:
            kept.append(tensor.dtype)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        healed = training.heal(model, letters(), RECIPE, tmp_path / "healed", micro_batch=2)
    assert healed.status == "ok" and kept.count(torch.bfloat16) > 100
    assert torch.float32 not in kept


@on_the_device
def test_a_step_waits_twice_for_the_device(base, tmp_path, monkeypatch):
    """For its loss and for the length of its gradient, however many rows and layers there are."""
    waits, on_step_begin = [], training.CheckpointCallback.on_step_begin

    def note(*arguments, **kwargs):
        waits.append(torch.sim.waits())
        return on_step_begin(*arguments, **kwargs)

    monkeypatch.setattr(training.CheckpointCallback, "on_step_begin", note)
    monkeypatch.setattr(training, "CHECKPOINTS", 1)  # at the end
    healed = training.heal(*base, RECIPE, tmp_path / "healed", micro_batch=2)
    assert healed.joined
    assert [later - earlier for earlier, later in pairwise(waits)] == [2, 2]


@pytest.mark.real
@on_the_device
def test_every_job_and_every_cell(output):
    """Of the smallest profile; cells then find what the jobs have measured."""
    profile = profiles.get("smoke", limit=2)
    (model,) = profile.models
    starts = job_results.AssumedStarts(registry.num_layers(model))
    for job in jobs.by_job(model, profile, NOTEBOOKS, starts):
        assert job_worker.run_job(job, profile, NOTEBOOKS).status == "ok", job.name
    for of in NOTEBOOKS.values():
        cells = nbformat.read(paths.NOTEBOOKS / f"{of.file}.ipynb", 4).cells
        parameters, *sources = [cell.source for cell in cells if cell.cell_type == "code"]
        names = {"display": str}
        for source in (parameters, "PROFILE, LIMIT = 'smoke', 2", *sources):
            exec(compile(source, of.file, "exec"), names)
