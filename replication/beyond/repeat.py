"""One map, three questions: may a block be dropped, may it run twice, and does its distance say so?

Notebook 12. People run blocks of a model a second time, on their own output, without any training.
As for a drop, the whole model is run once, and each version only from its block on.
"""

from dataclasses import dataclass

from lib.blocks import UNPRUNED, Block
from replication.measure import damage, fetching
from replication.measure.question import Question
from replication.measure.request import Request
from replication.profiles import Profile

VERSION = 1  # bumped by hand when the numbers change
LARGEST = 3  # blocks of at most a third of the layers


@dataclass(frozen=True, order=True)
class Twice(Block):
    """A block that runs a second time: layer `stop` reads x^(start), and stop = start - its size.

    The size is negative: nothing is dropped, and a sweep goes back by so many layers.
    """

    def __post_init__(self):
        if self.start < 0 or self.stop < 0:
            raise ValueError(f"A block needs layers from 0 on, not {self}.")


def repeats(name: str, distances, profile: Profile) -> list[Request]:
    """Return the request of the loss with every block of at most a third of the layers run twice,
    on the first texts of the damage map."""
    largest = max(1, distances.num_layers // LARGEST)
    own = {"largest": largest, "repeats_version": VERSION}
    first_texts = damage.damage(name, distances, profile)[:1]
    return [one.of_kind("repeats", **own) for one in first_texts]


def _rows(params: dict) -> list[dict]:
    """Return the losses of the whole model and with each block run twice, on each text."""
    from lib.models.decoder import decoder_layers  # here, since the plan loads no torch

    model, _ = fetching.loaded(params)
    blocks = damage.all_blocks(len(decoder_layers(model)), params["largest"])
    twice = [Twice(block.stop, -block.size) for block in blocks]
    whole, *rows = damage.losses(params, [UNPRUNED, *twice])
    for row, block in zip(rows, blocks, strict=True):
        row |= {"block_start": block.start, "block_size": block.size}
    return [whole, *rows]


# ---- the question ----------------------------------------------------------------------------

QUESTION = Question(
    "12_which_block",
    experiments=(repeats,),
    kinds={"repeats": fetching.each(_rows)},
    tables={"repeats": damage.table},  # value: the rise of the loss by running it twice
    results_of={"repeats": damage.chunks_of},
)
