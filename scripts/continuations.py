"""What a model writes after dropping a block: `python -m scripts.continuations` records it.

Greedy continuations of PROMPTS by the whole model and after dropping `blocks`, computed in fp32.
They are lines of data/recorded/continuations.<model>.jsonl, which the explorer shows: the first
says how they were made, each other line is a block's. Blocks that someone would choose come first.
A run that is stopped goes on where it was.
"""

import argparse
import json
import sys
import time

from lib import models, storage
from lib.blocks import UNPRUNED, WITH_EXIT, Block, BlockDistances, blocks_of
from lib.data.encoding import Row
from lib.models import loading
from lib.sweep import continuations
from replication import paths, profiles, tables
from replication.measure.damage import all_blocks

PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a little",
    "To boil an egg, you first",
)
NEW_TOKENS = 24
DTYPE = "float32"
GRID = 2  # every other start, of every other size
EVERY = 10  # blocks between two writings of the file


def blocks(distances: BlockDistances) -> list[Block]:
    """None, each layer, the blocks of each strategy up to half of the layers, and a grid."""
    layers = distances.num_layers
    half = range(1, layers // 2 + 1)
    chosen = [block for strategy in WITH_EXIT for block in blocks_of(strategy, distances, half)]
    alone = [Block(l, 1) for l in range(layers)]
    grid = [b for b in all_blocks(layers) if b.start % GRID == b.size % GRID == 0]
    return list(dict.fromkeys([UNPRUNED, *alone, *chosen, *grid]))


def record(name: str, distances: BlockDistances, minutes: float) -> int:
    """Record model `name` for so many minutes; how many blocks are still missing."""
    end = time.monotonic() + 60 * minutes
    header = loading.weights_identity(name, None, DTYPE)
    header |= {"prompts": PROMPTS, "new_tokens": NEW_TOKENS}
    file = paths.continuations(name)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    if lines[:1] != [json.dumps(header)]:  # made otherwise
        lines = [json.dumps(header)]
    written = {tuple(json.loads(line)["block"]) for line in lines[1:]}
    missing = [block for block in blocks(distances) if (block.start, block.size) not in written]
    model, tokenizer = models.load(name, dtype=DTYPE)
    rows = [Row(tokenizer(prompt).input_ids, ()) for prompt in PROMPTS]
    while missing and time.monotonic() < end:
        now, missing = missing[:EVERY], missing[EVERY:]
        texts = continuations(model, tokenizer, now, rows, NEW_TOKENS, batch_tokens=2048)
        for block in now:
            line = {"block": [block.start, block.size], "texts": texts[block]}
            lines.append(json.dumps(line, ensure_ascii=False))
        storage.atomic_write(file, ("\n".join(lines) + "\n").encode())
    return len(missing)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.continuations", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m", help="one that the record has a map of")
    parser.add_argument("--minutes", type=float, default=60, help="stop after so many")
    options = parser.parse_args(argv)
    maps = tables.maps(profiles.get(profiles.DRAWN))
    if options.model not in maps:
        print(
            f"No recorded map of {options.model!r}: choose of {', '.join(maps)}.", file=sys.stderr
        )
        return 2
    missing = record(options.model, maps[options.model], options.minutes)
    print(f"{options.model}: {missing} blocks are still missing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
