"""One measurement, one JSON file: complete and valid, or absent.

A result is found by its key before anything is loaded, and a changed parameter never finds an old
one. What cannot be read is set aside, never deleted, and measured again. Its status says how it
ended: "ok", "diverged", "oom" (an "oom" holds until the next run, which tries it again).
"""

import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version

from lib import storage
from lib.models import machine
from lib.models.machine import processor
from replication import paths
from replication.results.archive import (
    SCHEMA,
    AmbiguousError,
    Archive,
    archive,
    finite,
    key,
    location,
    parsed,
    stored,
)

VERSIONS = {"similarity": 3, "scores": 2, "healing": 4}  # bumped by hand when the numbers change
ARCHIVE: ContextVar[Archive | None] = ContextVar("archive", default=None)  # read within `reading`
_process_archive: Archive | None = None  # read by this process since `read_from`
DRAW_ONLY = "DEEPER_LAYERS_DRAW_ONLY"  # set in the environment of a run that only draws

machine.format_file = lambda: paths.RESULTS / "format.json"  # results are keyed by their dtype

log = logging.getLogger(__name__)


class NotMeasured(RuntimeError):
    """A result is not there, and this run only draws."""

    status = "not measured"


def load(kind: str, params: dict) -> dict | None:
    """The stored record, whatever its status, or None.

    A file that is not valid is set aside as `<name>.corrupt`, with one line in the log.
    """
    if read := archive_in_use():
        return read.find(kind, params)
    file = location(kind, params)
    try:
        record, problem = parsed(file.read_bytes(), kind, params)
    except FileNotFoundError:
        return None
    if problem:
        aside = storage.set_aside(file)
        log.warning("%s %s: set aside as %s, measured again.", file, problem, aside.name)
    return None if problem else record


def save(kind: str, params: dict, values: dict, seconds: float, status: str = "ok") -> dict:
    """Store a measurement whole or not at all, and return its record.

    Raises ValueError if a value is not finite, OSError if it cannot be written.
    """
    if not finite(values):
        raise ValueError(f"A {kind} result of {params.get('model')} is not finite; not stored.")
    record = {
        "schema": SCHEMA,
        "key": key(kind, params),
        "kind": kind,
        "params": params,
        "status": status,
        "values": values,
        "seconds": round(seconds, 3),
        "environment": environment(),
    }
    text = json.dumps(record, allow_nan=False, separators=(",", ":"))
    storage.atomic_write(location(kind, params), text.encode())
    return record


def load_or_compute(kind: str, params: dict, compute: Callable[[], dict]) -> dict:
    """The stored record of a measurement, else that of `compute()`, stored.

    The status is that which the values name, else "ok"; likewise the seconds, else those that it
    took. Raises NotMeasured if it is not stored and this process may only draw.
    """
    record = load(kind, params)
    if record is None:
        if read_only():
            raise NotMeasured(f"The {kind} result of {params.get('model')} was not measured.")
        start, values = time.monotonic(), compute()
        took = values.pop("seconds", time.monotonic() - start)
        record = save(kind, params, values, took, values.get("status", "ok"))
    return record


def forget_out_of_memory(healings: Iterable[dict] | None = None) -> None:
    """Let this run try again what an earlier one had no memory for; of all, or of these params."""
    if healings is None:
        healings = [record["params"] for record in stored(paths.RESULTS, "healing")]
    for params in healings:
        record = load("healing", params)
        if record and record["status"] == "oom":
            location("healing", params).unlink(missing_ok=True)


def read_only() -> bool:
    """Whether what is missing stays missing: the last pass of a run some of whose jobs failed."""
    return bool(archive_in_use() or os.environ.get(DRAW_ONLY))


def archive_in_use() -> Archive | None:
    """The archive that results are read from; None where they are the files of a run."""
    return ARCHIVE.get() or _process_archive


def read_from(read: Archive | None) -> None:
    """Results are those of `read` for the rest of this process; with None those of a run again.

    For a notebook, where `reading` would end with its cell.
    """
    global _process_archive
    _process_archive = read


@contextmanager
def reading(read: Archive) -> Iterator[None]:
    """Results are those of the archive `read` within, found by their request on any machine.

    What it lacks stays missing. No model is needed, nor its files.
    """
    token = ARCHIVE.set(read)
    try:
        yield
    finally:
        ARCHIVE.reset(token)


def environment() -> dict:
    """What the numbers were made with: processor, card (None without one), versions."""
    packages = ("torch", "transformers", "bitsandbytes", "datasets")
    torch = sys.modules.get("torch")  # whoever measures on a GPU has imported it
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "card": processor("cuda") if torch and torch.cuda.is_available() else None,
    } | {name: version(name) for name in packages}
