"""`python -m benchmarks.faults [--only WORDS …]`: provoke the faults, print the table."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.faults import nodes, processes

FAULTS = [*processes.QUICK, *processes.SLOW, *nodes.SLOW]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], help="faults that contain these words")
    only = parser.parse_args(argv).only
    chosen = [fault for fault in FAULTS if any(words in fault.fault for words in only)]
    if not chosen:
        print(f"No fault contains {' or '.join(map(repr, only))}.", file=sys.stderr)
        return 2
    failed = 0
    print("| fault | expected | seen | s |\n|---|---|---|---|", flush=True)
    for fault in chosen:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fäults ") as folder:
            try:
                seen = fault.check(Path(folder) / "run")
            except Exception as error:  # the other faults are still provoked
                reason = " ".join(str(error).split())[-300:]
                seen, failed = f"**NOT SO** {type(error).__name__}: {reason}", failed + 1
        seconds = time.monotonic() - begun
        print(f"| {fault.fault} | {fault.expected} | {seen} | {seconds:.0f} |", flush=True)
    print(f"\n{failed} not as expected")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
