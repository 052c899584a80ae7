"""Every command that the Makefile, a README or a notebook names is run, and refuses bad input.

COMMANDS says which test runs which command. A new target, or a new program, fails the first test
until it is in that table. `make` is asked what it would run; programs then run in this process,
as `python -m` runs them, so that few have to start PyTorch.
"""

import ast
import functools
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import webbrowser
from pathlib import Path

import pandas as pd
import pytest
from conftest import jupyter_lab
from matplotlib.image import imread

from benchmarks import __main__ as bench
from benchmarks import inputs, repairs, sizes, table
from benchmarks.faults import Fault
from benchmarks.faults import __main__ as faults
from lib import models
from lib.blocks import Block
from lib.data import wheels
from lib.pruning import dropped
from replication import __main__ as run
from replication import paths, profiles
from replication.measure import distance_maps
from replication.show import explorer
from scripts import continuations, lengths, readme, record
from scripts import explorer as picture

pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")

HERE = "tests/test_commands.py"
COMMANDS = {  # a command, and the test that runs it
    "make help": f"{HERE}::test_make_lists_every_target",
    "make .venv/installed": f"{HERE}::test_installed_from_wheels_and_tested",
    "make .venv/installed-all": f"{HERE}::test_installed_from_wheels_and_tested",
    "make wheels": f"{HERE}::test_installed_from_wheels_and_tested",
    "make test": f"{HERE}::test_installed_from_wheels_and_tested",
    "make test-all": f"{HERE}::test_installed_from_wheels_and_tested",
    "make lint": f"{HERE}::test_lint_finds_what_format_mends",
    "make format": f"{HERE}::test_lint_finds_what_format_mends",
    "make clean": f"{HERE}::test_clean_keeps_what_is_recorded_or_downloaded",
    "make assets": f"{HERE}::test_assets_are_verified",
    "make figures": "tests/test_run.py::test_every_notebook_leaves_its_figures",
    "make figure-%": f"{HERE}::test_one_figure_and_its_report",
    "make report": f"{HERE}::test_one_figure_and_its_report",
    "make plan": f"{HERE}::test_plan",
    "make record": f"{HERE}::test_record_resumes_and_exports",
    "make lab": f"{HERE}::test_lab_opens_the_notebooks_on_loopback",
    "make explorer": f"{HERE}::test_explorer_is_written_and_opened",
    "make prune": "tests/test_prune.py::test_make_prune",
    "make bench": f"{HERE}::test_every_row_runs",
    "make gpu": "tests/test_gpu.py::test_the_tiny_shape_on_a_cpu",
    "make faults": f"{HERE}::test_a_fault_that_breaks_lets_the_others_be_seen",
    "python -m benchmarks": f"{HERE}::test_every_row_runs",
    "python -m benchmarks.faults": f"{HERE}::test_a_fault_that_breaks_lets_the_others_be_seen",
    "python -m benchmarks.faults.toys": "tests/test_run.py::test_faults_of_processes",
    "python -m benchmarks.gpu": "tests/test_gpu.py::test_the_tiny_shape_on_a_cpu",
    "python -m scripts.continuations": f"{HERE}::test_continuations_are_recorded_and_resumed",
    "python -m scripts.explorer": f"{HERE}::test_the_picture_of_the_explorer_is_taken",
    "python -m scripts.lengths": f"{HERE}::test_lengths_are_written",
    "python -m scripts.numbers": "tests/test_record.py::test_a_changed_number_is_printed",
    "python -m scripts.readme": f"{HERE}::test_readmes_are_renewed",
    "python -m scripts.record": f"{HERE}::test_record_resumes_and_exports",
    "python -m scripts.tokens": f"{HERE}::test_tokens_are_counted",
    "python -m benchmarks.repairs": f"{HERE}::test_repairs_are_timed_and_drawn",
    "python -m lib.data.wheels": f"{HERE}::test_assets_are_verified",
    "python -m lib.prune": "tests/test_prune.py::test_make_prune",
    "python -m replication.show.explorer": f"{HERE}::test_explorer_is_written_and_opened",
    "python -m replication.show.site": f"{HERE}::test_one_figure_and_its_report",
    "python -m replication": "tests/test_run.py::test_every_notebook_leaves_its_figures",
}
PROGRAMS = sorted(c.removeprefix("python -m ") for c in COMMANDS if c.startswith("python"))
PROGRAMS.remove("scripts.tokens")  # it has no options

