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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], help="faults that contain these words")
    only = parser.parse_args(argv).only
    chosen = [fault for fault in FAULTS if any(words in fault.fault for words in only)]
    if not chosen:
        print(f"No fault contains {' or '.join(map(repr, only))}.", file=sys.stderr)
        return 2
    failed, start = 0, time.monotonic()
    print("| fault | expected | seen | s |\n|---|---|---|---|", flush=True)
    for fault in chosen:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fäults ") as folder:
            try:
                seen = fault.check(Path(folder) / "run")
            except Exception as error:  # the other faults are still provoked
                reason = " ".join(str(error).split())[-300:]
                kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
                seen, failed = f"**NOT SO** {kind}{reason}", failed + 1
        seconds = time.monotonic() - begun
        print(f"| {fault.fault} | {fault.expected} | {seen} | {seconds:.0f} |", flush=True)
    print(f"\n{failed} not as expected, {(time.monotonic() - start) / 60:.1f} minutes")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
