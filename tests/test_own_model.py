"""A reader's own model: a .gguf file, a folder and a hub id, by paths from where they are."""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from conftest import stored, tiny

from lib.data import wheels
from replication import __main__ as run
from replication import paths, profiles


def test_a_folder_is_one_model_for_the_command_its_jobs_and_a_kernel(tmp_path, monkeypatch):
    """Also one that is called as on the hub; jobs and kernels start in the checkout."""
    stored(tiny("llama"), tmp_path / "my-org" / "my-model")
    batches = []
    monkeypatch.setattr(run, "run", lambda batch, engine: batches.append(batch) or 0)
    monkeypatch.chdir(tmp_path)
    assert run.main(["--profile", "smoke", "--models", "my-org/my-model", "--only", "01"]) == 0
    (batch,) = batches
    monkeypatch.chdir(paths.ROOT)
    kernels = profiles.get("smoke", batch.parameters["MODELS"])
    jobs = run.arguments([*batch.command[len(run.COMMAND) :], "--job", "my-model-map"]).models
    assert batch.profile == kernels and list(kernels.models) == jobs
    assert jobs == [str(tmp_path / "my-org" / "my-model")]


@pytest.mark.real
def test_gguf_folder_and_hub_id(tmp_path):
    """In notebook 01; the figures of the profile's own models stay as they are."""
    gguf = tmp_path / "my model.gguf"
    gguf.symlink_to(wheels.path("smollm2-135m"))
    folder = stored(tiny("qwen3"), tmp_path / "my-org" / "my model")
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "cache/hub/models--someone--something"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text(commit)
    shutil.copytree(folder, cached / "snapshots" / commit)
    names = [str(gguf), str(folder), "someone/something"]
    relative = ["my model.gguf", "my-org/my model", "someone/something"]
    command = [sys.executable, "-m", "replication", "--profile", "quick", "--only", "01"]
    environment = os.environ | {
        "DEEPER_LAYERS_OUTPUT": str(tmp_path / "out"),
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [*command, "--limit", "4", "--models", *relative],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "out/figures").iterdir()
    assert folder.name == "quick-my-model.gguf-my-model-something"
    table = pd.read_csv(folder / "figure_4.csv")
    sizes = table.groupby("model").block_size.max().to_dict()
    assert sizes == dict(zip(names, (29, 5, 5), strict=True))
    one, other = (table[table.model == name].value for name in names[1:])
    assert (one.to_numpy() == other.to_numpy()).all()  # the same weights by two ways