MAKEFILE = paths.ROOT / "Makefile"
READMES = [paths.ROOT / "README.md", *sorted(paths.ROOT.glob("[!.]*/README.md"))]
PAGES = [
    *READMES,
    *sorted(paths.ROOT.glob("notebooks/*.ipynb")),
    *sorted(paths.ROOT.glob("exercises/*.ipynb")),
    *sorted(paths.ROOT.glob("replication/**/*.sbatch")),
]
TARGET = re.compile(r"^([a-z.][\w./%-]*):(?!=)", re.MULTILINE)
PROGRAM = re.compile(r"python -m ((?:lib|replication|scripts|benchmarks)\b[\w.]*)")
MAKE = re.compile(r"`make ([a-z.][^`\\]*)`")
IN_A_BLOCK = re.compile(r"^make ([a-z.].*)$", re.MULTILINE)
VARIABLE = re.compile(r"\b([A-Z]+)=")
INSTALLED = ("-o", ".venv/installed", "-o", ".venv/installed-all")  # taken as they are


def text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def targets_of(makefile: str) -> list[str]:
    return [target for target in TARGET.findall(makefile) if target != ".PHONY"]


def programs() -> set[str]:
    """The modules of the project that can be run."""
    modules = set()
    for room in ("lib", "replication", "scripts", "benchmarks"):
        for file in (paths.ROOT / room).rglob("*.py"):
            if '__name__ == "__main__"' in text(file):
                name = ".".join(file.relative_to(paths.ROOT).with_suffix("").parts)
                modules.add(name.removesuffix(".__main__"))
    return modules


def makes() -> list[str]:
    """What pages say after `make`, each once."""
    calls = set()
    for page in map(text, PAGES):
        calls |= set(MAKE.findall(page))
        for block in page.split("```")[1::2]:
            calls |= set(IN_A_BLOCK.findall(block))
    return sorted(calls)


def made(*arguments: str) -> list[list[str]]:
    """The words of each command that `make` with these arguments would run."""
    command = ["make", "--no-print-directory", "-n", "-f", str(MAKEFILE), *INSTALLED, *arguments]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    return [[word for word in line if not re.match(r"[A-Z_]+=", word)] for line in lines]


