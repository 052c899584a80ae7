"""Results of measurements, a JSON file each: complete and valid, or absent. Private to `measure`.

A result is found by its key, the sha256 of the canonical parameters: everything that changes a
number. So a changed parameter never finds an old result. What cannot be read is set aside, never
deleted, and measured again. A result's status says how it ended: "ok", "diverged", "oom" (an "oom"
holds until the next run, which tries it again).
"""

import hashlib
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib.metadata import version
from itertools import count
from pathlib import Path

from filelock import FileLock

from lib import storage
from lib.models import machine
from lib.models.machine import processor
from replication import paths

VERSIONS = {"similarity": 3, "scores": 2, "healing": 4}  # bumped by hand when the numbers change
SCHEMA = 1
FIELDS = {"schema", "key", "kind", "params", "status", "values", "seconds", "environment"}

log = logging.getLogger(__name__)


def canonical(value) -> str:
    """Return the JSON of a value, the same for the same value; ValueError if it is not finite."""
    return json.dumps(value, sort_keys=True, allow_nan=False)


def key(kind: str, params: dict) -> str:
    """Return the sha256 of the canonical JSON of a measurement's parameters."""
    return hashlib.sha256(canonical({"kind": kind} | params).encode()).hexdigest()


def location(kind: str, params: dict) -> Path:
    """Return a result's file: <kind>/<model>/<task, block, …>-<first digits of the key>.json."""
    model = storage.component(str(params.get("model", ""))) or "any"
    name = storage.component("-".join([*_named(params), key(kind, params)[:8]]))
    return paths.RESULTS / kind / model / f"{name}.json"


def _named(params: dict) -> list[str]:
    """Return what a file's name shows: arc_easy-l13-n06-healed-r8-s0, mmlu-5shot-whole, c4-256."""
    data = params.get("data", "").rpartition(":")[2]
    parts = [params.get("task") or data, params.get("sequences")]
    parts.append(params.get("shots") and f"{params['shots']}shot")
    parts.append(params.get("first") and f"from{params['first']}")
    if "block_size" in params:
        block = "l{block_start:02}-n{block_size:02}".format(**params)
        parts.append(block if params["block_size"] else "whole")
    parts.append(params.get("map"))
    if "recipe" in params:
        parts.append("healed-r{rank}-s{seed}".format(**params["recipe"]))
    return [str(part) for part in parts if part]


def format_file() -> Path:
    """Return where `cpu_dtype` is kept."""
    return paths.RESULTS / "format.json"


def cpu_dtype() -> str:
    """Return the dtype of weights on a CPU where none is named: measured once, then kept.

    A run that resumes on another processor stays with it, and so finds its results.
    """
    file = format_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):  # the first of several processes decides
        if not file.exists():
            kept = {"dtype": machine.fastest(), "processor": processor()}
            storage.atomic_write(file, json.dumps(kept, indent=1).encode())
        return machine.checked(json.loads(file.read_bytes())["dtype"])


def weights_identity(name: str, quantization: str | None, dtype: str | None) -> dict:
    """Return that of `models.loading`, with the dtype that this run keeps where none is named."""
    from lib.models import loading  # here, since it loads torch

    if dtype is None and loading.default_device() == "cpu":
        dtype = cpu_dtype()
    return loading.weights_identity(name, quantization, dtype)


def load(kind: str, params: dict) -> dict | None:
    """Return the stored record, whatever its status, or None.

    A file that is not valid is set aside as `<name>.corrupt`, with one line in the log.
    """
    file = location(kind, params)
    try:
        return parsed(file.read_bytes(), kind, params)
    except FileNotFoundError:
        return None
    except ValueError as problem:
        aside = set_aside(file)
        log.warning("%s %s: set aside as %s, measured again.", file, problem, aside.name)
        return None


def set_aside(file: Path) -> Path:
    """Rename a file that cannot be read to a free `<name>.corrupt`, and return that."""
    names = (file.with_name(f"{file.name}{n or ''}.corrupt") for n in count())
    aside = next(name for name in names if not name.exists())
    with suppress(FileNotFoundError):  # another process has just done so
        os.replace(file, aside)
    return aside


def stored(kind: str) -> Iterator[dict]:
    """Yield the valid records of a kind."""
    for file in sorted(paths.RESULTS.glob(f"{kind}/*/*.json")):
        with suppress(ValueError):
            yield parsed(file.read_bytes(), kind)


def parsed(text: bytes, kind: str, params: dict | None = None) -> dict:
    """Return the record of a file. Raises ValueError, which says why it is not valid.

    params: whose record it must be, where that is known.
    """
    record = json.loads(text)
    if not isinstance(record, dict) or not FIELDS <= record.keys():
        raise ValueError("is not complete")
    if record["schema"] != SCHEMA:
        raise ValueError(f"has schema {record['schema']}, not {SCHEMA}")
    if not record["key"] == key(kind, record["params"]) == key(kind, params or record["params"]):
        raise ValueError("is of other parameters")
    canonical(record["values"])
    return record


def save(kind: str, params: dict, values: dict, seconds: float, status: str = "ok", **more) -> dict:
    """Store a measurement whole or not at all, and return its record.

    more: fields of the record instead of those of this process, as its environment. Raises
    ValueError if a value is not finite, OSError if it cannot be written.
    """
    record = {
        "schema": SCHEMA,
        "key": key(kind, params),
        "kind": kind,
        "params": params,
        "status": status,
        "values": values,
        "seconds": round(seconds, 3),
        "environment": environment(),
    } | more
    try:
        text = json.dumps(record, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        problem = f"A {kind} result of {params.get('model')} is not finite; not stored."
        raise ValueError(problem) from error
    storage.atomic_write(location(kind, params), text.encode())
    return record


def load_or_compute(kind: str, params: dict, compute: Callable[[], dict]) -> dict:
    """Return the stored record of a measurement, else that of `compute()`, stored.

    The status is that which the values name, else "ok"; likewise the seconds, else those that it
    took.
    """
    record = load(kind, params)
    if record is None:
        start, values = time.monotonic(), compute()
        took = values.pop("seconds", time.monotonic() - start)
        record = save(kind, params, values, took, values.get("status", "ok"))
    return record


def forget_out_of_memory(healings: Iterable[dict] | None = None) -> None:
    """Let this run try again what an earlier one had no memory for; of all, or of these params."""
    if healings is None:
        healings = [record["params"] for record in stored("healing")]
    for params in healings:
        record = load("healing", params)
        if record and record["status"] == "oom":
            location("healing", params).unlink(missing_ok=True)


def environment() -> dict:
    """Return what the numbers are made with: processor, card and its attention, versions."""
    packages = ("torch", "transformers", "bitsandbytes", "datasets")
    torch = sys.modules.get("torch")  # whoever measures on a GPU has imported it
    gpu = torch is not None and torch.cuda.is_available()
    flash = gpu and torch.cuda.get_device_capability() >= machine.FLASH
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "card": processor("cuda") if gpu else None,
        "attention": ("flash" if flash else "memory-efficient") if gpu else None,
    } | {name: version(name) for name in packages}
