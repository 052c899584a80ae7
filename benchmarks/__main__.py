"""`python -m benchmarks [--only 3 11] [--tiny]`: measure the rows, print and write the table.

The table is written only if all of it was measured, and not with --tiny.
"""

import argparse
import sys

from benchmarks import distances, sweeps, table
from benchmarks.sizes import FULL, TINY

ROWS = {
    1: distances.similarity_pass,
    3: sweeps.arc_easy,
    11: sweeps.damage_map,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", type=int, nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--tiny", action="store_true", help="a tiny random model, to try the rows")
    chosen = parser.parse_args(argv)
    size, lines = TINY if chosen.tiny else FULL, []
    for row in chosen.only:
        lines.append(ROWS[row](size))
        print(table.markdown(lines[-1:]), file=sys.stderr, flush=True)
    text = table.markdown(lines)
    print(text)
    if size is FULL and chosen.only == list(ROWS):  # a table is of one run, or not kept
        table.FILE.parent.mkdir(exist_ok=True)
        table.FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