def start(module: str, *arguments: str) -> int:
    """The exit status of `python -m module`, run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *arguments])
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as end:
            return end.code or 0
    return 0


def make_in_process(*arguments: str) -> int:
    """The exit status of the last program of a target, those before it left out."""
    python, option, module, *rest = made(*arguments)[-1]
    assert (python, option) == (".venv/bin/python", "-m")
    return start(module, *rest)


# ---- the table -----------------------------------------------------------------------------


def test_every_command_has_a_test():
    targets = {f"make {target}" for target in targets_of(text(MAKEFILE))}
    pages = [name for page in [*PAGES, MAKEFILE] for name in PROGRAM.findall(text(page))]
    modules = {f"python -m {name.rstrip('.')}" for name in [*pages, *programs()]}
    assert set(COMMANDS) == targets | modules


def test_every_test_of_the_table_exists():
    files = {place.partition("::")[0] for place in COMMANDS.values()}
    names = {
        f"{file}::{node.name}"
        for file in files
        for node in ast.parse(text(paths.ROOT / file)).body
        if isinstance(node, ast.FunctionDef)
    }
    assert set(COMMANDS.values()) <= names


@pytest.mark.parametrize("call", makes())
def test_what_pages_make_exists(call):
    """The target, its variables, and what they become: options of a program that it knows."""
    for name in VARIABLE.findall(call):
        assert f"$({name})" in text(MAKEFILE), f"make {call}: the Makefile reads no {name}"
    for file in re.findall(r"CONSTRAINTS=(\S+)", call):
        assert (paths.ROOT / file).exists()
    commands = made(*shlex.split(call))
    assert commands
    for words in commands:
        if "replication" in words:
            options = run.arguments(words[words.index("replication") + 1 :])
            assert run.chosen(options) and options.profile in profiles.PROFILES


def test_variables_that_pages_name_are_those_of_the_makefile():
    """As in: add `LIMIT=20 STEPS=4`."""
    for page in READMES:
        for words in re.findall(r"`([A-Z][A-Z =\w.-]*)`", text(page)):
            for name in VARIABLE.findall(words):
                assert f"$({name})" in text(MAKEFILE), f"{page} names {name}"


@pytest.mark.parametrize("name", ["cluster", "array"])
def test_a_slurm_script_is_shell(name):
    file = paths.ROOT / "replication" / "run" / f"{name}.sbatch"
    assert subprocess.run(["bash", "-n", str(file)]).returncode == 0
    before, after = re.search(r"python -m replication(.*?) \"\$@\"(.*)", text(file)).groups()
    run.arguments([*shlex.split(before), "--profile", "paper", *shlex.split(after)])


def test_a_slurm_array_runs_the_job_of_its_line(tmp_path):
    """Of the lines that `--jobs` prints, with what was said to the script besides."""
    script = paths.ROOT / "replication" / "run" / "array.sbatch"
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "maps.txt").write_text("first-map\nsecond-map\n")
    environment = os.environ | {"JOBS": "maps.txt", "SLURM_ARRAY_TASK_ID": "2"}
    command = ["bash", str(script), "--profile", "paper"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    module, name, *options = done.stdout.split()
    assert (module, name) == ("-m", "replication")
    assert run.arguments(options).job == ["second-map"]
    assert run.arguments(options).profile == "paper"


def test_the_cluster_script_says_what_ray_takes(tmp_path):
    """Of each node, with Ray's own words; every option is one that this Ray knows."""
    ray = pytest.importorskip("ray.scripts.scripts")
    symmetric = pytest.importorskip("ray.scripts.symmetric_run")
    script = text(paths.ROOT / "replication" / "run" / "cluster.sbatch")
    words = re.search(r"ray symmetric-run (.*?) -- ", script.replace("\\\n", " "))[1]
    given = set(re.findall(r"--[a-z-]+", words))
    own = {name for option in symmetric.symmetric_run.params for name in option.opts}
    started = {name for option in ray.start.params for name in option.opts}
    assert {"--num-cpus", "--num-gpus", "--address", "--min-nodes"} <= given <= own | started
    assert not given & {"--head", "--port", "--block", "--include-dashboard"}  # not of every node
    assert 'srun --cpus-per-task="$cpus"' in script and "SLURM_JOB_ID %" in words + script


# ---- help and bad input ----------------------------------------------------------------------


