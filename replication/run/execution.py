"""Execute one notebook through papermill, and judge it by what it leaves.

Never by the notebook's own metadata: one whose kernel was killed can say that every cell completed.
A notebook counts as done if it ran to its end and left its figures; only then does its executed
copy appear under its own name. Each has a fresh kernel, so a dead one hurts nothing else.
"""

import csv
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import huggingface_hub
import papermill
import psutil

from lib.healing.recipe import is_out_of_memory
from replication import paths, profiles
from replication.run.notebooks import Notebook

KEEP_MEMORY = (  # freed memory stays with the kernel, in large pages: less time, the same numbers
    "glibc.malloc.hugetlb=1"
    ":glibc.malloc.mmap_threshold=4294967296"
    ":glibc.malloc.trim_threshold=4294967296"
)
FINDINGS = ("diverged", "no answer")  # a row without a value that says so is measured, not missing


@dataclass(frozen=True)
class Launch:
    """A notebook, its parameters, and the limits of its run.

    A shard keeps its figures and its copy to itself, next to the results that it leaves: whoever
    deletes these has it run again.
    """

    notebook: Notebook
    parameters: dict = field(default_factory=dict)
    shard: str = ""  # its folder under data/results/jobs; empty: the whole notebook
    read_only: bool = False  # what is missing stays missing
    time_limit: float | None = None  # minutes
    run_models: tuple[str, ...] = ()  # of the run that a shard is of

    @property
    def profile(self) -> str:
        return self.parameters.get("PROFILE", "quick")

    @property
    def folder(self) -> Path:
        """Where the executed copy goes."""
        return paths.RESULTS / "jobs" / self.shard if self.shard else paths.RUNS / self.profile

    @property
    def figures(self) -> Path:
        """Where the notebook puts its pictures."""
        return (self.folder if self.shard else paths.FIGURES) / self.profile


@dataclass(frozen=True)
class Outcome:
    """How a launch ended.

    status: "ok", "incomplete" (figures with points missing), "oom", "killed", "time limit",
    "skipped: gated", "skipped: not available", "lost" (its machine died) or "failed".
    reason: one sentence.
    """

    status: str
    reason: str = ""
    seconds: float = 0.0


class RunError(RuntimeError):
    """A notebook did not finish; the message says why in one sentence, the status in a word."""

    def __init__(self, message: str, status: str = "failed"):
        super().__init__(message)
        self.status = status


def attempt(launch: Launch) -> Outcome:
    """`execute`, with every end of the notebook as an Outcome."""
    start = time.monotonic()
    try:
        execute(launch)
        ended = _judged(launch)
    except RunError as error:
        ended = Outcome(error.status, str(error))
    return replace(ended, seconds=round(time.monotonic() - start, 3))


def finished(launch: Launch) -> bool:
    """Whether it was executed before, and left all figures with all points."""
    left = [launch.folder / f"{launch.notebook.file}.ipynb", *_tables(launch)]
    return all(file.exists() for file in left) and _judged(launch).status == "ok"


def _judged(launch: Launch) -> Outcome:
    """The Outcome of a notebook that ran to its end, by the rows of its figures without a value."""
    gaps = {}
    for table in _tables(launch):
        with table.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row.get("status") and row["status"] != "ok" and not row.get("value"):
                    gaps[row["model"], row["status"]] = None
    as_recorded = launch.profile == profiles.DRAWN  # what the record lacks, nobody can add
    complete = as_recorded or all(status.startswith(FINDINGS) for _, status in gaps)
    missing = ", ".join(f"{model} ({status})" for model, status in gaps)
    return Outcome("ok" if complete else "incomplete", f"without {missing}" if gaps else "")


def _tables(launch: Launch) -> list[Path]:
    """The tables next to the notebook's figures."""
    return [launch.figures / f"{name}.csv" for name in launch.notebook.figures]


