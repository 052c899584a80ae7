"""What a run will take, before it runs: `python -m lib.run --profile paper --plan --card a100-40`.

Every job of `lib.measure.experiments` as the results it must leave, each with its cost
(`lib.plan.costs`) and how it fits the card. Loads no model, imports neither torch nor transformers,
writes nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby

from lib import paths, results
from lib.blocks import BlockDistances
from lib.measure import wanted
from lib.measure.experiments import Job, jobs
from lib.measure.wanted import Wanted, grouped
from lib.models import registry
from lib.models.shapes import Shape
from lib.plan import assumptions, costs
from lib.plan.assumptions import Card
from lib.plan.costs import Cost
from lib.profiles import Profile, Recipe, attempts
from lib.results.archive import parsed, stored

MACHINE = ("revision", "quantization", "dtype", "device", "threads")  # of a result's model
MOST_READ = 20  # records that a rate is taken from


@dataclass(frozen=True)
class Estimate:
    """A job, whether its results are there, and the costs of those that it must still leave."""

    job: Job
    done: bool
    costs: list[Cost]
    obstacle: str = ""  # why it cannot be planned


@dataclass(frozen=True)
class Guess:
    """The best starts of a model that has no map yet, as in the mean of those of `names`."""

    num_layers: int
    names: tuple[str, ...]

    def best_start(self, size: int) -> int:
        """l*(n), n = size."""
        after = [_share_after(name, size / self.num_layers) for name in self.names]
        return self.num_layers - size - round(self.num_layers * sum(after) / len(after))


def estimates(profile: Profile, notebooks: Sequence[str], card: Card) -> list[Estimate]:
    """Every job of `notebooks`; a result that several need is counted with the first one."""
    found, counted = [], set()
    shapes = {model: registry.shape(model) for model in profile.models}
    maps = {model: _maps(model, profile) for model in profile.models}
    for job in jobs(profile, notebooks):
        shape = shapes[job.model]
        if shape is None:
            found.append(Estimate(job, False, [], "sizes unknown without the hub"))
            continue
        needed, missing = _missing(job, profile, shape, maps[job.model])
        if shape.experts > 1 and any(w.recipe for w in needed):
            found.append(Estimate(job, False, [], "its experts cannot be healed"))
            continue
        new = {results.key(w.kind, w.params): w for w in missing}
        new = {key: w for key, w in new.items() if key not in counted}
        counted |= new.keys()
        found.append(Estimate(job, not missing, _costs(shape, list(new.values()), card)))
    return found


def _missing(
    job: Job, profile: Profile, shape: Shape, maps: list[dict]
) -> tuple[list[Wanted], list[Wanted]]:
    """All results of a job, and those of them that no machine has left."""
    if not maps:
        needed = job.wanted(Guess(shape.num_layers, _published(job.model)), profile)
        return needed, needed
    versions = [_keyed(job, profile, record) for record in maps]
    missing = [same[0] for same in zip(*versions, strict=True) if not any(map(_there, same))]
    return versions[0], missing


def _keyed(job: Job, profile: Profile, record: dict) -> list[Wanted]:
    """The results of a job as the machine keys them that has made a map."""
    machine = {key: record["params"][key] for key in MACHINE if key in record["params"]}
    every = job.wanted(BlockDistances.stored(record["values"]), profile)
    return [replace(w, params=w.params | machine) for w in every]


def _there(wanted: Wanted) -> bool:
    """Whether a result is stored, or its healing failed, so that there is none to be had."""
    if results.location(wanted.kind, wanted.params).exists():
        return True
    healed = wanted.recipe and results.load("healing", wanted.healing.params)
    return bool(healed) and healed["values"]["status"] != "ok"


def _maps(model: str, profile: Profile) -> list[dict]:
    """The stored results of a model's distances; one for each kind of machine."""
    asked = wanted.similarity(model, profile).params
    asked |= {"revision": registry.resolve(model).revision}
    asked = {key: value for key, value in asked.items() if key != "dtype" or value}
    there = stored(paths.RESULTS, "similarity")
    return [record for record in there if asked.items() <= record["params"].items()]


@cache
def _starts() -> dict[str, list[int]]:
    """Published best starts, of the models that are known here."""
    text = (paths.DATA / "published.json").read_text(encoding="utf-8")
    known = json.loads(text)["best_starts"]
    return {name: starts for name, starts in known.items() if name in registry.MODELS}


def _published(model: str) -> tuple[str, ...]:
    """Whose published starts a model is planned by: its own, or the mean of all."""
    return (model,) if model in _starts() else tuple(_starts())


def _share_after(name: str, share: float) -> float:
    """The share of layers after the published cut of a model that drops `share` of its layers."""
    num_layers, starts = registry.MODELS[name].shape.num_layers, _starts()[name]
    size = min(max(1, round(share * num_layers)), len(starts))
    return 1 - (starts[size - 1] + size) / num_layers


def _costs(shape: Shape, missing: list[Wanted], card: Card) -> list[Cost]:
    """The costs of results in the order in which they are measured; weights stay loaded."""
    found, loaded = [], None
    for call, same in grouped(missing, _call).items():
        cost = _cost(shape, same, card)
        found.append(replace(cost, read=0) if found and call[0] == loaded else cost)
        loaded = call[0]
    return found


def _call(wanted: Wanted) -> tuple:
    """The same for results of one call; first, which layers it loads."""
    block = wanted.block if wanted.recipe else None
    asked = {k: v for k, v in wanted.params.items() if k not in ("block_start", "block_size")}
    return block, results.key(wanted.kind, asked)


def _cost(shape: Shape, call: list[Wanted], card: Card) -> Cost:
    """The cost of one call: of one result, or of a task's scores of many blocks, not healed."""
    first = call[0]
    quantization = first.params["quantization"]
    if first.kind == "similarity":
        return costs.similarity(shape, first.params, quantization, card)
    layers = shape.num_layers - (first.block.size if first.recipe else 0)
    if first.kind == "scores":
        cut = [shape.num_layers - w.block.stop for w in call if w.block.size and not w.recipe]
        return costs.sweep(shape, layers, cut, first.params, quantization, card)
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
    card = _at_measured_rates(_asked_for(assumptions.get(card_name), profile), profile)
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
        maps = _maps(model, profile) if shape else []
        for record in maps:
            if record["params"]["device"] != "cpu":
                continue
            cost = costs.similarity(shape, record["params"], profile.quantization, card)
            forward.append(cost.flops / record["seconds"])
            training += _healing_rates(shape, profile, record["params"], card)
    return assumptions.measured(card, forward, training)


def _healing_rates(shape: Shape, profile: Profile, of_map: dict, card: Card) -> list[float]:
    """FLOP/s of some healings that were made on the machine of a map."""
    same = {key: of_map[key] for key in ("model", *MACHINE) if key in of_map}
    files = results.location("healing", same).parent.glob("*.json")
    sample = sorted(files, key=lambda file: file.stem[-8:])[:MOST_READ]  # by key: of all depths
    found = []
    for file in sample:
        record, problem = parsed(file.read_bytes(), "healing")
        if problem or not same.items() <= record["params"].items():
            continue
        layers = shape.num_layers - record["params"]["block_size"]
        made = Recipe(**record["params"]["recipe"])
        cost = costs.healing(shape, layers, made, profile.quantization, card, 16)
        found.append(cost.flops / record["seconds"])
    return found