@pytest.mark.parametrize("module", PROGRAMS)
def test_help(module, capsys):
    assert start(module, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m {module} [-h]")


BAD = {f"{module} --nope": "--nope|required" for module in PROGRAMS} | {
    "benchmarks --only 99": "invalid choice: '?99",
    "benchmarks --only one": "'one'",
    "benchmarks.faults --only earthquake": "'earthquake'",
    "benchmarks.gpu": "no GPU here",
    "benchmarks.gpu --tiny --budget 0": "--budget .* not 0",
    "benchmarks.gpu --tiny --work /proc/new": "/proc/new",
    "benchmarks.repairs --models nope": "'nope'",
    "benchmarks.repairs --turns 0": "invalid choice: '?0",
    "scripts.continuations --model nope": "'nope'",
    "scripts.record --profile nope": "'nope'",
    "lib.data.wheels nope": "'nope'",
    "lib.prune nope out --layers 2": "'nope'",
    "lib.prune tiny-random out --layers two": "'two'",
    "replication.show.site --profile nope": "'nope'",
    "replication.show.site --profile smoke": "make figures PROFILE=smoke",  # nothing to report
    "replication --plan --card abacus": "'abacus'",
    "replication --plan --cards 0": "--cards .* not 0",
    "replication --profile smoke --job nope": "No job 'nope'",
    "replication --profile recorded --jobs": "computes nothing",
    "replication --profile nope": "'nope'",
    "replication --profile smoke --engine steam": "'steam'",
    "replication --profile smoke --dtype int3": "'int3'",
    "replication --profile smoke --steps 0": "STEPS",
    "replication --profile smoke --limit 1": "LIMIT .* at least 2",
    "replication --profile smoke --models nope": "'nope'",
    "replication --profile smoke --models tiny-random tiny-random": "tiny random Llama",
    "replication --profile smoke --only 99": "No notebook 99",
    "replication --profile smoke --figure 77": "figure 77",
    "replication --profile smoke --time-limit 0": "--time-limit",
    "replication --profile smoke --set PROFLE=smoke": "PROFLE",
    "replication --profile smoke --set PROFILE": "'PROFILE'",
    "replication --profile smoke --set MODELS=tiny-random": "--models",
    "replication --profile smoke --set SIZES=3": "SIZES .* not 3",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_sentence_before_any_computing(command, output, capsys):
    """After the usage, where the options themselves are not understood."""
    module, *arguments = command.split()
    assert start(module, *arguments) in (1, 2)
    printed = capsys.readouterr()
    *usage, last = printed.err.strip().splitlines()
    assert re.search(BAD[command], last), printed.err
    assert not usage or usage[0].startswith("usage: ")
    assert printed.out == "" and not [file for file in output.rglob("*") if file.is_file()]


def test_a_folder_that_is_there_is_not_emptied(tmp_path, capsys):
    (tmp_path / "letter").write_text("dear")
    assert start("benchmarks.gpu", "--tiny", "--work", str(tmp_path)) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in sentence and text(tmp_path / "letter") == "dear"


# ---- make, in a folder of its own ------------------------------------------------------------


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run `make` of the project's Makefile in a folder."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTEST_"))}
    return subprocess.run(
        ["make", "-f", str(MAKEFILE), f"PYTHON={sys.executable}", *arguments],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
    )


OWN = f"BIN={Path(sys.executable).parent}"  # programs of the environment that runs the tests
BACKEND = '''"""A project without any code, as pip wants it built."""
import zipfile

LINES = ["Metadata-Version: 2.1", "Name: NAME", "Version: 99"]
for extra in ("dev", "parity", "cluster"):  # each needs a package of its name
    LINES += [f"Provides-Extra: {extra}", f"Requires-Dist: for-{extra}; extra == '{extra}'"]

def build_wheel(folder, settings=None, metadata=None):
    file = "NAME-99-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{file}", "w") as wheel:
        info = "NAME-99.dist-info"
        wheel.writestr(f"{info}/METADATA", "\\n".join(LINES) + "\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return file

build_editable = build_wheel
'''


@pytest.fixture
def project(tmp_path):
    """A project of no code: three tests, two of them marked real; it needs nothing to be built."""
    (tmp_path / "backend.py").write_text(BACKEND.replace("NAME", "toy"))
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[tool.pytest.ini_options]\nmarkers = ["real: slow"]\n'
        '[tool.ruff]\nextend-exclude = ["backend.py"]\n'
    )
    tests = tmp_path / "tests"
    tests.mkdir()
    imports = "from pathlib import Path\n\nimport pytest\n\n\n"
    slow = '@pytest.mark.real\ndef test_NAME():\n    Path("ran-NAME").touch()\n'
    (tests / "test_toy.py").write_text(
        imports
        + 'def test_quick():\n    Path("ran-quick").touch()\n\n\n'
        + slow.replace("NAME", "slow")
    )
    (tests / "test_cluster.py").write_text(imports + slow.replace("NAME", "cluster"))
    return tmp_path


def test_make_lists_every_target(project):
    done = make(project)
    assert done.returncode == 0, done.stderr
    listed = [line.split()[1] for line in done.stdout.splitlines()]
    targets = targets_of(text(MAKEFILE))
    assert listed == [target for target in targets if not target.startswith(".")]
    assert make(project, "help").stdout == done.stdout


def test_installed_from_wheels_and_tested(project, tmp_path_factory):
    """What `make wheels` fetched is enough to install with; then tests of each kind run."""
    index = tmp_path_factory.mktemp("index")
    for name in ("setuptools", "for_dev", "for_parity", "for_cluster"):
        defined = {}
        exec(BACKEND.replace("NAME", name), defined)
        defined["build_wheel"](index)
    network = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}  # all that pip can reach
    done = make(project, "wheels", **network)
    assert done.returncode == 0, done.stderr
    carried = sorted(file.name.partition("-")[0] for file in (project / "wheels").iterdir())
    assert carried == ["for_dev", "setuptools"]
    assert not (project / ".venv").exists()
    done = make(project, ".venv/installed", "WHEELS=wheels", PIP_NO_INDEX="1")
    assert done.returncode == 0, done.stderr
    packages = next((project / ".venv").glob("lib/*/site-packages"))
    assert (packages / "toy-99.dist-info").exists()
    assert (packages / "for_dev-99.dist-info").exists()
    assert not (packages / "for_cluster-99.dist-info").exists()
    done = make(project, ".venv/installed-all", **network)
    assert done.returncode == 0, done.stderr
    assert (packages / "for_parity-99.dist-info").exists()
    assert (packages / "for_cluster-99.dist-info").exists()
    assert "up to date" in make(project, ".venv/installed-all").stdout

    few_plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist"}
    for target, left in {"test": ["quick"], "test-all": ["cluster", "quick", "slow"]}.items():
        done = make(project, target, OWN, **few_plugins)
        assert done.returncode == 0, done.stdout + done.stderr
        assert sorted(file.name.removeprefix("ran-") for file in project.glob("ran-*")) == left
        for file in project.glob("ran-*"):
            file.unlink()


