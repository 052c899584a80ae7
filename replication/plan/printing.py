"""What a run will take, before it runs: `python -m replication --plan --card a100-40`.

Every job of `replication.run.jobs` as the results it must leave, each with its cost and how it
fits the card. Imports neither torch nor transformers.
"""

from collections.abc import Sequence
from itertools import groupby

from lib.models import registry
from replication.plan import assumptions
from replication.plan.assumptions import Card
from replication.plan.costs import Cost
from replication.plan.estimates import Estimate, adjusted, estimates
from replication.profiles import Profile

ROW = "{:14} {:2} {:>4} {:>4} {:>7} {:>9} {:>5} {:>10} {:>5} {:>5} {:>5} {:>5} {:>4}  {}"
HEADER = ("model", "nb", "jobs", "done", "Mtokens", "PFLOP", "hours", "of a job")
HEADER += ("base", "batch", "LoRA", "read", "disk", "how it fits")
NOTHING_NEW = "They draw what others measure; 09 also takes times, and losses in two formats."


def table(profile: Profile, notebooks: Sequence[str], card_name: str | None = None) -> str:
    """The plan of a run as text, one row for each model and notebook, at most 120 columns wide.

    Raises ValueError for an unknown card.
    """
    card = adjusted(assumptions.get(card_name), profile)
    found = estimates(profile, notebooks, card)
    found.sort(key=lambda estimate: profile.models.index(estimate.job.model))
    groups = groupby(found, key=lambda e: (e.job.model, e.job.notebook))
    rows = [_row(model, notebook, list(group), card) for (model, notebook), group in groups]
    everything = [cost for estimate in found for cost in estimate.costs]
    hours = sum(cost.seconds(card) for cost in everything) / 3600
    told = ", ".join(sorted({*notebooks} - {e.job.notebook for e in found}))
    chosen = "float32" if card.element == 4 else "bfloat16"
    lines = [
        f"{profile.name} on {card.name}: {card.memory / 1e9:.1f} GB, {card.rate / 1e12:.3g} TFLOP/s"
        f" (healing {card.training_rate / 1e12:.3g}), {card.source}.",
        f"Weights in {profile.quantization or profile.dtype or chosen}. In GB: memory of a row's "
        "largest measurement (base weights, batch,",
        "LoRA and its optimizer), what is read from disk in all, what a job's checkpoints take. "
        "m: sequences at a time.",
        "",
        *(ROW.format(*cells).rstrip() for cells in (HEADER, *rows)),
        "",
        *([f"Not counted: {told}. {NOTHING_NEW}"] if told else []),
        f"{len(found)} jobs, {sum(e.done for e in found)} done. The rest: {_number(hours)} hours, "
        f"{_number(sum(c.flops for c in everything) / 1e15)} PFLOP, "
        f"{_number(sum(c.read for c in everything) / 1e9)} GB read.",
    ]
    return "\n".join(lines)


def _row(model: str, notebook: str, group: list[Estimate], card: Card) -> tuple:
    """The cells of one row."""
    done = sum(estimate.done for estimate in group)
    label = registry.label(model)[-14:]  # the end, where models of a family differ
    start = (label, notebook, len(group), done)
    empty = [""] * (len(HEADER) - len(start) - 1)
    if group[0].obstacle:
        return (*start, *empty, group[0].obstacle)
    left = [estimate.costs for estimate in group if estimate.costs]
    if not left:
        return (*start, *empty, "done" if done == len(group) else "shared with rows above")
    hours = [sum(cost.seconds(card) for cost in job) / 3600 for job in left]
    everything = [cost for job in left for cost in job]
    most = max(everything, key=lambda cost: cost.memory)
    return (
        *start,
        _number(sum(cost.tokens for cost in everything) / 1e6),
        _number(sum(cost.flops for cost in everything) / 1e15),
        _number(sum(hours)),
        _span([_number(hour) for hour in sorted(hours)]),
        *(_number(part / 1e9) for part in (most.weights, most.activations, most.optimizer)),
        _number(sum(cost.read for cost in everything) / 1e9),
        _number(max(cost.written for cost in everything) / 1e9),
        _how(left, card),
    )


def _how(left: list[list[Cost]], card: Card) -> str:
    """How the jobs of a row fit, and how many do not."""
    fitting = [job for job in left if all(cost.memory <= card.memory for cost in job)]
    if not fitting:
        return "does not fit"
    micro = sorted({cost.micro_batch for job in fitting for cost in job} - {0})
    recomputing = sum(any(cost.recomputes for cost in job) for job in fitting)
    told = [f"m {_span(micro)}" if micro else fitting[0][0].how]
    told += [f"{recomputing} recompute"] if recomputing else []
    told += [f"{len(left) - len(fitting)} not"] if len(fitting) < len(left) else []
    return ", ".join(told)


def _number(value: float) -> str:
    """In few digits."""
    if 0 < value < 0.01:
        return "<0.01"
    return f"{value:,.{0 if value >= 100 or not value else 1 if value >= 1 else 2}f}"


def _span(values: Sequence) -> str:
    """The first and the last of ordered values, or the one that they are."""
    return f"{values[0]}" if values[0] == values[-1] else f"{values[0]}–{values[-1]}"
