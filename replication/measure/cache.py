"""Results of measurements, a small parquet file each: complete and valid, or absent.

A result is rows of a table from the moment it is measured: a row of a score or a healing, a row a
block of a map. Private to `measure`. It is found by its key, the sha256 of the canonical
parameters: everything that changes a number. So a changed parameter never finds an old result. One
result is one file, so several processes need no lock. What cannot be read is set aside, never
deleted, and measured again. A result's status says how it ended: "ok", "diverged", "oom" (an "oom"
holds until the next run, which tries it again).

Tables that are copied into `record_folder` are read as results, too: so a recorded run goes on.
"""

import functools
import gc
import hashlib
import io
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from filelock import FileLock

from lib import storage
from lib.models import machine
from lib.models.machine import processor
from replication import paths, tables
from replication.tables import BLOCK

VERSIONS = {"similarity": 3, "scores": 2, "healing": 4}  # bumped by hand when the numbers change
SCHEMA = 2  # of a result's file
WEIGHTS = ("model", "revision", "dtype", "quantization")
ORIGIN = ("status", "took", "request", "environment")  # columns that say how a row was made
# by kind: the results that rows of a table were made of, where they are not these very rows
RESULTS_OF: dict[str, Callable[[pd.DataFrame], Iterable[list[dict]]]] = {}

log = logging.getLogger(__name__)


# ---- keys and files --------------------------------------------------------------------------


def canonical(value) -> str:
    """Return the JSON of a value, the same for the same value; ValueError if it is not finite."""
    return json.dumps(value, sort_keys=True, allow_nan=False, default=lambda array: array.tolist())


def request_text(kind: str, params: dict) -> str:
    """Return the column `request` of a result's rows: its kind and parameters as JSON."""
    return canonical({"kind": kind} | params)


def params_of(rows: Sequence[dict]) -> dict:
    """Return the parameters of a result."""
    params = json.loads(rows[0]["request"])
    del params["kind"]
    return params


def key(kind: str, params: dict) -> str:
    """Return the sha256 of the canonical JSON of a measurement's parameters."""
    return hashlib.sha256(request_text(kind, params).encode()).hexdigest()


def location(kind: str, params: dict) -> Path:
    """Return a result's file: <kind>/<model>/<first digits of the key>.parquet."""
    folder = paths.RESULTS / kind / storage.component(params["model"])
    return folder / f"{key(kind, params)[:20]}.parquet"


def format_file() -> Path:
    """Return where `cpu_dtype` is kept."""
    return paths.RESULTS / "format.json"


def record_folder() -> Path:
    """Return where tables of a recorded run are put whose rows are read as results."""
    return paths.RESULTS / "record"


# ---- reading ---------------------------------------------------------------------------------


def load(kind: str, params: dict) -> list[dict] | None:
    """Return the rows of a stored result, whatever its status, or None.

    A file that is not valid is set aside as `<name>.corrupt`, with one line in the log.
    """
    file, request = location(kind, params), request_text(kind, params)
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return _recorded(record_folder()).get(request)
    try:
        rows = _parsed(content)
        if any(row["request"] != request for row in rows):
            raise ValueError("is of other parameters")
        return rows
    except (ValueError, OSError) as problem:
        aside = file.with_name(f"{file.name}.{time.time_ns()}.corrupt")
        with suppress(FileNotFoundError):  # another process has just set it aside
            os.replace(file, aside)
        log.warning("%s %s: set aside as %s, measured again.", file, problem, aside.name)
        return None


def exists(kind: str, params: dict) -> bool:
    """Return whether a result is stored."""
    if location(kind, params).exists():
        return True
    return request_text(kind, params) in _recorded(record_folder())


def stored(kind: str) -> Iterator[list[dict]]:
    """Yield the rows of each valid result of a kind."""
    for file in sorted(paths.RESULTS.glob(f"{kind}/*/*.parquet")):
        with suppress(ValueError, OSError):
            yield _parsed(file.read_bytes())
    for request, rows in _recorded(record_folder()).items():
        if json.loads(request)["kind"] == kind:
            yield rows


def _parsed(content: bytes) -> list[dict]:
    """Return the rows of a file. Raises ValueError or OSError, which say why it is not valid."""
    table = tables.read_file(io.BytesIO(content))
    if "schema" not in table or any(table.schema != SCHEMA):
        raise ValueError(f"has not schema {SCHEMA}")
    return table.drop(columns="schema").to_dict("records")


