"""What a run will take, before it runs: `python -m replication --plan --card a100-80`.

The results that each job must still leave, what they take (`costs`), and the hours of it on a card
(`cards`). Memory is that of the weights and one row: a healing finds its own micro-batch, the first
that fits. Loads no model, writes nothing, imports no torch.
"""

from dataclasses import dataclass
from typing import NamedTuple

from lib.models import registry
from replication import paths, results
from replication.cards import Card, Work, get_card
from replication.costs import Loaded
from replication.measure import experiments
from replication.measure.request import BLOCK, Request, grouped
from replication.profiles import Profile
from replication.results.archive import Archive, parsed
from replication.run.jobs import Job, jobs
from replication.run.missing import key_of, maps_of, missing

HEADER = ("model", "nb", "jobs", "missing", "PFLOP", "hours", "longest", "GB", "fits")
WRITING = "11 GSM8K"  # a row of its own
LINE = "{:14} {:8} {:>4} {:>7} {:>9} {:>6} {:>7} {:>5}  {}"


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


@dataclass(frozen=True)
class Written(Job):
    """The part of notebook 11 that no job lists: what models write, as GSM8K's answers."""

    def requests(self, distances, profile: Profile) -> list[Request]:
        whole = experiments.unpruned(self.model, profile, ["gsm8k"])
        return whole + experiments.written(self.model, distances, profile)


def solves_none(model: str, profile: Profile, record: Archive) -> bool:
    """Whether the whole model has answered no problem of GSM8K, so that no pruned one is asked."""
    (whole,) = experiments.unpruned(model, profile, ["gsm8k"])
    params = {name: value for name, value in whole.params.items() if name != "dtype" or value}
    files = paths.RESULTS.glob("scores/*/gsm8k-*-whole-*.json")
    read = [parsed(file.read_bytes(), "scores") for file in files]
    there = [result for result, problem in read if problem is None] + [*record.records("scores")]
    same = [result for result in there if params.items() <= result["params"].items()]
    return any(result["values"]["value"] == 0 for result in same)


class Row(NamedTuple):
    """A notebook's jobs for a model: the results that each lacks, and what they take."""

    model: str
    notebook: str
    missing: list[list[Request]]
    works: list[list[Work]]  # of a result that several need, in the first of them

    def line(self, card: Card) -> str:
        """Its line of the table."""
        label = registry.label(self.model)[-14:]  # the end, where models of a family differ
        every = [work for job in self.works for work in job]
        hours = [sum(card.hours(work) for work in job) for job in self.works]
        flops, memory = sum(w.flops for w in every), max((w.memory for w in every), default=0)
        numbers = flops / 1e15, sum(hours), max(hours, default=0), memory / 1e9
        counts = len(self.missing), sum(work.kind != "maps" for work in every)
        return LINE.format(label, self.notebook, *counts, *map(_number, numbers), self.fits(card))

    def fits(self, card: Card) -> str:
        """How the jobs fit a card."""
        left = [job for job in self.works if job]
        if not left:
            return "shared with rows above" if any(self.missing) else "done"
        large = [{work.kind for work in job if work.memory > card.memory} for job in left]
        fit = sum(kinds <= {"similarity"} for kinds in large)
        if fit < len(left):
            return f"{fit} of {len(left)}" if fit else "does not fit"
        return "layer by layer" if any(large) else "yes"


def rows(profile: Profile, notebooks: list[str], card: Card) -> list[Row]:
    """All jobs of `notebooks`. What is recorded of the profile is there: a recording resumes."""
    record, plan = results.archive(paths.RECORDED / profile.name), []
    recorded = {result["key"] for result in record.records()}
    known = [job for job in jobs(profile, notebooks) if registry.shape(job.model)]
    for model, of_model in grouped(known, lambda job: job.model).items():
        maps, counted = maps_of(model, profile, record), set()
        loaded = Loaded(registry.shape(model), profile.quantization, card)
        by_notebook = grouped(of_model, lambda job: job.notebook)
        if "11" in by_notebook and not solves_none(model, profile, record):
            by_notebook[WRITING] = [Written("11", model)]
        for notebook, same in sorted(by_notebook.items()):
            lacks = [missing(job, profile, maps, recorded) for job in same]
            new = [works(loaded, requests, counted) for requests in lacks]
            plan.append(Row(model, notebook, lacks, new))
    return plan


def table(profile: Profile, notebooks: list[str], card_name: str | None = None) -> str:
    """The plan of a run as text, at most 110 columns wide. Raises ValueError for a bad card."""
    card = get_card(card_name, profile.dtype)
    plan = rows(profile, notebooks, card)
    every = [work for row in plan for job in row.works for work in job]
    lacks = [job for row in plan for job in row.missing]
    drawn = sorted({*notebooks} - {row.notebook for row in plan})
    unknown = ", ".join(model for model in profile.models if not registry.shape(model))
    chosen = "float32" if card.element == 4 else "16 bits"
    hours, flops = sum(card.hours(work) for work in every), sum(work.flops for work in every)
    lines = [
        f"{profile.name} on {card.name}: {card.memory / 1e9:.1f} GB, {card.matmul / 1e12:.3g} "
        f"TFLOP/s; weights in {profile.quantization or profile.dtype or chosen}.",
        f"Rates {card.source}.",
        "GB: weights and one row.",
        "",
        LINE.format(*HEADER),
        *(row.line(card) for row in plan),
        "",
        *([f"Not counted: {', '.join(drawn)}."] if drawn else []),
        *([f"Not planned: {unknown}. No config.json tells the sizes."] if unknown else []),
        f"{len(lacks)} jobs, {lacks.count([])} done. The rest: {_number(hours)} hours, "
        f"{_number(flops / 1e15)} PFLOP.",
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    digits = 0 if value >= 100 else 1 if value >= 1 else 2
    return "<0.01" if 0 < value < 0.01 else f"{value:,.{digits}f}"
