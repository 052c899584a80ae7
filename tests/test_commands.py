"""Commands that the Makefile, a README or a notebook names exist, and refuse bad input.

Programs run in this process, as `python -m` runs them, so that few have to start PyTorch.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import __main__ as bench
from benchmarks import inputs, repairs, table
from replication import __main__ as run
from replication import paths, profiles, tables
from scripts import continuations, lengths

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
    assert all(map(find_spec, {*PROGRAM.findall(everything)}))
    targets = re.findall(r"^([a-z][\w-]*)[:%]", text(MAKEFILE), re.MULTILINE)
    named = {*re.findall(r"(?:`|^)make ([a-z][\w-]*)", everything, re.MULTILINE)}
    assert {"figure-" if name.startswith("figure-") else name for name in named} <= {*targets}


@pytest.mark.parametrize("target", ["figures", "figure-4", "plan"])
def test_make_passes_its_variables_on(target):
    settings = ["PROFILE=smoke", "MODELS=tiny-random", "LIMIT=5", "STEPS=2", "DTYPE=float32"]
    installed = ("-o", ".venv/installed", "-o", "assets")  # taken as they are
    command = ["make", "-n", "-f", str(MAKEFILE), *installed, target, *settings, "CARDS=3"]
    last = subprocess.check_output(command, text=True, cwd=paths.ROOT).splitlines()[-1]
    options = run.arguments(shlex.split(last)[3:])
    assert (options.profile, options.models, options.dtype) == ("smoke", ["tiny-random"], "float32")
    assert (options.limit, options.steps) == (5, 2)
    assert options.cards == (3 if target == "plan" else 1)


def test_a_slurm_array_runs_the_job_of_its_line(tmp_path):
    """Of the lines that `--jobs` prints, with what was said to the script besides."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "maps.txt").write_text("first-map\nsecond-map\n")
    script = paths.ROOT / "replication" / "run" / "array.sbatch"
    command = ["bash", str(script), "--profile", "paper"]
    environment = os.environ | {"JOBS": "maps.txt", "SLURM_ARRAY_TASK_ID": "2"}
    printed = subprocess.check_output(command, text=True, cwd=tmp_path, env=environment)
    options = run.arguments(printed.split()[2:])
    assert (options.job, options.profile) == ("second-map", "paper")


