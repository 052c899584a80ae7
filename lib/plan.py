"""What a run will take, before it runs: `python -m lib.run --profile paper --plan --card a100-40`.

Every job of `lib.jobs` as the results it must leave, each with its cost (`lib.costs`) and how it
fits the card. Loads no model, imports neither torch nor transformers, writes nothing.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from lib import cards, costs, keys, paths, registry
from lib.cards import Card
from lib.costs import Cost
from lib.jobs import Job, jobs
from lib.pieces import Piece, Stored, healings, pieces, stored
from lib.profiles import Profile
from lib.recipes import attempts
from lib.shapes import Shape


@dataclass(frozen=True)
class Estimate:
    """A job, whether its results are there, and the costs of those that it must still leave."""

    job: Job
    done: bool
    costs: list[Cost]
    obstacle: str = ""  # why it cannot be planned


def estimates(profile: Profile, notebooks: Sequence[str], card: Card) -> list[Estimate]:
    """Every job of `notebooks`; a result that several need is counted with the first one."""
    found, counted = [], set()
    shapes = {model: registry.shape(model) for model in profile.models}
    there = {model: stored(model, profile) for model in profile.models}
    for job in jobs(profile, notebooks):
        shape, maps = shapes[job.model], there[job.model]
        if shape is None:
            found.append(Estimate(job, False, [], "sizes unknown without the hub"))
            continue
        needed = pieces(job, profile, shape.num_layers)
        if shape.experts > 1 and any(piece.recipe for piece in needed):
            found.append(Estimate(job, False, [], "its experts cannot be healed"))
            continue
        missing = [p for p in needed if not any(known.has(p) for known in maps)]
        new = {_name(job.model, piece): piece for piece in missing}
        new = [piece for name, piece in new.items() if name not in counted]
        counted |= {_name(job.model, piece) for piece in new}
        after = _layers_after(job.model, shape, maps)
        found.append(Estimate(job, not missing, _costs(shape, new, after, card)))
    return found


def _name(model: str, piece: Piece) -> tuple:
    """The same for results that are the same, though asked for by different notebooks."""
    asked = () if piece.kind == "healing" else tuple(sorted(piece.asked.items()))
    return model, piece.kind, asked, piece.strategy, piece.size, piece.recipe


def _layers_after(model: str, shape: Shape, there: list[Stored]):
    """How many layers a version runs after its cut, given strategy and size.

    By its distance map, else a published list of best starts, else as in the mean of those.
    """
    lists = json.loads((paths.DATA / "published.json").read_text(encoding="utf-8"))["best_starts"]
    lists = {name: starts for name, starts in lists.items() if name in registry.MODELS}

    def published(name: str, share: float) -> float:
        """The share of layers after the cut, where `share` of the layers are dropped."""
        num_layers, starts = registry.MODELS[name].num_layers, lists[name]
        size = min(max(1, round(share * num_layers)), len(starts))
        return 1 - (starts[size - 1] + size) / num_layers

    def after(strategy: str, size: int) -> int:
        if strategy == "simple":
            return 1
        if there:
            return shape.num_layers - size - there[0].start(strategy, size)
        names = [model] if model in lists else list(lists)
        shares = [published(name, size / shape.num_layers) for name in names]
        return round(shape.num_layers * sum(shares) / len(shares))

    return after


def _costs(shape: Shape, missing: list[Piece], after: Callable, card: Card) -> list[Cost]:
    """The costs of results in the order in which they are measured; weights stay loaded."""
    found, loaded = [], None
    for (healed, *_), call in groupby(missing, key=_call):
        cost = _cost(shape, list(call), after, card)
        found.append(replace(cost, read=0) if found and healed == loaded else cost)
        loaded = healed
    return found


def _call(piece: Piece) -> tuple:
    """The same for results of one call; first, which layers it loads."""
    block = (piece.strategy, piece.size) if piece.recipe else None
    return block, piece.kind, piece.task, piece.profile, piece.recipe


def _cost(shape: Shape, call: list[Piece], after: Callable, card: Card) -> Cost:
    """The cost of one call: of one result, or of a task's scores of many blocks, not healed."""
    first = call[0]
    quantization = first.profile.quantization
    if first.kind == "similarity":
        return costs.similarity(shape, first.asked, quantization, card)
    layers = shape.num_layers - (first.size if first.recipe else 0)
    if first.kind == "scores":
        cut = [after(p.strategy, p.size) for p in call if p.strategy and not p.recipe]
        return costs.sweep(shape, layers, cut, first.asked, quantization, card)
    tried = [
        costs.healing(shape, layers, first.recipe, quantization, card, *attempt)
        for attempt in attempts(first.recipe.batch)
    ]
    fitting = [cost for cost in tried if cost.memory <= card.memory]
    return (fitting or tried[-1:])[0]


