"""A healed model to take away: an ordinary checkpoint with a model card, its adapter merged."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from jinja2 import Template
from peft.tuners.lora import LoraLayer

from lib import evaluation
from lib.blocks import Block
from lib.healing import lora
from lib.models import loading, registry
from lib.pruning import dropped, save_pruned
from lib.sweep import sweep
from replication import paths, profiles
from replication.measure import request, scores
from replication.profiles import Profile

CARD = Path(__file__).with_name("card.md.j2")


def healed_model(
    name: str, profile: Profile, block: Block, folder: str | Path, tasks: list[str], **changes
) -> Path:
    """Heal model `name` without `block` (or find it healed) and save it merged in `folder`.

    Loads with plain `AutoModelForCausalLM`; `folder`/adapter is the peft adapter for the pruned
    base. The card has the scores of the saved checkpoint on `tasks`, read back as it is, and those
    of the adapter. changes: of the recipe, as rank=2. Raises RuntimeError if the healing diverged
    or ran out of memory.
    """
    recipe = profiles.recipe(name, profile, **changes)
    values = scores.heal(name, profile, block, recipe)["values"]
    if values["status"] != "ok":
        raise RuntimeError(f"The healing of {name} without {block} ended as {values['status']}.")
    with_adapter = scores.measure(name, profile, [block], tasks, recipe)
    adapter = paths.RESULTS / "adapters" / values["adapter"] / "adapter"
    identity = loading.weights_identity(name, **profile.load_kwargs)
    dtype = identity["dtype"]  # that of the healing, whatever the CPU's is
    weights = profile.load_kwargs | {"dtype": dtype}
    model, tokenizer = loading.load(name, **weights, device="cpu")

    def text(checkpoint: Path) -> str:
        facts = {"weights": f"{dtype}, of {profile.quantization or 'the base'}, adapter merged"}
        facts |= asdict(recipe) | {way: values[way] for way in ("micro_batch", "recomputes")}
        plain = replace(profile, quantization=None, dtype=dtype)
        return card(checkpoint, name, plain, block, facts, with_adapter)

    return save_merged(model, tokenizer, block, adapter, folder, text)


def card(
    checkpoint: Path,
    name: str,
    profile: Profile,
    block: Block,
    facts: dict,
    repaired,
    repair: str = "healed",
) -> str:
    """The model card: base, block, facts, and the scores of the checkpoint next to the repair's.

    repaired: the latter, a row a task; repair names it. Scored on the CPU if the GPU has too little
    memory.
    """
    fits = loading.fits(str(checkpoint), profile.batch_tokens, **profile.load_kwargs)
    device = None if fits else "cpu"
    model, tokenizer = loading.load(str(checkpoint), dtype=profile.dtype, device=device)
    tasks = [evaluation.task_of(request.of_task(task, profile)) for task in repaired.task]
    saved = sweep(model, tokenizer, [], tasks, profile.batch_tokens)
    source, label = registry.resolve(name), registry.label(name)
    facts = {
        "base": f"{label} ({source.kind} {source.location}, {source.revision})",
        "dropped": f"layers range({block.start}, {block.stop}), 0-indexed, of the base",
    } | facts
    base = source.location if source.kind == "hub" else name
    pairs = zip(saved.itertuples(), repaired.itertuples(), strict=True)
    template = Template(CARD.read_text(encoding="utf-8"), keep_trailing_newline=True)
    return template.render(
        base=base, label=label, block=block, facts=facts, how=repair, scores=pairs
    )


def save_merged(
    model, tokenizer, block: Block, adapter: str | Path, folder: str | Path, card: Callable
) -> Path:
    """Save the healed model as an ordinary HF checkpoint: block dropped, adapter merged.

    `card(folder)` of the checkpoint where it lies until it is whole is its README.md; the adapter
    goes along in the folder `adapter`. The weights of `model` are as before afterwards. Raises
    ValueError for weights packed in 4 bits.
    """

    def adapter_and_card(unfinished: Path) -> None:
        text = card(unfinished)
        shutil.copytree(adapter, unfinished / "adapter")
        (unfinished / "README.md").write_text(text, encoding="utf-8")

    with dropped(model, block), lora.load_lora(model, adapter) as wrapped:
        layers = wrapped.base_model.model.named_modules()
        wrappers = {name: module for name, module in layers if isinstance(module, LoraLayer)}
        weights = {f"{n}.weight": module.get_base_layer().weight for n, module in wrappers.items()}
        if not all(weight.is_floating_point() for weight in weights.values()):
            raise ValueError(
                "An adapter cannot be merged into weights packed in 4 bits: load the model with "
                "device='cpu', which unpacks them."
            )
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        wrapped.merge_adapter()
    try:
        return save_pruned(model, tokenizer, block, folder, add=adapter_and_card)
    finally:
        with dropped(model, block), torch.no_grad():
            for name, weight in before.items():
                model.get_parameter(name).copy_(weight)
