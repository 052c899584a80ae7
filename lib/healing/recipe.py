"""The recipe of a healing, and its fallbacks when memory runs out. Loads no torch."""

from dataclasses import dataclass

OVERHEAD = 0.7  # documents of C4 (500 tokens) in whose time a GPU begins a pass; estimated
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


def memory_fallbacks(micro_batch: int) -> list[tuple[int, bool]]:
    """Sequences at a time, and whether activations are recomputed: the quickest way first.

    A sequence takes two passes, forward and backward, or three where activations are recomputed,
    which changes no bit. A pass takes the time of its sequences and of OVERHEAD more, in which NF4
    is unpacked. So 16 or 8 sequences, recomputed, are quicker than one that is not, and take about
    as much memory; two that are not are quicker still. A smaller micro-batch draws other dropout
    masks: the recipe is the same, the adapter differs as another seed's would.
    """
    halves = [micro_batch >> i for i in range(micro_batch.bit_length())]
    ways = [(half, recomputes) for half in halves for recomputes in (False, True)]
    return sorted(ways, key=lambda way: (3 if way[1] else 2) * (1 + OVERHEAD / way[0]))


def is_out_of_memory(message: str) -> bool:
    """Whether an error's message says that memory ran out (cuBLAS does not call it so)."""
    return any(words in message.lower() for words in OUT_OF_MEMORY)
