"""Execute one notebook through papermill, or one job, and judge it by what it leaves.

Never by the notebook's own metadata: one whose kernel was killed can say that every cell completed.
A notebook counts as done if it ran to its end and left its figures; only then does its executed
copy appear under its own name. Each has a fresh kernel, so a dead one hurts nothing else. A job is
a process of its own: the run's command, with `--job NAME`.
"""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from unittest import mock

import huggingface_hub
import papermill

from lib.models import machine
from replication import paths, profiles
from replication.run.notebooks import Notebook

KEEP_MEMORY = (  # freed memory stays with the kernel, in large pages: 0.85 of a healing step's time
    "glibc.malloc.hugetlb=1"
    ":glibc.malloc.mmap_threshold=4294967296"
    ":glibc.malloc.trim_threshold=4294967296"
)
# a row without a value that says so is measured, not missing
DIVERGED, NO_ANSWER = "diverged", "no answer"
NAMES_AND_NUMBERS = re.compile(r"""'.*?'|".*?"|\S*[\d/]\S*""")
# whatever else a message says: each library words a full disk, and each kernel a broken card, anew
CAUSES = ("no space left on device", "cuda error")
RUNNER = "DEEPER_LAYERS_RUNNER"  # the process without which a job ends
STATUSES = {  # of errors, which a kernel passes on by their name
    "GatedError": "skipped: gated",
    "ModelError": "skipped: not available",
    "NotMeasured": "incomplete",
    "DeadKernelError": "killed",
    "MemoryError": "oom",
    "OutOfMemoryError": "oom",
}


@dataclass(frozen=True)
class Launch:
    """A notebook and its parameters, or a job's name and command."""

    notebook: Notebook | None = None
    parameters: dict = field(default_factory=dict)
    read_only: bool = False  # what is missing stays missing
    job: str = ""
    command: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.job or self.notebook.file

    @property
    def profile(self) -> str:
        return self.parameters.get("PROFILE", "quick")

    @property
    def folder(self) -> Path:
        """Where the executed copy goes."""
        models, texts = map(self.parameters.get, ("MODELS", "TEXTS"))
        return paths.RUNS / profiles.folder(self.profile, models, texts)

    @property
    def tables(self) -> list[Path]:
        """The tables next to the notebook's figures."""
        figures = paths.FIGURES / self.folder.name
        return [figures / f"{name}.csv" for name in self.notebook.figures]

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

    @property
    def kind_of_failure(self) -> str | None:
        """Return what failures for one reason have in common; None if this is none of a machine's.

        Too little memory, and what was killed for it, tells of the launch, not of the machine.
        """
        if self.status != "failed":
            return None
        message = self.reason.rpartition(" failed: ")[2]
        cause = next((cause for cause in CAUSES if cause in message.lower()), None)
        return cause or NAMES_AND_NUMBERS.sub("", message)

    def json(self) -> str:
        """Return the last line that a job prints."""
        return json.dumps(asdict(self))


def attempt(launch: Launch) -> Outcome:
    """Execute a notebook or a job and return how it ended."""
    start = time.monotonic()
    ended = _run_job(launch) if launch.job else _run_notebook(launch)
    return replace(ended, seconds=round(time.monotonic() - start, 3))


def failure(error: Exception) -> Outcome:
    """Return the Outcome of what ended with an error: its status, and its message's first line."""
    name = getattr(error, "ename", type(error).__name__)
    message = without_tokens(getattr(error, "evalue", None) or str(error))
    reason = (message.strip() or name).splitlines()[0]
    status = "oom" if machine.is_out_of_memory(reason) else STATUSES.get(name, "failed")
    return Outcome(status, reason)


def outcome_of(gaps: Iterable[tuple[str, str]]) -> Outcome:
    """Return the Outcome of what ran to its end without some values: of which models, and why."""
    gaps = [gap for gap in gaps if not gap[1].startswith(NO_ANSWER)]  # the figure says it
    complete = all(status.startswith(DIVERGED) for _, status in gaps)
    missing = ", ".join(f"{model} ({status})" for model, status in gaps)
    return Outcome("ok" if complete else "incomplete", f"without {missing}" if gaps else "")


def without_tokens(text: str) -> str:
    """Return a text in which the hub's access tokens are struck out: logs and copies are shown."""
    tokens = {os.environ.get("HF_TOKEN"), os.environ.get("HUGGING_FACE_HUB_TOKEN")}
    for token in {*tokens, huggingface_hub.get_token()} - {None, ""}:
        text = text.replace(token, "<token>")
    return text


def _strike_out_tokens(file: Path) -> str:
    """Strike access tokens out of a file; return what is left."""
    text = file.read_text(encoding="utf-8", errors="replace")
    if text != (clean := without_tokens(text)):
        file.write_text(clean, encoding="utf-8")
    return clean