def execute(launch: Launch) -> Path:
    """Run a notebook and return its executed copy.

    Raises RunError if it fails, takes too long or leaves a figure out; its copy is then kept as
    <name>.failed.ipynb. No process of it is left, whatever happens.
    """
    name = launch.notebook.file
    running = launch.folder / f"{name}.running.ipynb"
    start = time.time()
    try:
        launch.folder.mkdir(parents=True, exist_ok=True)
        with _environment(launch), _bounded(launch.time_limit):
            papermill.execute_notebook(
                str(paths.NOTEBOOKS / f"{name}.ipynb"),
                str(running),
                launch.parameters,
                kernel_name="python3",
                cwd=str(paths.NOTEBOOKS),
                extra_arguments=["--log-level=ERROR"],
                shutdown_kernel="immediate",  # all is written; torch takes two seconds to leave
                progress_bar=sys.stderr.isatty(),
            )
        for table in _tables(launch):
            for file in (table.with_suffix(".png"), table):
                if not file.exists() or file.stat().st_mtime < start - 1:
                    raise RunError(f"{name}.ipynb finished without writing {file.name}.")
    except BaseException as error:
        if running.exists():
            _keep(running, launch.folder / f"{name}.failed.ipynb")
        if isinstance(error, RunError) or not isinstance(error, Exception):
            raise
        raise RunError(f"{name}.ipynb failed: {_reason(error)}", _status(error)) from error
    return _keep(running, launch.folder / f"{name}.ipynb")


# ---- one execution -------------------------------------------------------------------------


def _environment(launch: Launch) -> AbstractContextManager:
    """A kernel's environment: where its figures go, what it is a job of, its GPU, its memory."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "0")  # of several the first; none if it is empty
    variables = {
        "CUDA_VISIBLE_DEVICES": gpus.split(",")[0],
        "DEEPER_LAYERS_RUN_MODELS": json.dumps(launch.run_models),
    }
    if launch.shard:
        variables["DEEPER_LAYERS_FIGURES"] = str(launch.folder)
    if launch.read_only:
        variables["DEEPER_LAYERS_DRAW_ONLY"] = "1"
    library, version = platform.libc_ver()
    if library == "glibc" and tuple(map(int, version.split("."))) >= (2, 35):  # it knows of it
        variables["GLIBC_TUNABLES"] = os.environ.get("GLIBC_TUNABLES", KEEP_MEMORY)
    return mock.patch.dict(os.environ, variables)


@contextmanager
def _bounded(minutes: float | None) -> Iterator[None]:
    """No process that is started inside outlives it, or runs for more than `minutes`.

    Kernels have a session of their own, so neither Ctrl-C nor the death of a group reaches them.
    """
    mine, late = psutil.Process(), threading.Event()
    before = set(mine.children(recursive=True))

    def end() -> None:
        for process in set(mine.children(recursive=True)) - before:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def end_late() -> None:
        late.set()
        end()

    timer = threading.Timer((minutes or 0) * 60, end_late)
    try:
        if minutes:
            timer.start()
        yield
    except Exception as error:
        if late.is_set():
            raise RunError(f"It took longer than {minutes:g} minutes.", "time limit") from error
        raise
    finally:
        timer.cancel()
        end()


def _keep(running: Path, place: Path) -> Path:
    """Give an executed copy its name; an access token that its output shows is struck out."""
    text = running.read_text(encoding="utf-8")
    if text != (clean := _without_tokens(text)):
        running.write_text(clean, encoding="utf-8")
    os.replace(running, place)
    return place


def _without_tokens(text: str) -> str:
    names = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    for token in {*map(os.environ.get, names), huggingface_hub.get_token()} - {None, ""}:
        text = text.replace(token, "<token>")
    return text


def _reason(error: Exception) -> str:
    """The first line of an error's message."""
    message = getattr(error, "evalue", None) or str(error)
    return _without_tokens((message.strip() or type(error).__name__).splitlines()[0])


def _status(error: Exception) -> str:
    """A failure's word in the closing table; errors in a kernel come by name."""
    named = {
        "GatedError": "skipped: gated",
        "ModelError": "skipped: not available",
        "NotMeasured": "incomplete",
        "DeadKernelError": "killed",
        "MemoryError": "oom",
        "OutOfMemoryError": "oom",
    }
    name = getattr(error, "ename", type(error).__name__)
    return "oom" if is_out_of_memory(_reason(error)) else named.get(name, "failed")
