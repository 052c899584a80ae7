"""The model card of a checkpoint into which a repair was folded."""

from pathlib import Path

from jinja2 import Template

from lib import evaluation
from lib.blocks import Block
from lib.models import loading, registry
from lib.sweep import sweep
from replication.measure import request
from replication.profiles import Profile

CARD = Path(__file__).with_name("card.md.j2")


def card(
    checkpoint: Path,
    name: str,
    profile: Profile,
    block: Block,
    facts: dict,
    repaired,
    repair: str,
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
        base=base, label=label, block=block, facts=facts, repair=repair, scores=pairs
    )
