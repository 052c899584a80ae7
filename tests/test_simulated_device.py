"""What a GPU would refuse: tests of the method on a device simulated on the CPU.

They are those of simulated_device/tests.txt, in a process of their own, as PyTorch cannot forget a
device; and in that process those of this file that ask for the device. `make gpu` runs the same
list on CUDA.
"""

import os
import subprocess
import sys

import nbformat
import pytest
import simulated_device
from conftest import DEVICE

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import sections
from lib.models import registry
from replication import paths, profiles
from replication.run import jobs, measuring, stored
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


@pytest.mark.real
@on_the_device
def test_every_job_and_every_cell(output):
    """Of the smallest profile; cells then find what the jobs have measured."""
    profile = profiles.get("smoke", limit=2)
    (model,) = profile.models
    starts = stored.AssumedStarts(registry.num_layers(model))
    for job in jobs.by_job(model, profile, NOTEBOOKS, starts):
        assert measuring.run_job(job, profile, NOTEBOOKS).status == "ok", job.name
    for of in NOTEBOOKS.values():
        cells = nbformat.read(paths.NOTEBOOKS / f"{of.file}.ipynb", 4).cells
        parameters, *sources = [cell.source for cell in cells if cell.cell_type == "code"]
        names = {"display": str}
        for source in (parameters, "PROFILE, LIMIT = 'smoke', 2", *sources):
            exec(compile(source, of.file, "exec"), names)
