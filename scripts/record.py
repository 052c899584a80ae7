"""The recorded run: `make record` measures a profile and exports its results to data/recorded/.

A recording measures into a folder of its own, so that nothing measured otherwise passes for it,
and exports every ten minutes: results as lines of a file for each kind, model and task, which
`results.archive` reads.
A cut one resumes from its export, also in a clean clone; to record afresh, delete the export.
Nobody else's run ever reads it: it is there to compare with.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from lib import storage
from lib.models import machine
from replication import paths, profiles, results
from replication.measure.request import grouped
from replication.results.archive import SCHEMA, SHARED, rounded
from replication.run.notebooks import FIGURES, NOTEBOOKS

LARGEST = {".jsonl": 2_000_000, ".csv": 2_000_000, ".png": 250_000}  # bytes of a committed file
RECORDED = [number for number, notebook in NOTEBOOKS.items() if notebook.figures]
EVERY = 600  # seconds between two exports
KEPT = ("params", "status", "values", "seconds")  # of a record; the rest follows, or is shared


def record(name: str, numbers: Iterable[str] = RECORDED) -> int:
    """Run notebooks of profile `name`, exporting as they go; 0 if all finished and are exported.

    A notebook that fails does not keep the others from running.
    """
    restore(name)
    codes = []
    for number in numbers:
        start = time.monotonic()
        code = _run(name, number)
        describe(name, number, code, time.monotonic() - start)
        codes += [code, export(name)]
    return int(any(codes))


def _run(name: str, number: str) -> int:
    """Run one notebook into the workplace; its exit status."""
    command = [sys.executable, "-m", "replication", "--profile", name, "--only", number]
    environment = os.environ | {"DEEPER_LAYERS_OUTPUT": str(workplace(name))}
    runner = subprocess.Popen(command, env=environment, cwd=paths.ROOT)
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return runner.wait(EVERY)
            export(name)
    except KeyboardInterrupt:
        runner.wait()  # it was interrupted as well, and ends what it has started
        raise


def workplace(name: str) -> Path:
    """Where a recording measures and draws: results, figures and executed notebooks."""
    return paths.RUNS / "recording" / name


def restore(name: str) -> int:
    """Put the exported results of profile `name` where its recording looks for them.

    Returns how many; one that is not valid is left out, with a line in the log, and measured
    again. A restored result is marked so, since its numbers are rounded; one that the workplace
    still holds stays. Adapters are not exported: a healing is repeated only if a score of it is
    missing.
    """
    exported = results.archive(paths.RECORDED / name)
    records = list(exported.records())
    for result in records:
        place = results.location(result["kind"], result["params"])
        target = _measured(name) / place.relative_to(paths.RESULTS)
        if not target.exists():
            storage.atomic_write(target, json.dumps(result | {"restored": True}).encode())
    begun = exported.run.get("format")
    if begun:
        storage.atomic_write(_measured(name) / "format.json", json.dumps(begun).encode())
    return len(records)


def export(name: str) -> int:
    """Write what the recording of profile `name` holds to data/recorded/ and figures/.

    Returns 0, or 1 if a file is too large to be committed, which is then left out, with one line.
    """
    restore(name)  # what an earlier export holds stays
    measured = results.archive(_measured(name))
    shared = results.archive(paths.RECORDED / name).run
    parts = grouped(
        (r for r in measured.records() if r["kind"] != "job"), _file
    )  # made of the rest
    files = {paths.RECORDED / name / file: lines(part, shared) for file, part in parts.items()}
    for old in set((paths.RECORDED / name).glob("*.jsonl")) - files.keys():
        old.unlink()
    drawn = (workplace(name) / "figures" / name).glob("*.*")
    finished = {f.name: f.read_bytes() for f in drawn if f.stem in FIGURES}
    files |= {paths.FIGURES / name / file: content for file, content in finished.items()}
    code = 0
    for target, content in files.items():
        size, most = len(content), LARGEST[target.suffix]
        if size <= most:
            storage.atomic_write(target, content)
        else:
            print(
                f"{target.name} has {size:,} bytes of at most {most:,}: left out.", file=sys.stderr
            )
            code = 1
    return code


def _file(result: dict) -> str:
    """<kind>.<model>.<task>.jsonl, healed scores apart, so that no file grows too large."""
    params = result["params"]
    named = [result["kind"], params.get("model"), params.get("task")]
    named += ["healed"] if "task" in params and "recipe" in params else []
    return ".".join([*(storage.component(name) for name in named if name), "jsonl"])


def lines(records: Iterable[dict], shared: dict) -> bytes:
    """Results as the lines of an archive, sorted by task, size, start and recipe.

    A line leaves out what is `shared`, and what `results.archive` finds out by itself.
    """
    texts = []
    for result in sorted({result["key"]: result for result in records}.values(), key=_order):
        line = {name: result[name] for name in KEPT}
        line |= {n: result[n] for n in SHARED if result[n] != shared.get(n)}
        line["values"] = rounded(line["values"])
        weights = line["values"].get("weights")
        if _all_equal(weights):  # of every example
            line["values"]["weights"] = weights[0]
        texts.append(json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n")
    return "".join(texts).encode()


def _all_equal(weights) -> bool:
    """Whether they are numbers, one an example, and all the same (newer ones are runs already)."""
    numbers = isinstance(weights, list) and not any(isinstance(w, list) for w in weights)
    return numbers and len(set(weights)) == 1


def _order(result: dict) -> tuple:
    params = result["params"]
    block = params.get("block_size", 0), params.get("block_start", 0)
    recipe = json.dumps(params.get("recipe", ""))
    return params.get("model", ""), params.get("task", ""), *block, recipe, json.dumps(params)


def describe(name: str, number: str, code: int, seconds: float) -> None:
    """Write run.json: date, environment; per notebook the exit status, minutes of all sittings.

    The environment is that in which the recording began; a result that was measured in another
    says so in its line.
    """
    begun = {"profile": name, "schema": SCHEMA, "environment": results.environment()}
    run = begun | {"notebooks": {}} | results.archive(paths.RECORDED / name).run
    before = run["notebooks"].get(number, {"minutes": 0})
    minutes = round(before["minutes"] + seconds / 60, 1)
    run["notebooks"][number] = {"exit_status": code, "minutes": minutes}
    dtype = _measured(name) / "format.json"  # which the recording keeps, wherever it resumes
    if dtype.exists():
        run["format"] = json.loads(dtype.read_bytes())
    run |= {"date": datetime.now(UTC).date().isoformat(), "cores": machine.cores()}
    text = json.dumps(run, indent=1) + "\n"
    storage.atomic_write(paths.RECORDED / name / "run.json", text.encode())


def _measured(name: str) -> Path:
    return workplace(name) / "data" / "results"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.record", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--profile", default=profiles.RECORDED)
    options = parser.parse_args(argv)
    try:
        profiles.get(options.profile)
        code = record(options.profile)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command resumes from here.", file=sys.stderr)
        return 130
    files = [f for f in (paths.RECORDED / options.profile).rglob("*") if f.is_file()]
    size = sum(f.stat().st_size for f in files) / 1e6
    print(f"{paths.RECORDED / options.profile}: {len(files)} files, {size:.1f} MB")
    return code


if __name__ == "__main__":
    sys.exit(main())
