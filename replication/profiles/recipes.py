"""The recipe of each model in a profile."""

import json
from dataclasses import replace
from pathlib import Path

from lib import storage
from lib.healing import Recipe

PAPER_TOKENS = 5_000 * 16 * 2048  # of one of the paper's healings
MOST_RATE = 1e-3  # at its peak, of a model on which no higher one was tried
TRIED = ("smollm2-135m",)
# what the recipe of each of the paper's models has of its own (its appendix, section 3)
PUBLISHED = {
    row.pop("model"): {name: json.loads(value) for name, value in row.items()}
    for row in storage.rows(Path(__file__).with_name("paper_recipes.csv"))
}


def recipe(name: str, profile, **changes) -> Recipe:
    """The recipe of model `name` in `profile`; the paper's own, where a profile has them.

    Fewer steps than the profile's (changes: steps=…) decay for the same share of them; where there
    is no decay, the cosine's warm-up is the same share.
    """
    steps = profile.heal_steps if profile.heals_fully(name) else profile.other_steps
    steps = changes.get("steps", steps)
    rate = profile.heal_learning_rate
    if name not in TRIED:
        rate = min(rate, MOST_RATE)
    warmup_steps = profile.heal_warmup
    if not profile.heal_decay:
        warmup_steps = warmup_steps * steps // profile.heal_steps
    usual = Recipe(
        steps=steps,
        batch=profile.heal_batch,
        max_tokens=profile.heal_tokens,
        learning_rate=rate,
        rank=profile.heal_rank,
        warmup_steps=warmup_steps,
        decay_steps=int(profile.heal_decay * steps),
        packed=profile.heal_packed,
        source=profile.source,
    )
    its_own = PUBLISHED.get(name, {}) if profile.is_papers else {}
    return replace(usual, **its_own | changes)
