"""What `make prune` would take, before anything is loaded: `make prune … PLAN=1 CARD=t4`.

Takes the arguments of `lib.prune`, and a card of cards.csv. Counts as `replication.plan` does;
what is left out there is left out here, too, and so is text that a model writes.
"""

import sys
from collections.abc import Sequence
from statistics import fmean

from lib.blocks import Block
from lib.prune.__main__ import arguments
from lib.prune.options import FITTED, LIMITED, MAX_TOKENS, TASKS, TEXTS, Options
from replication import plan
from replication.plan import Card, Loaded, Work


def counted(name: str):
    """Return the counts of a model. Of one on the hub, the configuration is downloaded.

    Raises ValueError for a model that cannot be had, or not be pruned.
    """
    from lib import counting
    from lib.models import files, layers

    if counts := plan.counted(name):
        return counts
    config = files.open_checkpoint(name, files.CONFIGURATION).config
    layers.check(config)
    return counting.counted(config)


def works(options: Options, card: Card) -> tuple[str, list[Work]]:
    """Return what is dropped, as a sentence, and the work of each step."""
    counts = counted(options.model)
    quantization = "nf4" if options.nf4 else None
    model, layers = Loaded(counts, quantization, card), len(counts.parameters.layers)
    gb_of_number = card.element / 1e9
    size = options.layers
    Block(options.start or 0, size).kept(layers)
    blocks, left = range(layers - size + 1), layers - size
    gb = counts.parameters.size(left) * gb_of_number
    after = fmean(layers - size - start for start in blocks)  # layers after a block, on average

    def read(kind: str, runs: Sequence[float], **counted) -> Work:
        for count in counted.keys() & LIMITED:
            counted[count] = min(counted[count], options.limit)
        return model.forward(kind, plan.reading(counted), runs, 2048)

    def scored(kind: str, name: str, runs: Sequence[float]) -> Work:
        return read(kind, runs, task=name, **{"shots": 0} | TASKS[name])

    steps = []
    every = [layers, *(layers - size - start for start in blocks)]
    if options.start is None and options.by in ("similarity", "loss"):
        runs = [layers] if options.by == "similarity" else every
        steps.append(read("choice", runs, sequences=TEXTS, max_tokens=MAX_TOKENS))
    versions = [layers, *[left] * (2 + bool(options.repair) + bool(options.heal))]
    tasks = ["c4", *options.tasks.split()]
    steps += [scored("scores", name, versions) for name in dict.fromkeys(tasks)]
    if options.repair:
        runs = [layers - after]
        steps.append(read("map", runs, sequences=FITTED, max_tokens=MAX_TOKENS))
    if options.heal:
        steps.append(model.healing(left, options.recipe(counts.parameters.size())))
    return f"Drops {size} of {layers} layers; the weights then take {gb:.3g} GB.", steps


def table(options: Options, card: Card) -> str:
    """Return what is dropped, the minutes of each step, and the memory of a GPU, as text."""
    drops, steps = works(options, card)
    minutes = {}
    for work in steps:
        minutes[work.kind] = minutes.get(work.kind, 0) + card.seconds(work) / 60
    lines = [drops, *(f"{kind}: {value:.1f} minutes" for kind, value in minutes.items())]
    lines.append(f"In all {sum(minutes.values()):.1f} minutes on {card.name}, without loading.")
    if card.name != "cpu":  # a CPU reads and keeps more at a time than is counted
        memory = max(work.memory for work in steps) / 1e9
        lines.append(f"It takes {memory:.1f} GB of {card.memory:g} GB.")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments()
    parser.add_argument("--card", help=f"{', '.join(plan.cards())}; default: at hand")
    try:
        given = vars(parser.parse_args(argv))
        name, _ = given.pop("card"), given.pop("out")
        options = Options(**given)
        print(table(options, plan.get_card(name, options.dtype)))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