@functools.cache
def _recorded(folder: Path) -> dict[str, list[dict]]:
    """Return the rows of each result of a record by its request, as its tables have them.

    Of a result that several tables have, the first row has the columns of all of them.
    """
    recorded = {}
    for _, table in tables.read_all(folder):
        if "request" not in table:
            continue
        measured = table[(table.environment != "null") & (table.status != "oom")]
        for request, of_request in measured.groupby("request", sort=False):
            results_of = RESULTS_OF.get(json.loads(request)["kind"], _as_they_are)
            for rows in results_of(of_request):
                before = recorded.setdefault(rows[0]["request"], rows)
                before[0] = rows[0] | before[0]
    return recorded


def _as_they_are(rows: pd.DataFrame) -> list[list[dict]]:
    return [rows.to_dict("records")]


# ---- writing ---------------------------------------------------------------------------------


def columns(params: dict) -> dict:
    """Return the columns of a row that its parameters tell: weights, block, healing, task."""
    row = {name: params.get(name) for name in WEIGHTS}
    recipe = params.get("recipe", {})
    steps = recipe.get("steps", 0)
    if "block_start" in params:
        row |= {name: params[name] for name in BLOCK}
        row |= {name: recipe.get(name) for name in ("seed", "rank", "warmup_steps")}
        row |= {"steps": steps, "decay_steps": recipe.get("decay_steps", 0)}
    if "task" in params:
        row |= {"task": params["task"], "shots": params.get("shots")}
        row["tokens"] = steps * recipe.get("batch", 0) * recipe.get("max_tokens", 0)
    return row


def origin(kind: str, params: dict, status: str, seconds=None, environment=None) -> dict:
    """Return the columns of a row that say how it was made; without seconds: that it was not."""
    return {
        "status": status,
        "took": seconds,
        "request": request_text(kind, params),
        "environment": canonical(environment),
    }


def save(
    kind: str, params: dict, rows: Sequence[dict], seconds: float, status: str = "ok"
) -> list[dict]:
    """Store the rows of a result whole or not at all, and return them.

    Raises ValueError if a value is not finite, OSError if it cannot be written.
    """
    made = origin(kind, params, status, round(seconds, 3), environment())
    rows = [columns(params) | row | made for row in rows]
    try:
        canonical(rows)
    except ValueError as error:
        problem = f"A {kind} result of {params.get('model')} is not finite; not stored."
        raise ValueError(problem) from error
    tables.write_file(pd.DataFrame(rows).assign(schema=SCHEMA), location(kind, params))
    return rows


def forget_out_of_memory(healings: Iterable[dict] | None = None) -> None:
    """Let this run try again what an earlier one had no memory for; of all, or of these params."""
    chosen = None if healings is None else list(healings)
    for rows in stored("healing"):
        params = params_of(rows)
        if rows[0]["status"] == "oom" and (chosen is None or params in chosen):
            location("healing", params).unlink(missing_ok=True)


# ---- this machine ----------------------------------------------------------------------------


def cpu_dtype() -> str:
    """Return the dtype of weights on a CPU where none is named: measured once, then kept.

    A run that resumes on another processor stays with it, and so finds its results.
    """
    file = format_file()
    with FileLock(file.with_suffix(".lock")):  # the first of several processes decides
        if not file.exists():
            kept = {"dtype": machine.fastest(), "processor": processor()}
            storage.atomic_write(file, json.dumps(kept, indent=1).encode())
        return machine.checked(json.loads(file.read_bytes())["dtype"])


def weights_identity(name: str, quantization: str | None, dtype: str | None) -> dict:
    """Return that of `models.loading`, with the dtype that this run keeps where none is named."""
    is_first = "torch" not in sys.modules
    from lib.models import loading  # here, since it loads torch

    if is_first:  # imports leave 350,000 objects, which each of many collections would search
        gc.freeze()
    if dtype is None and loading.default_device() == "cpu":
        dtype = cpu_dtype()
    return loading.weights_identity(name, quantization, dtype)


def timing_identity(device: str) -> dict:
    """Return what of the machine changes a latency."""
    import torch

    threads = {"threads": torch.get_num_threads()} if device == "cpu" else {}
    return {"processor": processor(device)} | threads


def environment() -> dict:
    """Return what the numbers are made with: processor, card, versions."""
    packages = ("torch", "transformers", "bitsandbytes", "datasets")
    torch = sys.modules.get("torch")  # whoever measures on a GPU has imported it
    gpu = torch is not None and torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "card": processor("cuda") if gpu else None,
    } | {name: version(name) for name in packages}