# ---- the table -----------------------------------------------------------------------------

HEADER = ("model", "nb", "jobs", "done", "Mtokens", "PFLOP", "hours", "of a job")
HEADER += ("base", "batch", "LoRA", "read", "disk", "how it fits")
WIDTHS = (12, 2, 4, 4, 7, 9, 5, 10, 5, 5, 5, 5, 4)


def table(profile: Profile, notebooks: Sequence[str], card_name: str | None = None) -> str:
    """The plan of a run as text, one row for each model and notebook, at most 120 columns wide.

    Raises ValueError for an unknown card.
    """
    card = _at_measured_rates(_asked_for(cards.get(card_name), profile), profile)
    found = estimates(profile, notebooks, card)
    found.sort(key=lambda estimate: profile.models.index(estimate.job.model))
    groups = groupby(found, key=lambda e: (e.job.model, e.job.notebook))
    rows = [_row(model, notebook, list(group), card) for (model, notebook), group in groups]
    everything = [cost for estimate in found for cost in estimate.costs]
    hours = sum(cost.seconds(card) for cost in everything) / 3600
    lines = [
        f"{profile.name} on {card.name}: {card.memory / 1e9:.1f} GB, {card.rate / 1e12:.3g} TFLOP/s"
        f" (healing {card.training_rate / 1e12:.3g}), {card.source}.",
        f"Weights in {profile.quantization or profile.dtype}. In GB: memory of a row's largest "
        "measurement (base weights, batch,",
        "LoRA and its optimizer), what is read from disk in all, what a job's checkpoints take. "
        "m: sequences at a time.",
        "",
        _line(HEADER),
        *map(_line, rows),
        "",
        *_not_planned(notebooks, found),
        f"{len(found)} jobs, {sum(e.done for e in found)} done. The rest: {_number(hours)} hours, "
        f"{_number(sum(c.flops for c in everything) / 1e15)} PFLOP, "
        f"{_number(sum(c.read for c in everything) / 1e9)} GB read.",
    ]
    return "\n".join(lines)


def _not_planned(notebooks: Sequence[str], found: list[Estimate]) -> list[str]:
    """A line that names the notebooks that are no jobs, if there are any."""
    left = [number for number in notebooks if number not in {e.job.notebook for e in found}]
    return [f"Not counted, as they are not made of jobs: {', '.join(left)}."] if left else []


def _row(model: str, notebook: str, group: list[Estimate], card: Card) -> tuple:
    """The cells of one row."""
    done = sum(estimate.done for estimate in group)
    start = (registry.label(model)[:12], notebook, len(group), done)
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


def _line(cells: tuple) -> str:
    """A line of the table: names to the left, numbers to the right."""
    padded = [str(c).rjust(w) for c, w in zip(cells[2:-1], WIDTHS[2:], strict=True)]
    model, notebook = (str(c).ljust(w) for c, w in zip(cells, WIDTHS[:2], strict=False))
    return " ".join((model, notebook, *padded, f" {cells[-1]}")).rstrip()


def _asked_for(card: Card, profile: Profile) -> Card:
    """The card with weights in the format that the profile asks for, if it does."""
    sizes = {None: card.element, "float32": 4}
    return replace(card, element=sizes.get(profile.dtype, 2))


def _at_measured_rates(card: Card, profile: Profile) -> Card:
    """A CPU at the rates of what it has measured, by the results of the profile's models."""
    forward, training = [], []
    for model in profile.models if card.on_cpu else ():
        shape = registry.shape(model)
        for known in stored(model, profile) if shape else ():
            if known.identity["device"] != "cpu":
                continue
            asked = keys.similarity({}, profile)
            cost = costs.similarity(shape, asked, profile.quantization, card)
            forward.append(cost.flops / known.seconds)
            for size, made, seconds in healings(known):
                layers = shape.num_layers - size
                cost = costs.healing(shape, layers, made, profile.quantization, card, 16)
                training.append(cost.flops / seconds)
    return cards.measured(card, forward, training)
