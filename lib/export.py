"""A healed model to take away: an ordinary checkpoint, its adapter and a model card."""

from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd

from lib import adapters, evaluation, healing, models, paths, registry, wanted
from lib import scores as measured
from lib.profiles import Profile
from lib.pruning import Block
from lib.sweep import sweep


def healed_model(
    name: str, profile: Profile, block: Block, folder: str | Path, tasks: list[str], **changes
) -> Path:
    """Heal model `name` without `block` (or find it healed) and save it merged in `folder`.

    Loads with plain `AutoModelForCausalLM`; `folder`/adapter is the peft adapter for the pruned
    base. The card has the scores of the saved checkpoint on `tasks`, read back as it is, and those
    of the adapter. changes: of the recipe, as rank=2. Raises RuntimeError if the healing diverged
    or ran out of memory.
    """
    recipe = healing.recipe(name, profile, **changes)
    values = measured.heal(name, profile, block, recipe)["values"]
    if values["status"] != "ok":
        raise RuntimeError(f"The healing of {name} without {block} ended as {values['status']}.")
    attached = measured.healed_block(name, profile, block, recipe, tasks)
    adapter = paths.RESULTS / "adapters" / values["adapter"] / "adapter"
    dtype = models.identity(name, profile)["dtype"]  # that of the healing, whatever the CPU's is
    model, tokenizer = models.load(
        name, quantization=profile.quantization, dtype=dtype, device="cpu"
    )

    def text(checkpoint: Path) -> str:
        saved = scores(checkpoint, replace(profile, quantization=None, dtype=dtype), tasks)
        weights = {"weights": f"{dtype}, of {profile.quantization or 'the base'}, adapter merged"}
        ways = {way: values[way] for way in ("micro_batch", "recomputes")}
        return card(name, block, weights | asdict(recipe) | ways, saved, attached)

    return adapters.save_merged(model, tokenizer, block, adapter, folder, text)


def scores(checkpoint: Path, profile: Profile, tasks: list[str]) -> pd.DataFrame:
    """The scores of a saved checkpoint as they are; on the CPU if the GPU has too little memory."""
    name = str(checkpoint)
    device = None if models.fits(name, profile) else "cpu"
    model, tokenizer = models.load(name, dtype=profile.dtype, device=device)
    asked = [evaluation.task(wanted.of_task(task, profile)) for task in tasks]
    return sweep(model, tokenizer, [], asked, profile.batch_tokens)


def card(name: str, block: Block, facts: dict, saved: pd.DataFrame, attached: pd.DataFrame) -> str:
    """The model card: base, block, recipe, the checkpoint's scores and the adapter's own."""
    source = registry.resolve(name)
    facts = {
        "base": f"{registry.label(name)} ({source.kind} {source.location}, {source.revision})",
        "dropped": f"layers range({block.start}, {block.stop}), 0-indexed, of the base",
    } | facts
    rows = [f"| {key.replace('_', ' ')} | {value} |" for key, value in facts.items()]
    found = [
        f"| {s.task} | {s.value:.4f} ± {s.standard_error:.4f} | {a.value:.4f} "
        f"| {s.value - a.value:+.4f} | {a.n} | {a.chance:.4f} |"
        for s, a in zip(saved.itertuples(), attached.itertuples(), strict=True)
    ]
    return "\n".join(
        [
            f"---\nbase_model: {source.location if source.kind == 'hub' else name}\n"
            "library_name: transformers\ntags: [pruned, healed]\n---\n",
            f"# {registry.label(name)} without {block.size} layers, healed\n",
            "| | |\n|---|---|",
            *rows,
            "\nScores of this checkpoint (c4: nats), and of its adapter before it was merged. "
            "Rounded to the format of the weights, a merged adapter changes less than it did.\n",
            "| task | score | adapter | difference | n | chance |\n|---|---|---|---|---|---|",
            *found,
            "",
        ]
    )
