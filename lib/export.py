"""A healed model to take away: an ordinary checkpoint, its adapter and a model card."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from lib import adapters, curves, healing, models, paths, registry
from lib.profiles import Profile
from lib.pruning import Block


def healed_model(
    name: str, profile: Profile, block: Block, folder: str | Path, tasks: list[str], **changes
) -> Path:
    """Heal model `name` without `block` (or find it healed) and save it merged in `folder`.

    Loads with plain `AutoModelForCausalLM`; `folder`/adapter is the peft adapter for the pruned
    base. The scores on `tasks` stand in the card. changes: of the recipe, as rank=2. Raises
    RuntimeError if the healing diverged or ran out of memory.
    """
    recipe = healing.recipe(name, profile, **changes)
    values = curves.heal(name, profile, block, recipe)["values"]
    if values["status"] != "ok":
        raise RuntimeError(f"The healing of {name} without {block} ended as {values['status']}.")
    scores = curves.healed_block(name, profile, block, recipe, tasks)
    adapter = paths.RESULTS / "adapters" / values["adapter"] / "adapter"
    model, tokenizer = models.load(
        name, quantization=profile.quantization, dtype=profile.dtype, device="cpu"
    )
    text = card(name, profile, block, recipe, scores)
    return adapters.save_merged(model, tokenizer, block, adapter, folder, text)


def card(
    name: str, profile: Profile, block: Block, recipe: healing.Recipe, scores: pd.DataFrame
) -> str:
    """The model card: base, block, recipe and scores."""
    source = registry.resolve(name)
    facts = {
        "base": f"{registry.label(name)} ({source.kind} {source.location}, {source.revision})",
        "weights": f"{profile.quantization or 'not quantised'}, unpacked, adapter merged",
        "dropped": f"layers range({block.start}, {block.stop}), 0-indexed, of the base",
    } | {key: value for key, value in asdict(recipe).items()}
    rows = [f"| {key.replace('_', ' ')} | {value} |" for key, value in facts.items()]
    found = [
        f"| {s.task} | {s.value:.4f} ± {s.standard_error:.4f} | {s.n} | {s.chance:.4f} |"
        for s in scores.itertuples()
    ]
    return "\n".join(
        [
            f"---\nbase_model: {source.location if source.kind == 'hub' else name}\n"
            "library_name: transformers\ntags: [pruned, healed]\n---\n",
            f"# {registry.label(name)} without {block.size} layers, healed\n",
            "| | |\n|---|---|",
            *rows,
            "\n| task | score (c4: nats) | n | chance |\n|---|---|---|---|",
            *found,
            "",
        ]
    )
