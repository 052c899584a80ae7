"""Execute one notebook through papermill, or one job, and judge it by what it leaves.

Never by the notebook's own metadata: one whose kernel was killed can say that every cell completed.
A notebook counts as done if it ran to its end and left its figures; only then does its executed
copy appear under its own name. Each has a fresh kernel, so a dead one hurts nothing else. A job is
a process of its own: the run's command, with `--job NAME`.
"""

import csv
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from unittest import mock

import huggingface_hub
import pandas as pd
import papermill
import psutil

from lib.models import machine
from replication import paths, profiles
from replication.run.notebooks import Notebook
from replication.tables import NotMeasured

KEEP_MEMORY = (  # freed memory stays with the kernel, in large pages: less time, the same numbers
    "glibc.malloc.hugetlb=1"
    ":glibc.malloc.mmap_threshold=4294967296"
    ":glibc.malloc.trim_threshold=4294967296"
)
# a row without a value that says so is measured, not missing
FINDINGS = DIVERGED, NO_ANSWER = "diverged", "no answer"
STATUS = 22  # characters of a status in the closing table
RUNNER = "DEEPER_LAYERS_RUNNER"  # the process without which a job ends


@dataclass(frozen=True)
class Launch:
    """A notebook and its parameters, or a job's name and command."""

    notebook: Notebook | None = None
    parameters: dict = field(default_factory=dict)
    read_only: bool = False  # what is missing stays missing
    job: str = ""
    command: tuple[str, ...] = ()

    @property
    def profile(self) -> str:
        return self.parameters.get("PROFILE", "quick")

    @property
    def folder(self) -> Path:
        """Where the executed copy goes."""
        return paths.RUNS / profiles.folder(self.profile, self.parameters.get("MODELS"))

    @property
    def figures(self) -> Path:
        """Where the notebook puts its pictures."""
        return paths.FIGURES / self.folder.name

    @property
    def log(self) -> Path:
        """What a job prints goes there."""
        return paths.RESULTS / "jobs" / f"{self.job}.log"


@dataclass(frozen=True)
class Outcome:
    """How a launch ended.

    status: "ok", "incomplete" (figures with points missing), "oom", "killed", "skipped: gated",
    "skipped: not available", "lost" (its machine died) or "failed". reason: one sentence.
    """

    status: str
    reason: str = ""
    seconds: float = 0.0

    def json(self) -> str:
        """Return the last line that a job prints."""
        return json.dumps(asdict(self))

    def row(self, name: str) -> str:
        """Return its row of the closing table."""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.status:{STATUS}} {self.seconds:8.0f} s  {name}{reason}"


class RunError(RuntimeError):
    """A notebook did not finish; the message says why in one sentence, the status in a word."""

    def __init__(self, message: str, status: str = "failed"):
        super().__init__(message)
        self.status = status


def attempt(launch: Launch) -> Outcome:
    """Execute a notebook or a job and return how it ended, whatever happens."""
    start, began = time.monotonic(), time.time()
    try:
        if launch.job:
            ended = _attempt_job(launch)
        else:
            execute(launch)
            ended = _judged(launch)
    except RunError as error:
        ended = Outcome(error.status, str(error))
        if launch.profile == profiles.DRAWN and error.status == "incomplete":
            _draw_not_recorded(launch, began)
            ended = _judged(launch)
    return replace(ended, seconds=round(time.monotonic() - start, 3))


def _attempt_job(launch: Launch) -> Outcome:
    """Execute a job in a process of its own; its last line says how it ended."""
    launch.log.parent.mkdir(parents=True, exist_ok=True)
    command = [*launch.command, "--job", launch.job]
    try:
        with _environment(launch), _no_process_left(), launch.log.open("wb") as log:
            done = subprocess.run(
                command, stdout=log, stderr=log, cwd=paths.ROOT, start_new_session=True
            )
    finally:
        printed = _without_tokens(launch.log.read_text(encoding="utf-8", errors="replace"))
        launch.log.write_text(printed, encoding="utf-8")
    if done.returncode < 0:
        return Outcome("killed", "It was killed.")
    last = (printed.splitlines() or ["it printed nothing."])[-1]
    try:
        return Outcome(**json.loads(last))
    except (ValueError, TypeError):  # it ended before it could say
        return Outcome("failed", f"{launch.job} failed: {last}")


def _judged(launch: Launch) -> Outcome:
    """Judge a notebook that ran to its end by the rows of its figures without a value."""
    rows = []
    for table in _tables(launch):
        with table.open(newline="", encoding="utf-8") as file:
            rows += [row for row in csv.DictReader(file) if row.get("status")]
    gaps = [row for row in rows if row["status"] != "ok" and not row.get("value")]
    if launch.profile == profiles.DRAWN:  # what the record lacks, nobody can add
        lacking = [row for row in gaps if not row["status"].startswith(FINDINGS)]
        return Outcome("ok", f"{len(lacking)} of {len(rows)} points not recorded" * bool(lacking))
    return judged(dict.fromkeys((row["model"], row["status"]) for row in gaps))