def test_lint_finds_what_format_mends(project):
    there = [*INSTALLED, OWN]
    assert make(project, "lint", *there).returncode == 0
    (project / "untidy.py").write_text("import os\nprint( 'words' )\n")
    assert make(project, "lint", *there).returncode == 2
    assert make(project, "format", *there).returncode == 0
    assert (project / "untidy.py").read_text() == 'print("words")\n'
    assert make(project, "lint", *there).returncode == 0


def test_clean_keeps_what_is_recorded_or_downloaded(project):
    gone = ("data/results/a", "papermill_runs/a/b", "figures/smoke/a", "figures/quick-mine/a")
    kept = ("data/recorded/a", "data/assets/a", "figures/overnight/a", "figures/README.md")
    kept += ("papermill_runs/README.md",)
    for name in (*gone, *kept):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    assert make(project, "clean").returncode == 0
    assert [name for name in (*gone, *kept) if (project / name).exists()] == list(kept)


# ---- programs, tiny --------------------------------------------------------------------------


def test_assets_are_verified(monkeypatch):
    """Each that every run needs."""
    assert made("assets") == [[".venv/bin/python", "-m", "lib.data.wheels"]]
    verified = []
    monkeypatch.setattr(wheels, "verify", verified.append)
    assert wheels.main([]) == 0
    always = {name for name, asset in wheels.ASSETS.items() if asset.fetched == "always"}
    assert always and always <= set(verified)


def test_plan(capsys, output):
    assert make_in_process("plan", "PROFILE=paper", "CARD=a100-40", "CARDS=8", "ONLY=01") == 0
    printed = capsys.readouterr().out
    assert "Mistral-7B" in printed and "on 8 such cards at least" in printed


