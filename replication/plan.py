"""What a run will take, before it runs: `python -m replication --plan --card a100-80`.

The results that each job must still leave, what they take (`costs`), and the hours of it on a card
(`cards`). Memory is that of the weights and one row: a healing finds its own micro-batch, the first
that fits. Loads no model, writes nothing, imports no torch.
"""

from heapq import heappop, heappush
from typing import NamedTuple

from lib.models import registry
from replication import paths, results
from replication.cards import Card, Work, get_card
from replication.costs import Loaded
from replication.measure.request import BLOCK, Request, grouped
from replication.profiles import Profile
from replication.run.jobs import Job
from replication.run.missing import key_of, missing

HEADER = ("model", "nb", "jobs", "missing", "PFLOP", "hours", "longest", "GB", "fits")
LINE = "{:14} {:2} {:>4} {:>7} {:>9} {:>6} {:>7} {:>5}  {}"
OLDER = "Recorded in an older definition: {} of {} missing results."


def works(loaded: Loaded, requests: list[Request], counted: set[str]) -> list[Work]:
    """What a job's results take that are not in `counted`, to which their keys are added."""
    new, read = [], set()
    for request in requests:
        for part in [request.maps, request] if request.kind == "repair" else [request]:
            key, text = key_of(part), key_of(part, ignored=(*BLOCK, "map"))
            if key not in counted:
                shorter = [r.recipe for r in part.shorter if key_of(r) in counted]
                made = shorter[0].steps - shorter[0].decay_steps if shorter else 0
                new.append(loaded.work(part, text in read, made))
                read.add(text)
            counted.add(key)
    return new


class Planned(NamedTuple):
    """A job, the results that it lacks, and what they take."""

    job: Job
    missing: list[Request]
    works: list[Work]  # of a result that several jobs need, in the first of them

    def hours(self, card: Card) -> float:
        return sum(map(card.hours, self.works))


def planned(
    profile: Profile, notebooks: list[str], card: Card, recorded: dict[str, dict] | None = None
) -> list[Planned]:
    """The jobs of `notebooks`, in order. recorded: results that are there, by key.

    Of a model whose sizes are not known yet nothing is counted.
    """
    plan = []
    for model in profile.models:
        shape, counted = registry.shape(model), set()
        loaded = shape and Loaded(shape, profile.quantization, card)
        for job, requests in missing(model, profile, notebooks, recorded).items():
            plan.append(Planned(job, requests, works(loaded, requests, counted) if shape else []))
    return plan


def line(card: Card, jobs: list[Planned]) -> str:
    """The table's line of a notebook's jobs for a model."""
    label = registry.label(jobs[0].job.model)[-14:]  # the end, where models of a family differ
    every = [work for one in jobs for work in one.works]
    hours = [one.hours(card) for one in jobs]
    flops, memory = sum(w.flops for w in every), max((w.memory for w in every), default=0)
    numbers = flops / 1e15, sum(hours), max(hours), memory / 1e9
    counts = len(jobs), sum(work.kind != "maps" for work in every)
    return LINE.format(
        label, jobs[0].job.notebook, *counts, *map(_number, numbers), fit(card, jobs)
    )


def fit(card: Card, jobs: list[Planned]) -> str:
    """How the jobs of a line fit a card."""
    left = [one.works for one in jobs if one.works]
    if not left:
        return "shared with rows above" if any(one.missing for one in jobs) else "done"
    large = [{work.kind for work in works if work.memory > card.memory} for works in left]
    fitting = sum(kinds <= {"similarity"} for kinds in large)
    if fitting < len(left):
        return f"{fitting} of {len(left)}" if fitting else "does not fit"
    return "layer by layer" if any(large) else "yes"


def longest_chain(plan: list[Planned], card: Card) -> tuple[float, list[str]]:
    """The hours of a map and the longest job that needs it, and the names of those left."""
    maps = {one.job.model: one for one in plan if one.job.is_map}
    chains = [(0.0, [])]
    for one in plan:
        of_map = [] if one.job.is_map else [maps[one.job.model]]
        left = [each for each in (*of_map, one) if each.missing]
        chains.append((sum(each.hours(card) for each in left), [each.job.name for each in left]))
    return max(chains)


def on_cards(plan: list[Planned], card: Card, count: int) -> float:
    """The hours of a plan on `count` cards: maps first, then the next job as one is free."""
    free, mapped = [0.0] * count, {}
    maps = [one for one in plan if one.job.is_map]
    for one in maps:
        mapped[one.job.model] = heappop(free) + one.hours(card)
        heappush(free, mapped[one.job.model])
    others = [one for one in plan if not one.job.is_map]
    for one in sorted(others, key=lambda one: mapped[one.job.model]):
        start = max(heappop(free), mapped[one.job.model])
        heappush(free, start + one.hours(card))
    return max(free)


def table(
    profile: Profile, notebooks: list[str], card_name: str | None = None, count: int = 1
) -> str:
    """The plan of a run on `count` cards as text, at most 110 columns wide.

    What is recorded of the profile is there: a recording resumes. Raises ValueError for a bad card.
    """
    card = get_card(card_name, profile.dtype)
    record = results.archive(paths.RECORDED / profile.name)
    plan = planned(profile, notebooks, card, {result["key"]: result for result in record.records()})
    lacking = [request for one in plan for request in one.missing]
    older = sum(record.find(request.kind, request.params) is not None for request in lacking)
    rows = grouped(plan, lambda one: (one.job.model, one.job.notebook))
    every = [work for one in plan for work in one.works]
    drawn = sorted({*notebooks} - {notebook for _, notebook in rows})
    unknown = ", ".join(model for model in profile.models if not registry.shape(model))
    chosen = "float32" if card.element == 4 else "16 bits"
    hours, flops = sum(map(card.hours, every)), sum(work.flops for work in every)
    chain, names = longest_chain(plan, card)
    done = sum(not one.missing for one in plan)
    lines = [
        f"{profile.name} on {card.name}: {card.memory / 1e9:.1f} GB, {card.matmul / 1e12:.3g} "
        f"TFLOP/s; weights in {profile.quantization or profile.dtype or chosen}.",
        f"Rates {card.source}.",
        "GB: weights and one row.",
        "",
        LINE.format(*HEADER),
        *(line(card, jobs) for jobs in rows.values() if registry.shape(jobs[0].job.model)),
        "",
        *([f"Not counted: {', '.join(drawn)}."] if drawn else []),
        *([f"Not one: {unknown}. No config.json tells the sizes."] if unknown else []),
        f"{len(plan)} jobs, {done} done. The rest: {_number(hours)} hours, "
        f"{_number(flops / 1e15)} PFLOP.",
        *([OLDER.format(older, len(lacking))] if older else []),
        f"One after the other: {_number(chain)} hours{': ' * bool(names)}{', '.join(names)}.",
        *([f"On {count} cards: {_number(on_cards(plan, card, count))} hours."] * (count > 1)),
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    digits = 0 if value >= 100 else 1 if value >= 1 else 2
    return "<0.01" if 0 < value < 0.01 else f"{value:,.{digits}f}"