BAD = {  # one a program and a way of checking
    "replication --profile nope": "'nope'",
    "replication --profile smoke --models tiny-random tiny-random": "tiny random Llama",
    "replication --profile smoke --only 99": "No notebook 99",
    "replication --profile smoke --figure 77": "figure 77",
    "replication --profile smoke --job nope": "No job 'nope'.* --jobs",
    "replication --profile smoke --sizes 0": "SIZES",
    "replication --plan --card abacus": "'abacus': choose one of a100-40, ",
    "replication --plan --cards 0": "--cards .* not 0",
    "replication --profile recorded --jobs": "computes nothing",
    "replication.show.site --profile smoke": "make figures PROFILE=smoke",  # nothing to report
    "lib.prune nope out --layers 2": "'nope'",
    "lib.data.wheels nope": "'nope'",
    "scripts.record --profile nope": "'nope'",
    "scripts.continuations --model nope": "'nope'",
    "benchmarks.faults --only earthquake": "'earthquake'",
    "benchmarks.gpu": "no GPU here",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_sentence_before_any_computing(command, output, capsys):
    module, *arguments = command.split()
    assert start(module, *arguments) in (1, 2)
    printed = capsys.readouterr()
    (sentence,) = printed.err.splitlines()
    assert re.search(BAD[command], sentence)
    assert printed.out == "" and not [file for file in output.rglob("*") if file.is_file()]


def test_missing_ray_is_one_sentence(output, capsys, monkeypatch):
    monkeypatch.setattr("replication.__main__.find_spec", lambda name: None)
    assert run.main(["--profile", "smoke", "--engine", "ray"]) == 2
    assert "Ray" in capsys.readouterr().err and not list(output.iterdir())


def test_clean_keeps_what_is_recorded_or_downloaded(tmp_path):
    gone = "data/results/a papermill_runs/a/b figures/smoke/a figures/quick-mine/a"
    kept = "data/recorded/a data/assets/a figures/overnight/a figures/README.md"
    for name in (*gone.split(), *kept.split(), "papermill_runs/README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["make", "-f", str(MAKEFILE), "clean"], cwd=tmp_path, check=True)
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert left == {*kept.split(), "papermill_runs/README.md"}


# ---- what maintainers run, tiny --------------------------------------------------------------


@pytest.fixture
def recorded(smoke_run, output, monkeypatch):
    """The recorded run is one of `smoke`."""
    monkeypatch.setattr(paths, "RECORDED", output / "recorded")
    for name in (profiles.RECORDED, profiles.DRAWN):
        of_smoke = replace(profiles.PROFILES["smoke"], name=name, folder=name)
        monkeypatch.setitem(profiles.PROFILES, name, of_smoke)
    shutil.copytree(smoke_run / "data/tables/smoke", output / "recorded" / profiles.RECORDED)


def test_continuations_are_recorded_and_resumed(recorded, monkeypatch, capsys):
    """By a model that the recorded run has a map of."""
    monkeypatch.setattr(continuations, "NEW_TOKENS", 3)
    for minutes, missing in (("0", r"\d\d"), ("60", "0")):
        assert continuations.main(["--model", "tiny-random", "--minutes", minutes]) == 0
        assert re.search(rf"tiny-random: {missing} blocks", capsys.readouterr().out)
    header, *lines = map(json.loads, text(paths.continuations("tiny-random")).splitlines())
    written = {tuple(line["block"]): line["texts"] for line in lines}
    (distances,) = tables.maps(profiles.get(profiles.DRAWN)).values()
    assert written.keys() == {(of.start, of.size) for of in continuations.blocks(distances)}


def test_repairs_are_timed_and_drawn(recorded, few_articles, tmp_path, monkeypatch):
    """The recorded table has the times then."""
    monkeypatch.setattr(repairs, "MODELS", ("tiny-random",))
    monkeypatch.setattr(repairs, "TIMED", tmp_path / "repairs.csv")
    monkeypatch.setattr(repairs, "STEPS", 1)
    monkeypatch.setattr(repairs.torch, "set_num_threads", lambda threads: None)
    assert repairs.main(["--turns", "1"]) == 0
    times = pd.read_csv(tmp_path / "repairs.csv").set_index("repair").minutes
    drawn = pd.read_csv(paths.FIGURES / profiles.RECORDED / "figure_repair_cost.csv")
    lora = drawn[(drawn.repair == "LoRA") & (drawn.strategy == "similarity")]
    assert len(lora) and set(lora.minutes) == {times["LoRA"]} and "folded map" in times


def test_every_row_runs(few_articles, monkeypatch, tmp_path, capsys):
    """Scores are the same in both ways; no time is judged. Only a table of full size is kept."""
    monkeypatch.setattr(table, "FILE", tmp_path / "table.md")
    assert bench.main(["--tiny"]) == 0 and not table.FILE.exists()
    notes = re.findall(r"(\d+) of (\d+) scores are the same", capsys.readouterr().out)
    assert len(notes) == 2 and all(same == every for same, every in notes)
    inputs.load.cache_clear()


def test_lengths_are_written(tmp_path, monkeypatch):
    """Of one question set, as committed."""
    committed = json.loads(text(paths.DATA / "token_counts.json"))
    monkeypatch.setattr(paths, "DATA", tmp_path)
    monkeypatch.setattr(lengths, "PROMPTS", [("sciq", 0)])
    assert lengths.main([]) == 0
    written = json.loads(text(tmp_path / "token_counts.json"))
    assert written == {name: committed[name] for name in written} and "sciq" in written