def test_one_figure_and_its_report(output, monkeypatch, capsys):
    monkeypatch.setenv("DEEPER_LAYERS_OUTPUT", str(output))  # of the notebook's kernel
    assert make_in_process("figure-1b", "PROFILE=smoke") == 0
    assert (output / "figures/smoke/figure_1b.png").read_bytes().startswith(b"\x89PNG")
    assert make_in_process("report", "PROFILE=smoke") == 0
    page = output / "papermill_runs" / "report" / "smoke" / "index.html"
    assert capsys.readouterr().out.splitlines()[-1] == str(page)
    assert "figure_1b" in text(page)


@pytest.fixture
def recorded(output, monkeypatch):
    """The recorded run is one of `smoke`, of which the distances are there."""
    monkeypatch.setattr(paths, "RECORDED", output / "recorded")
    monkeypatch.setattr(profiles, "RECORDED", "smoke")
    distance_maps.measure(profiles.get("smoke"))
    shutil.copytree(paths.RESULTS, output / "recorded" / "smoke")
    return output / "recorded" / "smoke"


def test_record_resumes_and_exports(recorded, monkeypatch, capsys):
    """Without a notebook to run; tests/test_record.py records whole ones."""
    assert made("record")[-1] == [".venv/bin/python", "-m", "scripts.record"]
    without = functools.partial(record.record, numbers=[])
    monkeypatch.setattr(record, "record", without)
    assert record.main(["--profile", "smoke"]) == 0
    assert re.search(r"smoke: \d+ files, \d\.\d MB", capsys.readouterr().out)


