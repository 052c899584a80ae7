"""One measurement, one JSON file: complete and valid, or absent.

A file's name is the sha256 of the canonical parameters: everything that changes a number. So a
result can be looked up before anything is loaded, and a changed parameter never finds an old one.
"""

import hashlib
import json
import math
import os
import platform
import re
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from lib import paths

SCHEMA = 1


def key(kind: str, params: dict) -> str:
    """sha256 of the canonical JSON of a measurement's parameters."""
    text = json.dumps({"kind": kind} | params, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def location(kind: str, params: dict) -> Path:
    """The file of a measurement."""
    model = re.sub(r"[^A-Za-z0-9._-]+", "-", str(params.get("model", "any"))).strip(".-")[-60:]
    return paths.RESULTS / kind / f"{model}-{key(kind, params)[:20]}.json"


def load(kind: str, params: dict) -> dict | None:
    """The stored record, or None if it is absent or not valid."""
    try:
        record = json.loads(location(kind, params).read_text(encoding="utf-8"))
        valid = (
            record["schema"] == SCHEMA
            and record["key"] == key(kind, params)
            and record["status"] == "ok"
            and _finite(record["values"])
        )
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return None
    return record if valid else None


def save(kind: str, params: dict, values: dict, seconds: float) -> dict:
    """Store a measurement whole or not at all, and return its record.

    Raises ValueError if a value is not finite.
    """
    if not _finite(values):
        raise ValueError(f"A {kind} result of {params.get('model')} is not finite; not stored.")
    record = {
        "schema": SCHEMA,
        "key": key(kind, params),
        "kind": kind,
        "params": params,
        "status": "ok",
        "values": values,
        "seconds": round(seconds, 3),
        "environment": environment(),
    }
    target = location(kind, params)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(record, file, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, target)
    return record


def load_or_compute(kind: str, params: dict, compute: Callable[[], dict]) -> dict:
    """The stored record of a measurement, else that of `compute()`, stored."""
    record = load(kind, params)
    if record is None:
        start = time.monotonic()
        values = compute()
        record = save(kind, params, values, time.monotonic() - start)
    return record


def discard(kind: str, params: dict) -> None:
    """Forget a measurement, so that it is made again."""
    location(kind, params).unlink(missing_ok=True)


def environment() -> dict:
    """What the numbers were made with."""
    packages = ("torch", "transformers", "bitsandbytes", "datasets")
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    } | {name: version(name) for name in packages}


def _finite(value) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
