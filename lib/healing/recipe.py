"""The recipe of a healing. Loads no torch."""

from dataclasses import dataclass


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
    all_linear: bool = False  # adapters on all linear layers, not on those of the FFNs alone
    decay_steps: int = 0  # the last ones, where the rate falls to 0; 0: a cosine after the warm-up
    beginnings_first: bool = False  # packed: all documents are begun before one goes on
    teacher: bool = False  # learns the whole model's next-token distribution, not the next token
