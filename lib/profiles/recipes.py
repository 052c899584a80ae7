"""The recipe of a healing, and how it gets by with less memory."""

from dataclasses import dataclass, replace

from lib.models import registry


@dataclass(frozen=True)
class Recipe:
    """One healing (section 3 of the paper's appendix). LoRA alpha equals the rank."""

    steps: int
    max_tokens: int  # a sequence's length
    learning_rate: float  # at its peak
    rank: int
    warmup_steps: int
    packed: bool  # documents joined and cut into full sequences, or truncated and padded
    source: str  # of the documents, as in a profile
    batch: int = 16  # sequences a step, whatever the micro-batch
    dropout: float = 0.05
    seed: int = 0
    first_layer: int = 0  # adapters from this layer on, in the numbering of the pruned model
    decay_steps: int = 0  # the last ones, where the rate falls to 0; 0: a cosine after the warm-up


def recipe(name: str, profile, **changes) -> Recipe:
    """The recipe of model `name` in `profile`; the paper's own, for its models in `paper`.

    Fewer steps than the profile's (changes: steps=…) decay for the same share of them; where there
    is no decay, the cosine's warm-up is the same share.
    """
    steps = profile.heal_steps if profile.heals_fully(name) else profile.other_steps
    steps = changes.get("steps", steps)
    found = Recipe(
        steps=steps,
        batch=profile.heal_batch,
        max_tokens=profile.heal_tokens,
        learning_rate=profile.heal_learning_rate,
        rank=profile.heal_rank,
        warmup_steps=profile.heal_warmup
        if profile.heal_decay
        else profile.heal_warmup * steps // profile.heal_steps,
        decay_steps=int(profile.heal_decay * steps),
        packed=profile.heal_packed,
        source=profile.source,
    )
    own = registry.MODELS[name].healing if name in registry.MODELS else {}
    return replace(found, **(own if profile.name == "paper" else {}) | changes)


def attempts(micro_batch: int) -> list[tuple[int, bool]]:
    """Sequences at a time, and whether activations are recomputed: less and less memory.

    Recomputing costs a second forward pass and changes no bit. A smaller micro-batch draws other
    dropout masks: the recipe is the same, the adapter differs as another seed's would.
    """
    halves = [micro_batch >> i for i in range(micro_batch.bit_length())]
    return [(half, False) for half in halves] + [(1, True)]


def no_memory(message: str) -> bool:
    """Whether an error's message says that memory ran out (cuBLAS does not call it so)."""
    told = ("out of memory", "can't allocate memory")
    told += ("cublas_status_alloc_failed", "cublas_status_not_initialized")
    return any(words in message.lower() for words in told)
