"""What a call of `prune` will take, before it runs: `make prune … PLAN=1 CARD=t4`.

It downloads the configuration of a model at most, and writes nothing.
"""

import sys
from collections.abc import Sequence

from ..blocks import Block
from ..cards import (
    Card,
    ModelOnCard,
    Reading,
    Work,
    get_card,
    known_cards,
    questions_read,
    stored_counts,
    texts_read,
)
from ..tasks import LM_EVAL
from .__main__ import arguments
from .options import BATCH_TOKENS, MAX_TOKENS, TASKS, Options


def prune_table(options: Options, card: Card) -> str:
    """Return what `make prune` takes to choose, to score and to heal; not of its short map."""
    from .. import counting
    from ..models import files, layers

    config = files.configuration(options.model)
    if config is None:  # that of a model on the hub is downloaded
        config = files.open_checkpoint(options.model, files.CONFIGURATION).config
    layers.check(config)
    num_layers = config.get_text_config(decoder=True).num_hidden_layers
    Block(options.start or 0, options.layers).kept(num_layers)
    model = ModelOnCard(counting.layer_costs(config), "nf4" if options.nf4 else None, card)
    if options.needs_table:
        return "\n".join(size_line(model, count) for count in range(num_layers, 0, -1))
    left = num_layers - options.layers
    works = _works(options, model, config, num_layers, left)
    lines = [f"{work.kind}: {card.seconds(work) / 60:.1f} minutes" for work in works]
    unplanned = [name for name in options.tasks.split() if name.startswith(LM_EVAL)]
    lines += [f"scoring {name}: not counted, its questions are not read here" for name in unplanned]
    gb, most = model.weights(left) / 1e9, max(work.memory for work in works) / 1e9
    lines.append(
        f"{left} layers are left, of {gb:.1f} GB. It takes {most:.1f} GB on {card.name}; "
        "Python and its libraries take about 1 GB of the machine."
    )
    return "\n".join(lines)


def _works(options: Options, model: ModelOnCard, config, num_layers: int, left: int) -> list[Work]:
    """Return the work of each step, of a model of which so many layers are left."""
    from . import far

    # similarity takes the whole model; any other choice also the layers after each block
    runs = [num_layers] if options.by == "similarity" else [num_layers, *range(left + 1)]
    works = [
        model.forward("choosing", texts_read(**TASKS["c4"]), runs, BATCH_TOKENS)
    ]  # as many texts
    runs = [num_layers, left, left, left]
    for name in dict.fromkeys(["c4", *options.tasks.split()]):
        if not name.startswith(LM_EVAL):
            first = [num_layers] * (name != "c4")  # the whole model answers questions first
            read = _scored(name, TASKS[name])
            works.append(model.forward(f"scoring {name}", read, first + runs, BATCH_TOKENS))
    first = MAX_TOKENS
    for length in far.lengths(options, config):
        read = Reading(far.TEXTS * length, far.TEXTS * (length - first))
        works.append(
            model.forward(f"scoring to token {length:,}", read, [num_layers, left], BATCH_TOKENS)
        )
        first = length
    if options.heals:
        recipe = options.recipe(model.costs.parameters.size(), model.card.name == "cpu")
        works.append(model.healing(left, recipe, options.sequences_at_once))
    return works


def _scored(task: str, counts: dict) -> Reading:
    """Return what is read of a task that `make prune` scores."""
    if "sequences" in counts:
        return texts_read(**counts)
    tokens = stored_counts(task, counts.get("shots", 0))
    return questions_read(tokens, counts["questions"], counts.get("subjects", 1))


def size_line(model: ModelOnCard, num_layers: int) -> str:
    """Return what so many layers are on a card: GB, and tokens a second, written one at a time."""
    flops, moved = num_layers * model.costs.forward
    head = model.costs.head  # FLOPs of a token: as many as its weights have bytes
    weights = model.weights_read(num_layers) + head
    seconds = model.card.seconds(Work("writing", flops + head, moved, weights, 0))
    return (
        f"{num_layers} layers: {model.weights(num_layers) / 1e9:.2f} GB, "
        f"{1 / seconds:.3g} tokens a second on {model.card.name}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the plan of `make prune`."""
    parser = arguments(writes=False)
    parser.add_argument("--card", help=f"{', '.join(known_cards())}; default: at hand")
    try:
        given = vars(parser.parse_args(argv))
        name, _ = given.pop("card"), given.pop("out")
        options = Options(**given)
        print(prune_table(options, get_card(name)))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
