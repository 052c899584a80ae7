"""How results are named, checked and read back: one, or all of a folder.

A result's key is the sha256 of the canonical parameters: everything that changes a number. A run
leaves a JSON file each; the recorded run is kept as files `<kind>.<model>.….jsonl`, with a
line for each result, and run.json, which says once what holds for all lines.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lib import storage
from replication import paths

SCHEMA = 1
FIELDS = {"schema", "key", "kind", "params", "status", "values", "seconds", "environment"}
MACHINE = ("dtype", "device", "threads", "processor")  # parameters that the machine decides
VERSION_PARAMS = ("version", "prompt_version", "healing_version", "map_version")
DIGITS = 7  # significant ones, of what is recorded
WEIGHTS = ("dtype", "revision")  # parameters that say which weights of a model were measured
SHARED = ("schema", "environment")  # what run.json says once for all lines that say nothing else

log = logging.getLogger(__name__)


class AmbiguousError(ValueError):
    """Several results answer a request; the message says in what they differ."""


def key(kind: str, params: dict) -> str:
    """sha256 of the canonical JSON of a measurement's parameters."""
    text = json.dumps({"kind": kind} | params, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def location(kind: str, params: dict) -> Path:
    """The file of a measurement: <kind>/<model>/<task, block, …>-<first digits of the key>.json."""
    model = storage.component(str(params.get("model", ""))) or "any"
    name = storage.component("-".join([*_named(params), key(kind, params)[:8]]))
    return paths.RESULTS / kind / model / f"{name}.json"


def _named(params: dict) -> list[str]:
    """What a file's name shows: arc_easy-l13-n06-healed-r8-s0, mmlu-5shot-whole, c4-256."""
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


def parsed(text: bytes, kind: str, params: dict | None = None, run: dict | None = None) -> tuple:
    """The record of a file, or with `run` of a line, and why it is not valid, if so.

    params: whose record it must be, where that is known. run: what run.json says.
    """
    try:
        record = json.loads(text)
        record = record if run is None else _unpacked(record, kind, run)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, "is not JSON"
    problem, own = None, record.get("params") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not FIELDS <= record.keys():
        problem = "is not complete"
    elif record["schema"] != SCHEMA:
        problem = f"has schema {record['schema']}, not {SCHEMA}"
    elif not isinstance(own, dict) or not finite(own):
        problem = "has no parameters"
    elif not record["key"] == key(kind, own) == key(kind, params or own):
        problem = "is of other parameters"
    elif not isinstance(record["values"], dict) or not finite(record["values"]):
        problem = "has values that are not finite"
    elif not isinstance(record["status"], str):
        problem = "has no status"
    return record, problem


def _unpacked(line: dict, kind: str, run: dict) -> dict:
    """The record of a line, which leaves out what run.json says and what follows from the rest."""
    shared = {name: run[name] for name in SHARED if name in run}
    values = line["values"]
    if isinstance(values.get("weights"), (int, float)):  # of every example
        values["weights"] = [values["weights"]] * len(values["examples"])
    return {"kind": kind, "key": key(kind, line["params"])} | shared | line


def finite(value) -> bool:
    """Whether a JSON value has finite numbers only."""
    if isinstance(value, (dict, list)):
        return all(map(finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def rounded(value):
    """The same with the DIGITS that are recorded."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


# ---- many results --------------------------------------------------------------------------


@dataclass(frozen=True)
class Archive:
    """The results of a folder, found by their request, whatever the machine and the version.

    by_request: the records of each request. run: what run.json says of them all, else {}.
    """

    by_request: dict[str, list[dict]]
    run: dict

    def records(self, kind: str | None = None) -> Iterator[dict]:
        """Every record, or those of a kind."""
        every = (record for records in self.by_request.values() for record in records)
        return (record for record in every if kind in (None, record["kind"]))

    def find(self, kind: str, params: dict) -> dict | None:
        """The record that has `params`, those of MACHINE and VERSION_PARAMS apart; or None.

        Of several the one with the same versions, then the one with the most examples. A model's
        dtype and revision count if `params` have them. Raises AmbiguousError if they do not, and
        the best ones are of several dtypes or revisions.
        """

        def same_versions(record: dict) -> int:
            return sum(record["params"].get(n) == params.get(n) for n in VERSION_PARAMS)

        given = {name: params[name] for name in WEIGHTS if params.get(name) is not None}
        records = [
            record
            for record in self.by_request.get(_request_key(kind, params), [])
            if all(record["params"].get(name) == value for name, value in given.items())
        ]
        most = max(map(same_versions, records), default=0)
        best = [record for record in records if same_versions(record) == most]
        for name in WEIGHTS:
            values = sorted({str(record["params"].get(name)) for record in best})
            if len(values) > 1:
                raise AmbiguousError(
                    f"There are {kind} results of {params.get('model')} with {name} "
                    f"{' and '.join(values)}: say which (DTYPE=…), or keep each in its own folder."
                )
        return max(best, key=lambda record: record["values"].get("n", 0), default=None)


def _request_key(kind: str, params: dict) -> str:
    """The same for measurements that differ in the machine, a version or a revision only."""
    ignored = (*MACHINE, *VERSION_PARAMS, "revision")
    return key(kind, {name: value for name, value in params.items() if name not in ignored})


def archive(folder: Path) -> Archive:
    """The results of a folder: a file each, as a run leaves them, or lines of `<kind>.….jsonl`."""
    by_request: dict[str, list[dict]] = {}
    for record in stored(folder):
        by_request.setdefault(_request_key(record["kind"], record["params"]), []).append(record)
    return Archive(by_request, _run(folder))


def stored(folder: Path, kind: str = "*") -> Iterator[dict]:
    """The valid records in such a folder; the log has a line for each that is left out."""
    for file in sorted((*folder.glob(f"{kind}/*/*.json"), *folder.glob(f"{kind}.*jsonl"))):
        lines = file.suffix == ".jsonl"
        of_kind, run = (file.name.split(".")[0], _run(folder)) if lines else (file.parts[-3], None)
        texts = file.read_bytes().splitlines() if lines else [file.read_bytes()]
        for number, text in enumerate(texts if of_kind != "adapters" else [], start=1):
            record, problem = parsed(text, of_kind, run=run)
            if problem:
                place = f"{file}, line {number}," if lines else file
                log.warning("%s %s: left out.", place, problem)
            else:
                yield record


def _run(folder: Path) -> dict:
    file = folder / "run.json"
    return json.loads(file.read_bytes()) if file.exists() else {}
