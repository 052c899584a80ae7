"""A reader's own model in notebook 01: a .gguf file, a local folder and a hub id, in one run."""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from conftest import stored, tiny

from lib.data import wheels

pytestmark = pytest.mark.real


def test_gguf_folder_and_hub_id(tmp_path):
    gguf = tmp_path / "my model.gguf"
    gguf.symlink_to(wheels.path("smollm2-135m"))
    folder = stored(tiny("qwen3"), tmp_path / "my model")
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "cache/hub/models--someone--something"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text(commit)
    shutil.copytree(folder, cached / "snapshots" / commit)
    names = [str(gguf), str(folder), "someone/something"]
    command = [sys.executable, "-m", "replication", "--profile", "quick", "--only", "01"]
    environment = os.environ | {
        "DEEPER_LAYERS_OUTPUT": str(tmp_path / "out"),
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [*command, "--limit", "4", "--models", *names],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out/figures/quick/figure_4.csv")
    sizes = table.groupby("model").block_size.max().to_dict()
    assert sizes == dict(zip(names, (29, 5, 5), strict=True))
    one, other = (table[table.model == name].value for name in names[1:])
    assert (one.to_numpy() == other.to_numpy()).all()  # the same weights by two ways
