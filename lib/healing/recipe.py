"""The recipe of a healing, and its fallbacks when memory runs out. Loads no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

ADAPTER = 16  # bytes of an adapter's number: itself, its gradient, AdamW's two moments, in fp32
MICRO_BATCH = 16  # sequences at a time, at most
OVERHEAD = 0.7  # documents of C4 (500 tokens) in whose time a GPU begins a pass; estimated
PLANNED = 0.9  # of the memory for activations: what a token keeps is known within 6 %
OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",
)


@dataclass(frozen=True)
class Recipe:
    """One healing (section 3 of the paper's appendix). LoRA alpha equals the rank."""

    steps: int
    max_tokens: int  # a sequence's length
    learning_rate: float  # at its peak
    rank: int
    warmup_steps: int
    packed: bool = True  # documents joined and cut into full sequences, or truncated and padded
    source: str = "wheels"  # of the documents; or "hub"
    batch: int = 16  # sequences a step, whatever the micro-batch
    dropout: float = 0.05
    seed: int = 0
    first_layer: int = 0  # adapters from this layer on, in the numbering of the pruned model
    decay_steps: int = 0  # the last ones, where the rate falls to 0; 0: a cosine after the warm-up


class Room(NamedTuple):
    """The bytes that a healing has for activations, and what a token keeps of them.

    A layer that is recomputed keeps only its input, which changes no bit. So many are that rows of
    any length fit.
    """

    memory: float
    outside: float  # kept outside of the layers,
    layer: float  # by a layer,
    state: float  # and by one that is recomputed
    layers: int  # that are trained

    @property
    def least(self) -> float:
        """Return the bytes of a token where each layer is recomputed."""
        return self.outside + self.layers * self.state + self.layer

    def recomputed(self, tokens: int) -> int:
        """Return how many layers a row of so many tokens must recompute."""
        lacking = self.outside + self.layers * self.layer - PLANNED * self.memory / tokens
        return min(self.layers, ceil(max(0, lacking / (self.layer - self.state))))

    def share(self, lengths: Sequence[int], count: int) -> float:
        """Return the share of layers that are recomputed, of `count` sequences at a time."""
        recomputed = 0
        for start in range(0, len(lengths), count):
            tokens = sum(lengths[start : start + count])
            recomputed += tokens * self.recomputed(tokens)
        return recomputed / (self.layers * sum(lengths))


def memory_fallbacks(
    batch: int, room: Room | None = None, lengths: Sequence[int] = (), most: int = MICRO_BATCH
) -> list[tuple[int, bool]]:
    """Sequences at a time, and whether all activations are recomputed: the quickest way first.

    At most `most`, and a divisor of the batch, so that a step reads no other number of sequences.
    Else each row recomputes as many layers as it must, by the lengths of the sequences.

    A sequence takes two passes, forward and backward, or three where all is recomputed. A pass
    takes the time of its sequences and of OVERHEAD more, in which NF4 is unpacked. A smaller
    micro-batch draws other dropout masks: the recipe is the same, the adapter differs as another
    seed's would.
    """
    divisors = [count for count in range(most, 0, -1) if batch % count == 0]
    passes = {(count, True): 3.0 for count in divisors}
    for count in divisors:
        passes[count, False] = 2 + (room.share(lengths, count) if room else 0)
    return sorted(passes, key=lambda way: passes[way] * (1 + OVERHEAD / way[0]))


def is_out_of_memory(message: str) -> bool:
    """Whether an error's message says that memory ran out (cuBLAS does not call it so)."""
    return any(words in message.lower() for words in OUT_OF_MEMORY)
