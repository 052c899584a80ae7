"""Rows as files: read, checked against `schema.json`, written. A broken row is refused."""

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema  # comes with nbformat, of papermill

from lib import storage
from lib.paths import DATA

ROWS = DATA / "rows"  # committed: ours, and those that others have sent
SCHEMA = json.loads(Path(__file__).with_name("schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
SAME = ("profile", "revision", "dtype", "quantization")  # of two rows of one measurement


class RowError(ValueError):
    """A row is broken; the message says where, in one sentence."""


def read(file: Path) -> dict:
    """Return the row of a file. Raises RowError for a broken one, OSError without the file."""
    try:
        row = json.loads(file.read_text(encoding="utf-8"), parse_constant=_not_finite)
        check(row)
    except ValueError as error:  # RowErrors, and what is no JSON
        raise RowError(f"{file.name}: {error}") from None
    if not file.stem.startswith(storage.component(row["model"])):
        raise RowError(f"{file.name}: the row is of {row['model']}, so name the file after it.")
    return row


def read_all(folder: Path | None = None) -> dict[str, dict]:
    """Return all rows by the names of their files. Raises RowError for the first broken one."""
    files = sorted((folder or ROWS).glob("*.json"))
    return {file.stem: read(file) for file in files}


def write(row: dict, folder: Path) -> Path:
    """Write a row into a folder of rows and return its file: <model>.json, or a longer name where
    that is a row of another measurement. Raises RowError for a broken one."""
    check(row)
    name = storage.component(row["model"])
    file = folder / f"{name}.json"
    if file.exists() and any(read(file)[key] != row[key] for key in SAME):
        file = folder / f"{name}.{row['profile']}-{row['dtype']}-{row['revision'][:8]}.json"
    storage.atomic_write(file, text(row).encode())
    return file


def text(row: dict) -> str:
    """Return a row as its file has it."""
    return json.dumps(row, indent=1, allow_nan=False) + "\n"


def check(row: dict) -> None:
    """Raise RowError for a row that does not fit the schema, whose intervals lie outside their
    ends, or in which something is null without a reason, or has a reason without being null."""
    errors = sorted(VALIDATOR.iter_errors(row), key=lambda error: list(map(str, error.path)))
    for error in errors[:1]:
        path = ".".join(map(str, error.path))
        raise RowError(f"{path + ': ' if path else ''}{error.message}.")
    for path, value in _parts(row):
        if isinstance(value, dict) and {"low", "high"} <= value.keys():
            _check_interval(path, value)
    empty = {path for path, value in _parts(row) if value is None and _needs_reason(path)}
    for path in sorted(empty - row["missing"].keys()):
        raise RowError(f"{path} is null, and `missing` does not say why.")
    for path in sorted(row["missing"].keys() - empty):
        raise RowError(f"`missing` says why {path} is null, and it is not.")


def _check_interval(path: str, interval: dict) -> None:
    ends = [interval[name] for name in ("low", "value", "high")]
    known = [end for end in ends if end is not None]
    if not known:
        raise RowError(f"{path} has neither a value nor an end: make it null, and say why.")
    if known != sorted(known):
        raise RowError(f"{path}: {interval['value']} does not lie between its low and its high.")


def _needs_reason(path: str) -> bool:
    """Return whether a part of a row is a number; its origin and the ends of intervals are not."""
    first, _, rest = path.partition(".")
    is_end = path.rpartition(".")[2] in ("value", "low", "high", "stability")
    return (bool(rest) or first == "depth") and first != "missing" and not is_end


def _parts(row: dict, before: str = "") -> Iterator[tuple[str, object]]:
    """Yield the path and the value of each part of a row, at any depth."""
    for name, value in row.items():
        yield before + name, value
        if isinstance(value, dict):
            yield from _parts(value, f"{before}{name}.")


def _not_finite(constant: str):
    raise RowError(f"{constant} is no number: what is not known is null.")
