"""Commands that the Makefile, a README or a notebook names exist, and refuse bad input.

Programs run in this process, as `python -m` runs them, so that few have to start PyTorch.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest
from conftest import start, text

from benchmarks import __main__ as bench
from replication import __main__ as run
from replication import paths, profiles
from replication.run import batch

pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")

MAKEFILE = paths.ROOT / "Makefile"
NAMES = ("Makefile", "*.md", "[!.]*/README.md", "*/*.ipynb", "replication/run/*.sbatch")
PAGES = [*chain(*map(paths.ROOT.glob, NAMES))]
PROGRAM = re.compile(r"python -m ((?:lib|replication|scripts|benchmarks)\b(?:\.\w+)*)")


def program(file: Path, script: str) -> None:
    """Write a program."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def targets() -> list[str]:
    """Return the targets of the Makefile; of those of a pattern, one."""
    return [
        name.replace("%", "4") for name in re.findall(r"^([a-z][\w%-]*):", text(MAKEFILE), re.M)
    ]


def make(*words: str, cwd: Path = paths.ROOT, **variables: str) -> subprocess.CompletedProcess:
    """Run make where all is installed; `variables` are those of the environment."""
    command = ["make", "-f", str(MAKEFILE), "-o", ".venv/installed", "-o", ".venv/installed-all"]
    environment = os.environ | variables
    return subprocess.run(
        [*command, *words], cwd=cwd, env=environment, text=True, capture_output=True
    )


def test_what_pages_run_exists():
    everything = "\n".join(map(text, PAGES))
    for module in set(PROGRAM.findall(everything)):
        assert find_spec(module), module
    for name in re.findall(r"(?:`|^)make ([a-z][\w-]*)", everything, re.MULTILINE):
        assert name in targets() or name.startswith("figure-"), name


RUN = "PROFILE MODELS LIMIT STEPS RANKS DTYPE TEXTS ENGINE"
INSTALL = "PYTHON TORCH TORCH_INDEX CONSTRAINTS WHEELS SYSTEM"
TAKES = {  # beside those of the installation
    "figures": f"{RUN} ONLY",
    "figure-4": f"{RUN} EXPORT",
    "fetch": f"{RUN} ONLY OFFLINE",
    "plan": f"{RUN} ONLY CARD",
    "report": "PROFILE MODELS RANKS TEXTS",
    "row": "MODEL DTYPE LIMIT PLAN CARD",
    "prune": "MODEL OUT PLAN CARD LAYERS START SIZES GB LOSS SPEED BY REPAIR HEAL STEPS TEACHER "
    "LR RANK BATCH SEQUENCE SEED NF4 TASKS TEXTS SOURCE LIMIT",
    "gpu": "TINY",
    **dict.fromkeys(["record", "lab", "explorer", "questions", "test", "test-all", "nightly"], ""),
}
INSTALLS_NOTHING = {"help", "clean", "clean-all"}
EVERY = set(" ".join(TAKES.values()).split() + INSTALL.split())


@pytest.mark.parametrize("target", targets())
def test_a_target_refuses_the_variables_that_it_does_not_take(target):
    """Mistyped, or another target's; the environment may have them."""
    known = set() if target in INSTALLS_NOTHING else {*TAKES[target].split(), *INSTALL.split()}
    strange = EVERY - known | {"PROFIL", "LIMITS", "TEXT"}
    given = [f"{name}=1" for name in known]
    assert make("-n", target, *given, **dict.fromkeys(strange, "1")).returncode == 0
    refused = make("-n", target, *given, *(f"{name}=1" for name in strange))
    assert refused.returncode == 2 and refused.stdout == ""
    (sentence,) = refused.stderr.splitlines()
    named, taken = sentence.removesuffix(".  Stop.").split("; it has ")
    named = re.sub(r"\(did you mean .*\?\)", "", named).split(" has no variable ")[1]
    assert set(named.split()) == strange
    assert set(taken.split()) - {"none"} == known


