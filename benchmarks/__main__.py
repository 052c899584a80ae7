"""`python -m benchmarks [--only 3 4] [--tiny]`: measure the rows, print and write the table.

The table is written only if all of it was measured, and not with --tiny.
"""

import argparse
import sys

from benchmarks import (
    anchors,
    counts,
    distances,
    formats,
    memory,
    mmlu,
    preparation,
    sweeps,
    table,
    training,
)
from benchmarks.sizes import FULL, TINY

ROWS = {
    1: distances.similarity_pass,
    2: distances.distance_map,
    3: sweeps.arc_easy,
    4: sweeps.c4,
    5: counts.llama_2_70b,
    6: mmlu.against_lm_eval,
    7: training.against_plain_script,
    8: training.packed_documents,
    9: memory.half_a_model,
    10: memory.layer_by_layer,
    11: sweeps.damage_map,
    12: formats.fastest_format,
    13: counts.padding,
    14: training.before_and_after,
    15: counts.c4_interval,
    16: training.longest_first,
    17: preparation.c4_texts,
}


def main(argv: list[str] | None = None) -> int:
    chosen = _arguments(argv)
    size = TINY if chosen.tiny else FULL
    lines = []
    for row in chosen.only:
        print(f"row {row} …", file=sys.stderr, flush=True)
        measured = ROWS[row](size)
        print(table.markdown(measured), file=sys.stderr, flush=True)
        lines += measured
    text = table.markdown(lines) + "\n" + anchors.markdown()
    print(text)
    if size is FULL and chosen.only == list(ROWS):  # a table is of one run, or not kept
        table.FILE.parent.mkdir(exist_ok=True)
        table.FILE.write_text(text, encoding="utf-8")
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", type=int, nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--tiny", action="store_true", help="a tiny random model, to try the rows")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
