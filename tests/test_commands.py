"""Commands that the Makefile, a README or a notebook names exist, and refuse bad input.

Programs run in this process, as `python -m` runs them, so that few have to start PyTorch.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from replication import __main__ as run
from replication import paths
from replication.run import batch

pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")

MAKEFILE = paths.ROOT / "Makefile"
NAMES = ("Makefile", "*.md", "[!.]*/README.md", "*/*.ipynb", "replication/run/*.sbatch")
PAGES = [*chain(*map(paths.ROOT.glob, NAMES))]
PROGRAM = re.compile(r"python -m ((?:lib|replication|scripts|benchmarks)\b(?:\.\w+)*)")


def text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def start(module: str, *arguments: str) -> int:
    """Return the exit status of `python -m module`, run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *arguments])
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as end:
            return end.code or 0
    return 0


def test_what_pages_run_exists():
    everything = "\n".join(map(text, PAGES))
    for module in set(PROGRAM.findall(everything)):
        assert find_spec(module), module
    targets = re.findall(r"^([a-z][\w-]*)[:%]", text(MAKEFILE), re.MULTILINE)
    for name in re.findall(r"(?:`|^)make ([a-z][\w-]*)", everything, re.MULTILINE):
        assert name in targets or name.startswith("figure-"), name


def test_make_passes_its_variables_on():
    settings = ["PROFILE=smoke", "MODELS=tiny-random", "LIMIT=5", "STEPS=2", "DTYPE=float32"]
    settings += ["TEXTS=/notes.txt", "-o", ".venv/installed"]  # which is taken as it is
    command = ["make", "-n", "-f", str(MAKEFILE), "figures", *settings]
    printed = subprocess.check_output(command, text=True, cwd=paths.ROOT)
    program = printed.splitlines()[-1]
    options = run.arguments(shlex.split(program)[3:])
    assert options.profile == "smoke"
    assert options.models == ["tiny-random"]
    assert (options.dtype, options.texts) == ("float32", "/notes.txt")
    assert (options.limit, options.steps) == (5, 2)


def test_a_slurm_array_runs_the_job_of_its_line(tmp_path):
    """Of the lines that `--jobs` prints, with what was said to the script besides."""
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "maps.txt").write_text("first-map\nsecond-map\n")
    script = paths.ROOT / "replication/run/array.sbatch"
    environment = os.environ | {"JOBS": "maps.txt", "SLURM_ARRAY_TASK_ID": "2"}
    command = ["bash", str(script), "--profile", "paper"]
    printed = subprocess.check_output(command, text=True, cwd=tmp_path, env=environment)
    options = run.arguments(printed.split()[2:])
    assert options.job == "second-map"
    assert options.profile == "paper"


BAD = {
    "replication --profile nope": "'nope'",
    "replication --profile smoke --only 99": "No notebook 99",
    "replication --profile smoke --job nope": "No job 'nope'",
    "replication --profile smoke --only 01 --texts nope.txt": "there is no file of texts",
    "benchmarks.gpu": "no GPU here",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_sentence_before_any_computing(command, output, capsys):
    module, *arguments = command.split()
    assert start(module, *arguments) in (1, 2)
    printed = capsys.readouterr()
    (sentence,) = printed.err.splitlines()
    assert BAD[command] in sentence
    assert printed.out == ""
    assert not any(file.is_file() for file in output.rglob("*"))


def test_a_second_run_does_not_begin(output, capsys):
    with batch.exclusive_run():
        assert start("replication", "--profile", "smoke", "--only", "01") == 2
    assert f"Another run writes to {paths.RESULTS}" in capsys.readouterr().err


def test_clean_keeps_what_is_recorded_or_downloaded(tmp_path):
    gone = ["data/results/a", "papermill_runs/a/b", "figures/smoke/a"]
    kept = ["data/recorded/a", "data/assets/a", "figures/overnight/a", "figures/README.md"]
    for name in gone + kept:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    subprocess.run(["make", "-f", str(MAKEFILE), "clean"], cwd=tmp_path, check=True)
    assert [name for name in gone + kept if (tmp_path / name).exists()] == kept


def test_the_lab_works_on_copies(tmp_path):
    """A second `make lab` keeps what was changed in them; links from them lead to the checkout."""
    for name in ("notebooks/a.ipynb", "exercises/b.ipynb", "figures/c.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("of the checkout")
    for content in ("of the checkout", "mine"):
        command = ["make", "-f", str(MAKEFILE), "-o", ".venv/installed", "BIN=echo ", "lab"]
        subprocess.run(command, cwd=tmp_path, check=True)
        assert (tmp_path / "lab/notebooks/a.ipynb").read_text() == content
        (tmp_path / "lab/notebooks/a.ipynb").write_text("mine")
    assert (tmp_path / "notebooks/a.ipynb").read_text() == "of the checkout"
    assert (tmp_path / "lab/notebooks/../figures/c.png").exists()


def test_the_benchmark_runs(capsys):
    """Scores are the same in both ways; no time is judged."""
    assert bench.main(["--tiny"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"(\d+) of \1 scores are the same", printed)
