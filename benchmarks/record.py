"""The recorded run: `make record` measures a profile and exports its results to data/recorded/.

A recording measures into a folder of its own, so that nothing measured otherwise passes for it,
and exports after each notebook. A cut one goes on from its export, also in a clean clone; to
record afresh, delete the export. Nobody else's run ever reads it: it is there to compare with.
"""

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from lib import paths, profiles, results
from lib.run import NOTEBOOKS

PROFILE = "laptop"
LARGEST = {".json": 2_000_000, ".csv": 2_000_000, ".png": 200_000}  # bytes of a committed file

log = logging.getLogger(__name__)


def record(name: str, numbers: Iterable[str] = tuple(NOTEBOOKS)) -> int:
    """Run notebooks of profile `name`, exporting after each; 0 if all finished and are exported.

    A notebook that fails does not keep the others from running.
    """
    restore(name)
    codes = []
    for number in numbers:
        start = time.monotonic()
        code = _run(name, number)
        codes += [code, export(name)]
        _describe(name, number, code, time.monotonic() - start)
    return int(any(codes))


def _run(name: str, number: str) -> int:
    """Run one notebook into the workplace; its exit status."""
    command = [sys.executable, "-m", "lib.run", "--profile", name, "--only", number]
    environment = os.environ | {"DEEPER_LAYERS_OUTPUT": str(workplace(name))}
    runner = subprocess.Popen(command, env=environment, cwd=paths.ROOT)
    try:
        return runner.wait()
    except KeyboardInterrupt:
        runner.wait()  # it was interrupted as well, and ends what it has started
        raise


def workplace(name: str) -> Path:
    """Where a recording measures and draws: results, figures and executed notebooks."""
    return paths.RUNS / "recording" / name


def restore(name: str) -> int:
    """Put the exported results of profile `name` back where its recording goes on.

    Returns how many; one that is not valid is left out, with a line in the log, and measured
    again. Adapters are not exported: a healing is repeated only if a score of it is missing.
    """
    count = 0
    for file in sorted((paths.RECORDED / name).glob("*/*.json")):
        if _read(file):
            _copy(file, _measured(name) / file.parent.name / file.name)
            count += 1
        else:
            log.warning("%s is not a valid result: measured again.", file)
    return count


def export(name: str) -> int:
    """Copy what the recording of profile `name` holds to data/recorded/ and figures/.

    Returns 0, or 1 if a file is too large to be committed, which is then left out and told.
    """
    results_of = {f: f.parent.name for f in _measured(name).glob("*/*.json") if _read(f)}
    results_of = {f: kind for f, kind in results_of.items() if kind != "job"}  # the runner's own
    copies = {f: paths.RECORDED / name / kind / f.name for f, kind in results_of.items()}
    drawn = (workplace(name) / "figures" / name).glob("*.*")
    copies |= {f: paths.FIGURES / name / f.name for f in drawn if f.suffix in LARGEST}
    code = 0
    for file, target in copies.items():
        size, most = file.stat().st_size, LARGEST[file.suffix]
        if size <= most:
            _copy(file, target)
        else:
            print(f"{file.name} has {size:,} bytes of at most {most:,}: left out.", file=sys.stderr)
            code = 1
    return code


def _describe(name: str, number: str, code: int, seconds: float) -> None:
    """Write run.json: date, environment; per notebook the exit status, minutes of all sittings."""
    told = described(name) or {"profile": name, "notebooks": {}}
    before = told["notebooks"].get(number, {"minutes": 0})
    minutes = round(before["minutes"] + seconds / 60, 1)
    told["notebooks"][number] = {"exit_status": code, "minutes": minutes}
    told |= {"date": datetime.now(UTC).date().isoformat(), "cores": len(os.sched_getaffinity(0))}
    told |= {"environment": results.environment()}
    file = paths.RECORDED / name / "run.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def described(name: str) -> dict | None:
    """What run.json says of the recorded run of profile `name`; None if there is none."""
    file = paths.RECORDED / name / "run.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def recorded(name: str) -> Iterator[dict]:
    """The results of the recorded run of profile `name`."""
    return stored(paths.RECORDED / name)


def _measured(name: str) -> Path:
    return workplace(name) / "data" / "results"


def stored(folder: Path) -> Iterator[dict]:
    """The valid results in a folder such as data/results/."""
    return filter(None, map(_read, sorted(folder.glob("*/*.json"))))


def _read(file: Path) -> dict | None:
    """A result's record, if it is whole and lies where a run would look for it."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refused)
        place = results.location(record["kind"], record["params"])
        valid = record["key"] == results.key(record["kind"], record["params"])
        valid = valid and (place.parent.name, place.name) == (file.parent.name, file.name)
        return record if valid and record["schema"] == results.SCHEMA else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _refused(constant: str):
    raise ValueError(f"{constant} is no result.")


def _copy(file: Path, target: Path) -> None:
    """Copy a file whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    shutil.copyfile(file, part)
    os.replace(part, target)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.record", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--profile", default=PROFILE)
    options = parser.parse_args(argv)
    try:
        profiles.get(options.profile)
        code = record(options.profile)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    files = [f for f in (paths.RECORDED / options.profile).rglob("*") if f.is_file()]
    size = sum(f.stat().st_size for f in files) / 1e6
    print(f"{paths.RECORDED / options.profile}: {len(files)} files, {size:.1f} MB")
    return code


if __name__ == "__main__":
    sys.exit(main())
