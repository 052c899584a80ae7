"""What a run will take, before it runs: `make plan CARD=a100-80`.

It adds up the work of all results that are missing, as `lib.cards` counts it, job by job. Of
notebook 09 only the maps are planned, not what it times.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import pandas as pd

from lib.cards import BYTES, Card, ModelOnCard, Reading, Work, get_card
from lib.models import registry
from replication.measure.request import BLOCK, Request
from replication.profiles import Profile
from replication.run.job_results import is_done, jobs_of, key_of
from replication.token_counts import note, reading

ADAPTER_BYTES = 4  # of an adapter's number on the disk
COLUMNS = "model nb jobs missing hours longest GB fit".split()


# ---- what results take -----------------------------------------------------------------------


@cache
def layer_costs(name: str):
    """Return `counting.layer_costs` of a model. Raises ValueError without its configuration."""
    from lib import counting
    from lib.models import files

    config = files.configuration(name)
    if config is None:
        raise ValueError(f"The configuration of {name} is not on this machine: `make fetch` first.")
    return counting.layer_costs(config)


def work(model: ModelOnCard, request: Request, is_shared: bool) -> Work:
    """Return the work of a result.

    is_shared: another result reads the same, so that only the layers after the cut are run.
    """
    params, block = request.params, request.block
    num_layers = len(model.costs.parameters.layers)
    if request.kind == "healing":
        return model.healing(num_layers - block.size, request.recipe)
    runs = [num_layers - block.stop] if block.size else []
    if not is_shared:
        runs.append(num_layers)
    if request.kind == "damage":  # the whole model, and without each block
        runs += [stop for size in range(1, num_layers) for stop in range(num_layers - size + 1)]
    if request.recipe or request.writes:
        runs = [num_layers - block.size]
    batch = params.get("batch_tokens", params.get("max_tokens"))
    read = model.forward(request.kind, reading(params), runs, batch)
    if request.writes:
        return _and_written(model, read, params, runs)
    return read


def _and_written(model: ModelOnCard, read: Work, params: dict, runs: Sequence[float]) -> Work:
    """Return the work of reading prompts and writing texts of the greatest length."""
    from lib.sweep import WRITTEN_TOGETHER

    tokens = params["questions"] * params["new_tokens"]
    written = model.forward(read.kind, Reading(tokens, tokens), runs, WRITTEN_TOGETHER)
    kind, *amounts, memory = read
    both = zip(amounts, written[1:-1], strict=True)
    return Work(kind, *map(sum, both), max(memory, written.memory))


def works(model: ModelOnCard, requests: Iterable[Request]) -> list[Work]:
    """Return the work of a job's results, in order."""
    texts, works = set(), []
    for request in requests:
        text = key_of(request, *BLOCK, "map")
        works.append(work(model, request, text in texts))
        texts.add(text)
    return works


# ---- the plan of a run -----------------------------------------------------------------------


def planned(profile: Profile, notebooks: Sequence[str], card: Card) -> Iterator[tuple]:
    """Yield each job of `notebooks`, its results that are missing, and the work of these."""
    for name in profile.models:
        model = ModelOnCard(layer_costs(name), profile.quantization, card)
        for job, requests in jobs_of(name, profile, notebooks).items():
            missing = [request for request in requests if not is_done(request)]
            yield job, missing, works(model, missing)


class Planned(NamedTuple):
    """The plan of a run."""

    rows: pd.DataFrame  # COLUMNS, a row a model and notebook
    weights: float  # GB on the disk
    adapters: float  # GB on the disk, with two checkpoints of the largest healing
    notes: tuple[str, ...] = ()  # how tokens were counted that no file has

    @property
    def hours(self) -> float:
        return self.rows.hours.sum()

    @property
    def memory(self) -> float:
        """Return the GB of the largest job; 0 where there is none."""
        return self.rows.GB.max() if len(self.rows) else 0.0


def _job_row(job, missing: list[Request], work: list[Work], model: ModelOnCard) -> tuple:
    """Return the row of a job, by COLUMNS; its notebook and model may have more."""
    seconds = sum(map(model.card.seconds, work))
    if missing:
        seconds += model.loading
    hours = seconds / 3600
    memory = max((of_one.memory for of_one in work), default=0) / 1e9
    fits = bool(missing) and memory <= model.card.memory
    names = (registry.label(job.model), job.notebook)
    return (*names, bool(missing), len(missing), hours, hours, memory, fits)


def _adapter_size(model: ModelOnCard, healing: Request) -> float:
    """Return the GB of what a healing trains."""
    layers_left = len(model.costs.parameters.layers) - healing.block.size
    numbers = healing.recipe.rank * layers_left * model.costs.adapter
    return ADAPTER_BYTES * numbers / 1e9


def plan_of(profile: Profile, notebooks: Sequence[str], card: Card) -> Planned:
    """Return the plan of a run on a card."""
    rows, adapters, notes = [], [0.0], {}
    for job, missing, work in planned(profile, notebooks, card):
        model = ModelOnCard(layer_costs(job.model), profile.quantization, card)
        rows.append(_job_row(job, missing, work, model))
        for one in missing:
            notes[note(one.params)] = None
            if one.kind == "healing":
                adapters.append(_adapter_size(model, one))
    by_notebook = pd.DataFrame(rows, columns=COLUMNS).groupby(["model", "nb"], sort=False)
    largest = {"longest": "max", "GB": "max"}
    rows = by_notebook.agg(dict.fromkeys(COLUMNS[2:], "sum") | largest).reset_index()
    weights = sum(BYTES * layer_costs(name).parameters.size() for name in profile.models) / 1e9
    checkpoints = 2 * 3 * max(adapters)  # the numbers and AdamW's two moments
    return Planned(rows, weights, sum(adapters) + checkpoints, tuple(filter(None, notes)))


def table(profile: Profile, notebooks: list[str], card_name: str | None = None) -> str:
    """Return the plan of a run as text. Raises ValueError for a bad card."""
    card = get_card(card_name)
    plan = plan_of(profile, notebooks, card)
    hours = plan.rows.pivot_table("hours", "nb", "model", "sum", sort=False).sort_index()
    hours = hours.assign(all=hours.sum(axis=1))
    hours.loc["all"] = hours.sum()
    written = {"float_format": "{:,.2f}".format, "na_rep": ""}
    return f"""{profile.name} on {card.name}: {card.size}, {card.products:g} TFLOP/s.
Rates {card.source}.

{plan.rows.to_string(index=False, **written)}

jobs: with results that are missing. longest: hours of a job. GB: weights and one row.
fit: jobs whose GB the card has.

Hours by notebook and model:
{hours.rename_axis(index=None, columns=None).to_string(**written)}

At most {plan.memory:.1f} GB of memory; of the disk {plan.weights:.0f} GB for weights, \
{plan.adapters:.0f} GB for adapters and checkpoints.
In all {plan.hours:,.1f} hours; on several such cards at least the longest.
{chr(10).join(plan.notes)}""".rstrip()
