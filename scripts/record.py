"""The recorded run: `make record` measures a profile and copies its tables and figures.

A recording measures into a folder of its own, so that nothing measured otherwise passes for it.
After every notebook its tables go to data/recorded/<profile>/, its figures to figures/<profile>/.
A recording that was cut goes on from there, also in a clean clone: the rows of its tables are read
as results. To record afresh, delete the tables.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from lib import storage
from lib.models import machine
from replication import paths, profiles, tables
from replication.measure import cache
from replication.run import execution
from replication.run.notebooks import FIGURES, NOTEBOOKS
from scripts import kept


def record(name: str, numbers: Iterable[str] = tuple(NOTEBOOKS)) -> int:
    """Run notebooks of profile `name`, copying what they leave; 0 if all finished.

    A notebook that fails does not keep the others from running.
    """
    place = workplace(name)
    paths.RESULTS = place / "data" / "results"
    shutil.rmtree(cache.record_folder(), ignore_errors=True)
    if (paths.RECORDED / name).exists():
        shutil.copytree(paths.RECORDED / name, cache.record_folder())
    begun, kept = description(name).get("format"), cache.format_file()
    if begun and not kept.exists():
        storage.atomic_write(kept, json.dumps(begun).encode())
    codes = []
    for number in numbers:
        command = [sys.executable, "-m", "replication", "--profile", name, "--only", number]
        environment = os.environ | {"DEEPER_LAYERS_OUTPUT": str(place)}
        codes.append(subprocess.run(command, env=environment, cwd=paths.ROOT).returncode)
        describe(name)
        copy(name)
    return int(any(codes))


def workplace(name: str) -> Path:
    """Return where a recording measures and draws: results, tables, figures, executed notebooks."""
    return paths.RUNS / "recording" / name


def copy(name: str) -> None:
    """Copy the tables and finished figures of a recording to where they are committed."""
    for file in sorted((workplace(name) / "data" / "tables" / name).glob("*.parquet")):
        place, table = paths.RECORDED / name / file.name, tables.read_file(file)
        if place.exists():
            table = completed(table, tables.read_file(place))
        tables.write_file(table, place)
    for file in sorted((workplace(name) / "figures" / name).glob("*.*")):
        if file.stem in FIGURES:  # not one without healing
            storage.atomic_write(paths.FIGURES / name / file.name, file.read_bytes())


def completed(table: pd.DataFrame, recorded: pd.DataFrame) -> pd.DataFrame:
    """Return a new table with the recorded results at its end of which it has no value.

    Nothing may ask for them any more, or they could not be measured this time.
    """
    measured, recorded = kept.with_value(table), kept.with_value(recorded)
    lacks = recorded[
        ~recorded.request.map(kept.result).isin(set(measured.request.map(kept.result)))
    ]
    if lacks.empty:
        return table
    is_other = ~table.request.map(kept.result).isin(set(lacks.request.map(kept.result)))
    return pd.concat([table[is_other], lacks], ignore_index=True)


def description(name: str) -> dict:
    """Return what run.json says of a recording, or how one begins."""
    file = paths.RECORDED / name / "run.json"
    if file.exists():
        return json.loads(file.read_bytes())
    return {"profile": name, "environment": cache.environment()}


def describe(name: str) -> None:
    """Write run.json: date, environment, cores.

    Each row of a table says in which environment it was measured. The format of the weights is
    kept: a recording that goes on in a clean clone, or on another processor, stays with it.
    """
    run, kept = description(name), cache.format_file()
    if kept.exists():
        run["format"] = json.loads(kept.read_bytes())
    run |= {"date": datetime.now(UTC).date().isoformat(), "cores": machine.cores()}
    content = (json.dumps(run, indent=1) + "\n").encode()
    storage.atomic_write(paths.RECORDED / name / "run.json", content)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.record", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--profile", default=profiles.RECORD_PROFILE)
    name = parser.parse_args(argv).profile
    try:
        profiles.get(name)
        code = execution.resumable(lambda: record(name))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    files = [f for f in (paths.RECORDED / name).rglob("*") if f.is_file()]
    size = sum(f.stat().st_size for f in files) / 1e6
    print(f"{paths.RECORDED / name}: {len(files)} files, {size:.1f} MB")
    return code


if __name__ == "__main__":
    sys.exit(main())