def test_explorer_is_written_and_opened(recorded, output, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert make_in_process("explorer") == 0
    page = output / "figures" / "explorer.html"
    assert capsys.readouterr().out.strip() == str(page) and opened == [page.as_uri()]
    assert "tiny random Llama (recorded run smoke)" in text(page)


def test_continuations_are_recorded_and_resumed(recorded, monkeypatch, capsys):
    """By a model that the recorded run has a map of; the explorer shows them."""
    arguments = ["--model", "tiny-random", "--profile", "smoke"]
    monkeypatch.setattr(continuations, "NEW_TOKENS", 3)
    assert continuations.main([*arguments, "--minutes", "0"]) == 0
    assert re.search(r"tiny-random: \d\d blocks are still missing", capsys.readouterr().out)
    assert continuations.main(arguments) == 0
    assert "tiny-random: 0 blocks" in capsys.readouterr().out
    file = paths.continuations("tiny-random")
    before = text(file)
    monkeypatch.setattr(continuations, "continuations", None)  # nothing is written again
    assert continuations.main(arguments) == 0 and text(file) == before
    explored = explorer.maps()["tiny random Llama (recorded run smoke)"]
    assert explored.prompts == continuations.PROMPTS
    blocks = continuations.blocks(explored.distances)
    assert explored.texts.keys() == {(block.start, block.size) for block in blocks}
    model, tokenizer = models.load("tiny-random", dtype="float32")
    prompt = tokenizer(continuations.PROMPTS[0], return_tensors="pt")
    with dropped(model, Block(2, 1)):
        ids = model.generate(**prompt, do_sample=False, max_new_tokens=3)
    written = tokenizer.decode(ids[0, prompt.input_ids.shape[1] :], skip_special_tokens=True)
    assert explored.texts[2, 1][0] == written


def test_lab_opens_the_notebooks_on_loopback(tmp_path):
    *_, (program, command, *options) = made("lab")
    assert (program, command) == (".venv/bin/jupyter", "lab")
    with jupyter_lab(tmp_path, *options, "--ServerApp.port=0") as about:
        assert about["hostname"] == "127.0.0.1" and about["root_dir"] == str(paths.ROOT)
        with urllib.request.urlopen(f"{about['url']}?token={about['token']}") as page:
            assert page.url.partition("?")[0].endswith("/lab/tree/notebooks")


# ---- benchmarks ------------------------------------------------------------------------------


def test_every_row_runs(output, few_articles, monkeypatch, capsys):
    """Scores are the same in both ways; no time is judged. Only a table of full size is kept."""
    monkeypatch.setattr(table, "FILE", file := output / "results" / "table.md")
    assert make_in_process("bench", "TINY=1") == 0
    printed = capsys.readouterr().out
    rows = re.findall(r"^\| (\d+) \| .*", printed, re.MULTILINE)
    assert rows == [str(row) for row in bench.ROWS]
    notes = re.findall(r"(\d+) of (\d+) scores are the same", printed)
    assert len(notes) == 2 and all(same == every for same, every in notes)
    inputs.load.cache_clear()
    assert make_in_process("bench", "ONLY=1", "TINY=1") == 0 and not file.exists()
    monkeypatch.setattr(bench, "FULL", sizes.TINY)
    monkeypatch.setattr(bench, "ROWS", {1: bench.ROWS[1]})
    capsys.readouterr()
    assert bench.main([]) == 0
    assert text(file) + "\n" == capsys.readouterr().out
    inputs.load.cache_clear()


def test_a_fault_that_breaks_lets_the_others_be_seen(capsys, monkeypatch):
    assert made("faults")[-1] == [".venv/bin/python", "-m", "benchmarks.faults"]

    def breaks(folder):
        raise OSError("no mount here")

    def differs(folder):
        raise AssertionError("another end")

    ends = Fault("c", "an end", lambda folder: "its end")
    given = [Fault("a", "", breaks), Fault("b", "", differs), ends]
    monkeypatch.setattr(faults, "FAULTS", given)
    assert faults.main([]) == 1
    printed = capsys.readouterr().out
    assert "OSError: no mount here" in printed and "another end" in printed
    assert "| c | an end | its end |" in printed
    assert faults.main(["--only", "c"]) == 0


def test_lengths_are_written(tmp_path, monkeypatch):
    """Of one question set, as committed."""
    committed = json.loads(text(paths.DATA / "token_counts.json"))
    monkeypatch.setattr(paths, "DATA", tmp_path)
    monkeypatch.setattr(lengths, "PROMPTS", [("sciq", 0)])
    assert lengths.main([]) == 0
    written = json.loads(text(tmp_path / "token_counts.json"))
    assert written.keys() == {"about", "tokenizer", "c4", "sciq"}
    assert written == {name: committed[name] for name in written}


def test_tokens_are_counted(capsys):
    assert start("scripts.tokens") == 0
    assert re.search(r"^lib: [\d,]+ tokens", capsys.readouterr().out)


def test_readmes_are_renewed(tmp_path, monkeypatch, capsys):
    """Where no run is recorded the tables say so; without their marks nothing is written."""
    for name in readme.PARTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(paths.ROOT / name, tmp_path / name)
    before = text(tmp_path / "README.md").partition("<!--")[0]
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "RECORDED", tmp_path)
    assert start("scripts.readme") == 0
    after = text(tmp_path / "README.md")
    assert readme.NONE in after and after.partition("<!--")[0] == before
    (tmp_path / "README.md").write_text("no marks")
    assert start("scripts.readme") == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("README.md: ") and text(tmp_path / "README.md") == "no marks"


def test_repairs_are_timed_and_drawn(recorded, few_articles, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(repairs, "MODELS", ("tiny-random",))
    monkeypatch.setattr(repairs.repair, "TIMED", tmp_path / "repairs.csv")
    monkeypatch.setattr(repairs, "STEPS", 1)
    monkeypatch.setattr(repairs.torch, "set_num_threads", lambda threads: None)
    assert repairs.main(["--turns", "1"]) == 0
    times = pd.read_csv(tmp_path / "repairs.csv")
    assert {"folded map", "LoRA"} <= set(times.repair)
    assert set(times.unit) == {"map", "step"} and (times.minutes >= 0).all()
    assert (paths.FIGURES / "smoke" / "figure_repair_cost.png").exists()


@pytest.mark.real
def test_the_picture_of_the_explorer_is_taken(tmp_path, monkeypatch):
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    monkeypatch.setattr(picture, "PICTURE", tmp_path / "explorer.png")
    assert picture.main([]) == 0
    assert imread(picture.PICTURE).std() > 0.1  # it is not blank