def _environment(launch: Launch) -> AbstractContextManager:
    """Set the environment of a kernel or a job: its GPU, its memory, whether it only draws."""
    variables = {
        "CUDA_VISIBLE_DEVICES": machine.first_gpu(),
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", KEEP_MEMORY),
        RUNNER: str(os.getpid()),
        paths.FRAMES: "1",
    }
    if launch.read_only:
        variables[paths.DRAW_ONLY_VARIABLE] = "1"
    return mock.patch.dict(os.environ, variables)


# ---- a job ---------------------------------------------------------------------------------


def _run_job(launch: Launch) -> Outcome:
    """Execute a job in a process of its own; its last line says how it ended."""
    launch.log.parent.mkdir(parents=True, exist_ok=True)
    command = [*launch.command, "--job", launch.job]
    try:
        with _environment(launch), launch.log.open("wb") as log:
            done = subprocess.run(command, stdout=log, stderr=log, cwd=paths.ROOT)
    finally:
        printed = _strike_out_tokens(launch.log)
    if done.returncode == -signal.SIGKILL:  # from outside, as where the machine's memory ends
        return Outcome("killed", "It was killed.")
    if done.returncode < 0:
        return Outcome("failed", f"It was ended by {signal.Signals(-done.returncode).name}.")
    last = (printed.splitlines() or ["it printed nothing."])[-1]
    try:
        return Outcome(**json.loads(last))
    except (ValueError, TypeError):  # it ended before it could say
        return Outcome("failed", f"{launch.job} failed: {last}")


def resumable(command: Callable[[], int]) -> int:
    """Return a command's exit status; of one that is interrupted 130, after a sentence."""
    try:
        return command()
    except KeyboardInterrupt:
        print("Interrupted; the same command resumes from here.", file=sys.stderr)
        return 130


def end_with_runner() -> None:
    """End this process, a job, when the one that started it is gone, however that ended."""
    runner = os.environ.get(RUNNER)

    def watch() -> None:
        while str(os.getppid()) == runner:
            time.sleep(1)
        os._exit(1)

    if runner:
        threading.Thread(target=watch, daemon=True).start()


# ---- a notebook ----------------------------------------------------------------------------


def _run_notebook(launch: Launch) -> Outcome:
    """Execute a notebook; its copy is called <name>.failed.ipynb if it fails or lacks a figure."""
    copy = launch.folder / f"{launch.name}.ipynb"
    running, failed = copy.with_suffix(".running.ipynb"), copy.with_suffix(".failed.ipynb")
    launch.folder.mkdir(parents=True, exist_ok=True)
    start = time.time()
    try:
        _execute(launch, running)
        if absent := _absent(launch, start):
            return Outcome("failed", f"{copy.name} finished without writing {absent[0].name}.")
        os.replace(running, copy)
    except Exception as error:
        ended = failure(error)
        return replace(ended, reason=f"{copy.name} failed: {ended.reason}")
    finally:
        if running.exists():
            os.replace(running, failed)
    return _gaps(launch)


def _execute(launch: Launch, copy: Path) -> None:
    """Run a notebook in a kernel of its own, which ends with it."""
    try:
        with _environment(launch):
            papermill.execute_notebook(
                str(paths.NOTEBOOKS / f"{launch.name}.ipynb"),
                str(copy),
                launch.parameters,
                kernel_name="python3",
                cwd=str(paths.ROOT),  # as a job's: a hub id is no folder of the notebooks
                extra_arguments=["--log-level=ERROR"],
                shutdown_kernel="immediate",  # all is written; torch takes two seconds to leave
                progress_bar=sys.stderr.isatty(),
            )
    finally:
        if copy.exists():
            _strike_out_tokens(copy)


def _absent(launch: Launch, start: float) -> list[Path]:
    """Return which files of a notebook's figures were not written since `start`."""
    pictures = [table.with_suffix(".png") for table in launch.tables]
    files = [*pictures, *launch.tables]
    return [file for file in files if not file.exists() or file.stat().st_mtime < start - 1]


def _gaps(launch: Launch) -> Outcome:
    """Judge a notebook that ran to its end by the rows of its figures without a value."""
    gaps = []
    for table in launch.tables:
        with table.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if not row.get("value")]
        gaps += [row for row in rows if row.get("status", "ok") not in ("", "ok")]
    if launch.profile == profiles.DRAW_ONLY_PROFILE:  # what the record lacks, nobody can add
        reasons = Counter(row["status"].removeprefix(f"{NO_ANSWER}: ") for row in gaps)
        counted = [f"{count} points without a value: {why}" for why, count in reasons.items()]
        return Outcome("ok", "; ".join(counted))
    return outcome_of(dict.fromkeys((row["model"], row["status"]) for row in gaps))