REFUSED = {
    "figures MODEL=a/b": "did you mean MODELS?",
    "fetch figures LIMITS=3": "`make fetch figures` has no variable LIMITS (did you mean LIMIT?)",
    "figure LIMIT=3": "`make figure`: there is no such target",
    "PROFILE=recorded": "`make help` has no variable PROFILE; it has none",
    "prune MODEL=a OUT=b CARD=t4": "no variable CARD",  # without PLAN=1
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_refusal_names_what_is_alike_and_begins_nothing(words):
    done = make("-n", *words.split())
    assert REFUSED[words] in done.stderr and done.stdout == ""


def test_goals_share_their_variables_and_0_switches_off():
    assert make("-n", "fetch", "gpu", "TINY=1", "PROFILE=a100", "OFFLINE=1").returncode == 0
    plain = make("-n", "prune", "MODEL=a", "OUT=b").stdout
    assert make("-n", "prune", "MODEL=a", "OUT=b", "PLAN=0").stdout == plain
    assert make("-n", "gpu", "TINY=0").stdout == make("-n", "gpu").stdout


def test_help_names_every_profile_and_every_variable():
    printed = make("help").stdout
    for name in profiles.PROFILES:
        assert re.search(rf"^  {name} +[\d,]+ .*(minutes|hours)", printed, re.MULTILINE), name
    for name in EVERY:
        assert re.search(rf"\b{name}\b", printed), name


def test_make_passes_its_variables_on():
    settings = ["PROFILE=smoke", "MODELS=tiny-random", "LIMIT=5", "STEPS=2", "DTYPE=float32"]
    (program,) = make("-n", "figures", *settings, "TEXTS=/notes.txt").stdout.splitlines()
    options = run.arguments(shlex.split(program)[3:])
    assert options.profile == "smoke"
    assert options.models == ["tiny-random"]
    assert (options.dtype, options.texts) == ("float32", "/notes.txt")
    assert (options.limit, options.steps) == (5, 2)
    (program,) = make("-n", "report", "MODELS=a/b c/d", "TEXTS=/notes.txt").stdout.splitlines()
    assert shlex.split(program)[3:] == "--profile quick --models a/b c/d --texts /notes.txt".split()


def test_ranks_at_few_depths_are_of_the_papers_profile(capsys):
    """Named by a profile of its own, which notebooks and jobs are given."""
    (program,) = make("-n", "plan", "PROFILE=paper", "RANKS=few").stdout.splitlines()
    assert shlex.split(program)[3:] == "--profile paper-few-ranks --plan".split()
    for settings in (["RANKS=few"], ["PROFILE=a100", "RANKS=few"], ["PROFILE=paper", "RANKS=3"]):
        (program,) = make("-n", "plan", *settings).stdout.splitlines()
        assert run.main(shlex.split(program)[3:]) == 2
        assert "RANKS is of PROFILE=paper" in capsys.readouterr().err


SLURM = {  # what a script finds on its first node, and what is printed
    "SLURM_ARRAY_TASK_ID": "2",
    "SLURM_JOB_ID": "7000123",
    "SLURM_JOB_NUM_NODES": "3",
    "SLURM_CPUS_PER_TASK": "64",
    "SLURM_GPUS_ON_NODE": "8",
}
SAY = 'echo "${RAY_AUTH_MODE-} ${RAY_AUTH_TOKEN-} ${RAY_ADDRESS-} $(basename "$0") $*"'


def slurm(name: str, folder: Path, environment: str, **variables) -> list[list[str]]:
    """Run a script with programs that say what they are started with; return the words of each.

    environment: "venv" or "conda", where Python and Ray are.
    """
    answers = f'*secrets*) exec {sys.executable} "$@";; *get_node_ip*) echo 10.0.0.7; exit;;'
    places = {"venv": folder / ".venv/bin", "conda": folder / "conda"}
    program(places[environment] / "python", f'case "$*" in {answers} esac; {SAY} >> calls')
    program(places[environment] / "ray", f"{SAY} >> calls")
    program(folder / "slurm/srun", f"{SAY} >> calls")
    path = ":".join(map(str, (folder / "slurm", places["conda"], os.environ["PATH"])))
    command = ["bash", str(paths.ROOT / "replication/run" / name), "--profile", "paper"]
    environment = os.environ | SLURM | variables | {"PATH": path}
    # the pipes end with the last program, also one in the background
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return [line.split(" ") for line in (folder / "calls").read_text().splitlines()]


@pytest.mark.parametrize("environment", ["venv", "conda"])
def test_a_slurm_array_runs_the_job_of_its_line(environment, tmp_path):
    """Of the lines that `--jobs` prints, with what was said to the script besides."""
    (tmp_path / "maps.txt").write_text("first-map\nsecond-map\n")
    [call] = slurm("array.sbatch", tmp_path, environment, JOBS="maps.txt")
    options = run.arguments(call[call.index("replication") + 1 :])
    assert options.job == "second-map"
    assert options.profile == "paper"


@pytest.mark.parametrize("environment", ["venv", "conda"])
def test_a_slurm_cluster_is_of_all_nodes_and_has_one_token(environment, tmp_path):
    calls = slurm("cluster.sbatch", tmp_path, environment)
    [(mode, token)] = {tuple(call[:2]) for call in calls}
    assert mode == "token" and len(token) == 64
    [[head], workers, [driver]] = (
        [call[2:] for call in calls if call[3] == name] for name in ("ray", "srun", "python")
    )
    address = "10.0.0.7:20123"
    assert calls[0][2:] == head and driver[0] == address
    assert {"--head", "--port=20123", "--include-dashboard=false"} <= {*head}
    for number, worker in enumerate(sorted(workers), 1):
        assert {f"--relative={number}", f"--address={address}", "--block"} <= {*worker}
    assert len(workers) == 2
    for node in (head, *workers):
        assert {"--num-cpus=64", "--num-gpus=8"} <= {*node}
    options = run.arguments(driver[driver.index("replication") + 1 :])
    assert (options.engine, options.profile) == ("ray", "paper")
    assert token != slurm("cluster.sbatch", tmp_path, environment)[-1][1]


CUDA, SMALL_BUILD = "on Linux with CUDA: .venv will have 6.7 GB", ".venv will have 2.2 GB"
BUILDS = {  # what is asked for, on which machine: the build that uv is asked for, and what is said
    "default": ("cpu", SMALL_BUILD),
    "default, driver": ("", CUDA),
    "default, macOS": ("", CUDA),
    "default, mirror": ("", "as it is set up to"),
    "default, offline": ("cpu", CUDA),
    "pip": ("", CUDA),
    "cpu, driver, mirror": ("cpu", SMALL_BUILD),
    "cpu, offline": ("cpu", SMALL_BUILD),
    "cu126": ("cu126", "build cu126"),
}


@pytest.mark.parametrize("case", BUILDS)
def test_the_build_of_pytorch_is_said_before_it_comes(case, tmp_path):
    """Only a build that was asked for by name, and cannot be had, ends an installation."""
    build, *machine = case.split(", ")
    mirror, offline = (
        ("mirror" in machine) * "echo global.index-url",
        ("offline" in machine) * "false",
    )
    answers = f'*"pip config"*) {mirror};; *"uv pip"*) {offline};;'
    program(tmp_path / "python", f'echo "$*" >> {tmp_path}/calls; case "$*" in {answers} esac')
    program(tmp_path / "uname", f"echo {'Darwin' if 'macOS' in machine else 'Linux'}")
    (tmp_path / "grep").symlink_to(shutil.which("grep"))
    if "driver" in machine:
        program(tmp_path / "nvidia-smi", "")
    command = ["/bin/sh", paths.ROOT / "scripts/torch.sh", "python", build, "-c", "file"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, text=True, capture_output=True)
    assert done.returncode == (case == "cpu, offline")
    calls = tmp_path / "calls"
    calls = calls.read_text() if calls.exists() else ""
    backend, sentence = BUILDS[case]
    assert "".join(re.findall(r"--torch-backend (\w+) -c file torch", calls)) == backend
    assert sentence in done.stdout


BAD = {
    "replication --profile nope": "'nope'",
    "replication --profile smoke --only 99": "No notebook 99",
    "replication --profile smoke --job nope": "No job 'nope'",
    "replication --profile smoke --only 01 --texts nope.txt": "there is no file of texts",
    "replication --profile smoke --only 01 --texts chats.jsonl": "has chats, which only make prune",
    "benchmarks.gpu": "no GPU here",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_sentence_before_any_computing(
    command, output, capsys, tmp_path_factory, monkeypatch
):
    monkeypatch.chdir(tmp_path_factory.mktemp("texts"))
    chats = [{"messages": [{"role": "assistant", "content": f"{n}"}]} for n in range(16)]
    Path("chats.jsonl").write_text("\n".join(map(json.dumps, chats)))
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


SMALL = ("smoke", "quick", "recorded")  # the profiles whose runs `make clean` may delete


def test_clean_deletes_small_runs_and_clean_all_what_any_run_has_made(tmp_path):
    """Of every profile, also with a model of its own; never the record, downloads and copies."""
    kept = ["data/recorded/overnight/a", "data/assets/a", "data/checkpoints/a", "lab/a"]
    kept += ["figures/overnight/a", "figures/README.md", "papermill_runs/README.md"]
    kept += ["papermill_runs/executed/a"]
    small, large = [], ["data/results/scores/a", "papermill_runs/recording/overnight/a"]
    for name in profiles.PROFILES:
        files = small if name in SMALL else large
        for run_name in (name, f"{name}-qwen3-8b"):
            files += [f"data/tables/{run_name}/a", f"papermill_runs/{run_name}/a"]
            files += [f"papermill_runs/report/{run_name}/a", f"figures/{run_name}/a"]
    files = {*kept, *small, *large}
    for file in (tmp_path / name for name in files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert make("clean", cwd=tmp_path).returncode == 0
    assert {name for name in files if (tmp_path / name).exists()} == files - {*small}
    printed = make("clean-all", cwd=tmp_path).stdout
    assert {name for name in files if (tmp_path / name).exists()} == {*kept}
    for name in large:  # is said to be deleted
        assert any(str(folder) in printed for folder in Path(name).parents[:-2]), name


def test_the_lab_works_on_copies(tmp_path):
    """A second `make lab` keeps what was changed in them; links from them lead to the checkout."""
    for name in ("notebooks/a.ipynb", "exercises/b.ipynb", "figures/c.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("of the checkout")
    program(tmp_path / ".venv/bin/jupyter", "")
    for content in ("of the checkout", "mine"):
        assert make("lab", cwd=tmp_path, CONDA_PREFIX="").returncode == 0
        assert (tmp_path / "lab/notebooks/a.ipynb").read_text() == content
        (tmp_path / "lab/notebooks/a.ipynb").write_text("mine")
    assert (tmp_path / "notebooks/a.ipynb").read_text() == "of the checkout"
    assert (tmp_path / "lab/notebooks/../figures/c.png").exists()


def test_the_benchmark_runs(capsys):
    """Scores are the same in both ways; no time is judged."""
    assert bench.main(["--tiny"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"(\d+) of \1 scores are the same", printed)
