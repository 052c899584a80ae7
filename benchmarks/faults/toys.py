"""A toy notebook and toy models for the real runner: each does what its name says.

`python -m benchmarks.faults.toys FOLDER NAME …` is `python -m replication` over them, one job each:
that of its map.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import nbformat
import psutil

from benchmarks.faults import kernel
from replication import __main__ as run
from replication import paths
from replication.profiles import Profile
from replication.run import execution, measuring
from replication.run.execution import Launch, Outcome
from replication.run.jobs import Job
from replication.run.notebooks import Notebook

TOY = Notebook("toy", 0, ("figure_toy",))


# ---- in the runner ---------------------------------------------------------------------------


def set_up(folder: Path, names: list[str]) -> list[str]:
    """Write the toy notebook and the models into `folder`; return the models' paths."""
    head = "PROFILE = 'smoke'\nMODELS: list = None"
    body = "from benchmarks.faults import kernel\n\nkernel.work(PROFILE, MODELS)"
    cells = [
        nbformat.v4.new_code_cell(head, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(body),
    ]
    kernelspec = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec})
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / "notebooks" / "toy.ipynb")
    for name in names:
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text(json.dumps({"num_hidden_layers": 8}))
    return [str(folder / name) for name in names]


def attempt(launch: Launch) -> Outcome:
    """Run a launch in a Ray worker, which knows nothing of the toys yet; "dies" kills it."""
    paths.NOTEBOOKS = Path(os.environ["TOYS"]) / "notebooks"
    name = launch.job.removesuffix("-map")
    kernel.note("tried", name)
    if name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    outcome = execution.attempt(launch)
    kernel.note("ended", name)
    return outcome


def measure(job: Job, profile: Profile, notebooks: list[str]) -> Outcome:
    """Measure a toy's job."""
    kernel.toy(Path(job.model).name)
    return Outcome("ok")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults.toys",
        description=__doc__.split("\n")[0],
        epilog="Further options are those of `python -m replication`, as --engine=ray.",
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of the toy models")
    chosen, options = parser.parse_known_args(argv)
    if chosen.names:
        options = ["--profile", "smoke", "--models", *set_up(chosen.folder, chosen.names), *options]
    elif "--job" not in options:
        parser.error("name a toy model")
    if "--engine=ray" in options:
        from replication.run import cluster

        cluster.Ray = partial(cluster.Ray, attempt)
    paths.NOTEBOOKS = chosen.folder / "notebooks"
    run.NOTEBOOKS, measuring.run_job = {"01": TOY}, measure
    run.COMMAND = (sys.executable, "-m", "benchmarks.faults.toys", str(chosen.folder))
    return run.main(options)


# ---- around the runner -----------------------------------------------------------------------


def start(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen:
    """A runner over toy models, with these environment variables; it writes to `folder`/output."""
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.faults.toys", str(folder), *arguments],
        env=environment(folder) | variables,
        cwd=paths.ROOT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # `make test &` ignores it
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def environment(folder: Path) -> dict:
    """The environment of a runner over the toys of `folder`."""
    return os.environ | {
        "DEEPER_LAYERS_OUTPUT": str(folder / "output"),
        "PYTHONPATH": str(paths.ROOT),
        "TOYS": str(folder),
    }


def finish(runner: subprocess.Popen) -> tuple[int, str]:
    """Wait for a runner: its exit status and all that it printed."""
    out, error = runner.communicate(timeout=1200)
    return runner.returncode, out + error


def row(printed: str, name: str) -> str:
    """The line of the closing table about `name`."""
    table = printed[printed.index("status  ") :].splitlines()
    return next(line for line in table if name in line)


def lines(folder: Path, file: str = "measured") -> list[str]:
    """The lines that toys noted, so far."""
    place = folder / "output" / file
    return place.read_text(encoding="utf-8").splitlines() if place.exists() else []


def until(condition, seconds: float = 300) -> None:
    """Wait for `condition()` to hold. Raises AssertionError if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def processes(folder: Path) -> list[psutil.Process]:
    """Every process that writes to `folder`/output: runners, workers and kernels."""
    running = []
    for process in psutil.process_iter(["environ"]):
        output = (process.info["environ"] or {}).get("DEEPER_LAYERS_OUTPUT")
        if output == str(folder / "output") and process.status() != psutil.STATUS_ZOMBIE:
            running.append(process)
    return running


if __name__ == "__main__":
    sys.exit(main())
