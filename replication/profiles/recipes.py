"""The recipe of each model in a profile."""

from dataclasses import replace

from lib.healing.recipe import Recipe
from lib.models import registry


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
