"""A reader's own model: a .gguf file, a folder and a hub id, by paths from where they are."""

import shutil

import pandas as pd
import pytest
from conftest import replicate, stored, tiny

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
    (tmp_path / "my model.gguf").symlink_to(wheels.path("smollm2-135m"))
    folder = stored(tiny("qwen3"), tmp_path / "my-org" / "my model")
    cached = tmp_path / "cache/hub/models--someone--something"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("a" * 40)
    shutil.copytree(folder, cached / "snapshots" / ("a" * 40))
    models = ("my model.gguf", "my-org/my model", "someone/something")
    options = ("--profile", "quick", "--only", "01", "--limit", "4", "--models", *models)
    done = replicate(tmp_path / "out", *options, cwd=tmp_path, HF_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    (figures,) = (tmp_path / "out/figures").iterdir()
    assert figures.name == "quick-my-model.gguf-my-model-something"
    maps = dict(list(pd.read_csv(figures / "figure_4.csv").groupby("model").value))
    names = [*(str(tmp_path / name) for name in models[:2]), models[2]]
    assert [len(maps[name]) for name in names] == [464, 20, 20]  # blocks of 30 and of 6 layers
    assert maps[names[1]].tolist() == maps[names[2]].tolist()  # the same weights by two ways
