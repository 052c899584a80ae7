"""What a GPU would refuse: tests of the method on a device simulated on the CPU.

They are those of simulated_device/tests.txt, in a process of their own, as PyTorch cannot forget a
device; and in that process those of this file that ask for the device. `make gpu` runs the same
list on CUDA.
"""

import os
import subprocess
import sys
import traceback
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import nbformat
import originals
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
from replication.measure import distance_maps
from replication.profiles import recipes
from replication.run import job_results, job_worker
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


@pytest.fixture
def waits(monkeypatch):
    """Of each healing on the device: how often it had waited when each of its steps began."""
    waits = []

    class Counting(training.CheckpointCallback):
        def on_train_begin(self, *arguments, **kwargs):
            waits.append([])
            super().on_train_begin(*arguments, **kwargs)

        def on_step_begin(self, *arguments, **kwargs):
            waits[-1].append(torch.sim.waits())

    monkeypatch.setattr(training, "CheckpointCallback", Counting)
    monkeypatch.setattr(training, "CHECKPOINTS", 1)  # at the end
    return waits


def waits_by_step(waits: list[list[int]]) -> dict[int, int]:
    """Return how many steps waited so often, but for the last one of each healing."""
    return Counter(later - before for healing in waits for before, later in pairwise(healing))


@on_the_device
def test_a_step_waits_twice_for_the_device(base, tmp_path, waits):
    """For its loss and for the length of its gradient, however many rows and layers there are."""
    healed = training.heal(*base, RECIPE, tmp_path / "healed", micro_batch=2)
    assert healed.joined
    assert waits_by_step(waits) == {2: RECIPE.steps - 1}


# ---- whole runs ----------------------------------------------------------------------------

SHORT = {
    **dict.fromkeys(("similarity_tokens", "c4_tokens", "damage_tokens", "heal_tokens"), 64),
    **{"cost_prompt_tokens": 64, "cost_new_tokens": 4, "cost_repeats": 3, "gsm8k_new_tokens": 4},
}
PAPERS = [number for number in NOTEBOOKS if number < "10"]
OURS = [number for number in NOTEBOOKS if number not in PAPERS]
RUNS = [  # profile, LIMIT, STEPS, notebooks, layers of the paper's models
    pytest.param("smoke", 2, None, NOTEBOOKS, None, id="smoke"),
    pytest.param("a100", 2, 2, NOTEBOOKS, 3, id="a100", marks=pytest.mark.long),
    pytest.param("paper", 2, 2, PAPERS, 3, id="paper", marks=pytest.mark.long),
    pytest.param("paper", 6, 2, OURS, 9, id="ours", marks=pytest.mark.long),
]


def put_tiny_copies(profile, layers: int, folder, monkeypatch) -> None:
    """Let a profile of the paper's models read tiny copies of them, and short texts."""
    sizes = {"num_hidden_layers": layers, "hidden_size": 64, "intermediate_size": 128}
    for name, size in sizes.items():  # rows of whole blocks of 64 weights
        monkeypatch.setitem(originals.SHARED, name, size)
    monkeypatch.setitem(profiles.PROFILES, profile.name, replace(profile, **SHORT))
    for recipe in recipes.PUBLISHED.values():
        monkeypatch.setitem(recipe, "max_tokens", SHORT["heal_tokens"])
    originals.lay_out(folder, 80, [registry.MODELS[model].source for model in profile.models])
    monkeypatch.setenv("DEEPER_LAYERS_MIRROR", str(folder / "hub"))


def status_of(job, profile, numbers) -> str:
    return job_worker.run_job(job, profile, numbers).status


def run_cells(notebook, settings: str) -> str:
    cells = nbformat.read(paths.NOTEBOOKS / f"{notebook.file}.ipynb", 4).cells
    parameters, *sources = [cell.source for cell in cells if cell.cell_type == "code"]
    names = {"display": str}
    for source in (parameters, settings, *sources):
        exec(compile(source, notebook.file, "exec"), names)
    return "ok"


class Ends(dict):
    """How jobs and notebooks ended, also those after one that failed."""

    def add(self, name: str, work, *arguments) -> None:
        try:
            self[name] = work(*arguments)
        except Exception as error:
            traceback.print_exc()
            self[name] = repr(error)
        print(f"{len(self)} {name}: {self[name]}", flush=True)


@pytest.mark.real
@on_the_device
@pytest.mark.parametrize("name, limit, steps, numbers, layers", RUNS)
def test_every_job_and_every_cell(name, limit, steps, numbers, layers, output, waits, monkeypatch):
    """Cells then find what the jobs have measured. A step of a healing waits twice, as above."""
    if layers:
        put_tiny_copies(profiles.PROFILES[name], layers, output, monkeypatch)
    profile, ends = profiles.get(name, limit=limit, steps=steps), Ends()
    for model in profile.models:
        distance_maps.of_model(model, profile)  # which says what jobs there are
        for job in job_results.jobs_of(model, profile, numbers):
            ends.add(job.name, status_of, job, profile, numbers)
    for number in numbers:
        settings = f"PROFILE, LIMIT, STEPS = {name!r}, {limit}, {steps}"
        ends.add(NOTEBOOKS[number].file, run_cells, NOTEBOOKS[number], settings)
    print(f"{len(waits)} healings; steps by their waits: {waits_by_step(waits)}")
    assert {name: end for name, end in ends.items() if end != "ok"} == {}
    assert set(waits_by_step(waits)) == {2}
