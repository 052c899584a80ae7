"""What a model writes after dropping a block: `python -m scripts.continuations` records it.

Greedy continuations of PROMPTS by the whole model and after dropping each block, small ones first,
computed in fp32. They are lines of data/recorded/continuations.<model>.jsonl, which the explorer
shows: the first says how they were made, each other line is a block's. A run that is stopped goes
on where it was. texts.json gets the beginnings of the texts whose damage is recorded.
"""

import argparse
import json
import sys
import time

from lib import models, storage
from lib.blocks import UNPRUNED, Block
from lib.data import sets
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
DAMAGED = 24  # texts by which the record has the damage of each block
BEGINNING = 160  # letters
EVERY = 10  # blocks between two writings of the file


def record(name: str, wanted: list[Block], minutes: float) -> int:
    """Record what model `name` writes for so many minutes; how many blocks are still missing."""
    end = time.monotonic() + 60 * minutes
    header = loading.weights_identity(name, None, DTYPE)
    header |= {"prompts": PROMPTS, "new_tokens": NEW_TOKENS}
    file = paths.continuations(name)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    if lines[:1] != [json.dumps(header)]:  # made otherwise
        lines = [json.dumps(header)]
    written = {tuple(json.loads(line)["block"]) for line in lines[1:]}
    missing = [block for block in wanted if (block.start, block.size) not in written]
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
    parser.add_argument("--most", type=int, default=10, help="layers of a block, at most")
    options = parser.parse_args(argv)
    maps = tables.maps(profiles.get(profiles.DRAW_ONLY_PROFILE))
    if options.model not in maps:
        print(
            f"No recorded map of {options.model!r}: choose of {', '.join(maps)}.", file=sys.stderr
        )
        return 2
    blocks = all_blocks(maps[options.model].num_layers)
    small = [block for block in blocks if block.size <= options.most]
    missing = record(options.model, [UNPRUNED, *small], options.minutes)
    texts = [text[:BEGINNING] for text in sets.c4("validation", "wheels", DAMAGED)]
    storage.atomic_write(paths.RECORDED / "texts.json", json.dumps(texts, indent=0).encode())
    print(f"{options.model}: {missing} blocks are still missing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
