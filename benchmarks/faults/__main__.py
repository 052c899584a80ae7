"""`python -m benchmarks.faults [--only WORDS …]`: provoke the faults, print the table."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.faults import files, machines, nodes, notebooks, processes

FAULTS = [
    fault
    for module in (processes, files, machines, notebooks, nodes)
    for fault in module.QUICK + module.SLOW
]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], help="faults that contain these words")
    only = parser.parse_args().only
    failed, start = 0, time.monotonic()
    print("| fault | expected | seen | s |\n|---|---|---|---|", flush=True)
    for fault in FAULTS:
        if not any(word in fault.fault for word in only):
            continue
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fäults ") as folder:
            try:
                seen = fault.check(Path(folder) / "run")
            except AssertionError as error:
                seen, failed = f"**NOT SO** {' '.join(str(error).split())[-300:]}", failed + 1
        seconds = time.monotonic() - begun
        print(f"| {fault.fault} | {fault.expected} | {seen} | {seconds:.0f} |", flush=True)
    print(f"\n{failed} not as expected, {(time.monotonic() - start) / 60:.1f} minutes")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
