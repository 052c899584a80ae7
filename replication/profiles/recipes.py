"""The recipe of each model in a profile."""

from dataclasses import replace

from lib.healing import Recipe
from lib.models import registry

PAPER_TOKENS = 5_000 * 16 * 2048  # of one of the paper's healings


def recipe(name: str, profile, **changes) -> Recipe:
    """The recipe of model `name` in `profile`; the paper's own, for its models in `paper`.

    Fewer steps than the profile's (changes: steps=…) decay for the same share of them; where there
    is no decay, the cosine's warm-up is the same share.
    """
    steps = profile.heal_steps if profile.heals_fully(name) else profile.other_steps
    steps = changes.get("steps", steps)
    warmup_steps = profile.heal_warmup
    if not profile.heal_decay:
        warmup_steps = warmup_steps * steps // profile.heal_steps
    usual = Recipe(
        steps=steps,
        batch=profile.heal_batch,
        max_tokens=profile.heal_tokens,
        learning_rate=profile.heal_learning_rate,
        rank=profile.heal_rank,
        warmup_steps=warmup_steps,
        decay_steps=int(profile.heal_decay * steps),
        packed=profile.heal_packed,
        source=profile.source,
    )
    its_own = {}
    if profile.name == "paper" and name in registry.MODELS:
        its_own = registry.MODELS[name].healing
    return replace(usual, **its_own | changes)