def judged(gaps: Iterable[tuple[str, str]]) -> Outcome:
    """Judge what ran to its end without some values: of which models, and why."""
    gaps = [gap for gap in gaps if not gap[1].startswith(NO_ANSWER)]  # the figure says it
    complete = all(status.startswith(DIVERGED) for _, status in gaps)
    missing = ", ".join(f"{model} ({status})" for model, status in gaps)
    return Outcome("ok" if complete else "incomplete", f"without {missing}" if gaps else "")


def _draw_not_recorded(launch: Launch, start: float) -> None:
    """Draw in words what a notebook has not drawn since `start`, as the record has nothing of it;
    its copy, which ends with the cell that says so, gets its name."""
    from replication.figures import style  # here, since others draw in a kernel

    profile = profiles.get(launch.profile, launch.parameters.get("MODELS"))
    models = [{"model": name, "status": NotMeasured.status} for name in profile.models]
    for table in _tables(launch):
        if not _is_new(table, start):
            style.save(style.nothing_measured(pd.DataFrame(models)), table.stem, profile)
    copy = launch.folder / f"{launch.notebook.file}.failed.ipynb"
    os.replace(copy, launch.folder / f"{launch.notebook.file}.ipynb")


def _is_new(file: Path, start: float) -> bool:
    return file.exists() and file.stat().st_mtime >= start - 1


def _tables(launch: Launch) -> list[Path]:
    """Return the tables next to the notebook's figures."""
    return [launch.figures / f"{name}.csv" for name in launch.notebook.figures]


def execute(launch: Launch) -> Path:
    """Run a notebook and return its executed copy.

    Raises RunError if it fails or leaves a figure out; its copy is then kept as
    <name>.failed.ipynb. No process of it is left, whatever happens.
    """
    name = launch.notebook.file
    running = launch.folder / f"{name}.running.ipynb"
    start = time.time()
    try:
        launch.folder.mkdir(parents=True, exist_ok=True)
        with _environment(launch), _no_process_left():
            papermill.execute_notebook(
                str(paths.NOTEBOOKS / f"{name}.ipynb"),
                str(running),
                launch.parameters,
                kernel_name="python3",
                cwd=str(paths.ROOT),  # as a job's: a hub id is no folder of the notebooks
                extra_arguments=["--log-level=ERROR"],
                shutdown_kernel="immediate",  # all is written; torch takes two seconds to leave
                progress_bar=sys.stderr.isatty(),
            )
        for table in _tables(launch):
            for file in (table.with_suffix(".png"), table):
                if not _is_new(file, start):
                    raise RunError(f"{name}.ipynb finished without writing {file.name}.")
    except BaseException as error:
        if running.exists():
            _keep(running, launch.folder / f"{name}.failed.ipynb")
        if isinstance(error, RunError) or not isinstance(error, Exception):
            raise
        raise RunError(f"{name}.ipynb failed: {_reason(error)}", _status(error)) from error
    return _keep(running, launch.folder / f"{name}.ipynb")


# ---- one execution -------------------------------------------------------------------------


def end_with_runner() -> None:
    """End this process, a job, when the one that started it is gone, however that ended."""
    runner = os.environ.get(RUNNER)

    def watch() -> None:
        while str(os.getppid()) == runner:
            time.sleep(1)
        os._exit(1)

    if runner:
        threading.Thread(target=watch, daemon=True).start()


def _environment(launch: Launch) -> AbstractContextManager:
    """Set the environment of a kernel or a job: its GPU, its memory, whether it only draws."""
    variables = {"CUDA_VISIBLE_DEVICES": machine.first_gpu(), RUNNER: str(os.getpid())}
    if launch.read_only:
        variables[paths.DRAW_ONLY] = "1"
    if launch.profile != "smoke":  # whose pages nobody reads
        variables[paths.FRAMES] = "1"
    library, version = platform.libc_ver()
    if library == "glibc" and tuple(map(int, version.split("."))) >= (2, 35):  # it knows of it
        variables["GLIBC_TUNABLES"] = os.environ.get("GLIBC_TUNABLES", KEEP_MEMORY)
    return mock.patch.dict(os.environ, variables)


@contextmanager
def _no_process_left() -> Iterator[None]:
    """End every process that was started inside.

    Kernels have a session of their own, so neither Ctrl-C nor the death of a group reaches them.
    """
    mine = psutil.Process()
    before = set(mine.children(recursive=True))
    try:
        yield
    finally:
        for process in set(mine.children(recursive=True)) - before:
            with suppress(psutil.NoSuchProcess):
                process.kill()


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


def failure(error: Exception) -> Outcome:
    """Return the Outcome of what ended with an error."""
    return Outcome(_status(error), _reason(error))


def _reason(error: Exception) -> str:
    """Return the first line of an error's message."""
    message = getattr(error, "evalue", None) or str(error)
    return _without_tokens((message.strip() or type(error).__name__).splitlines()[0])


def _status(error: Exception) -> str:
    """Return a failure's word in the closing table; errors in a kernel come by name."""
    named = {
        "GatedError": "skipped: gated",
        "ModelError": "skipped: not available",
        "NotMeasured": "incomplete",
        "DeadKernelError": "killed",
        "MemoryError": "oom",
        "OutOfMemoryError": "oom",
    }
    name = getattr(error, "ename", type(error).__name__)
    return "oom" if machine.is_out_of_memory(_reason(error)) else named.get(name, "failed")
