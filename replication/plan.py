"""What a run will take, before it runs: `make plan CARD=a100-80`, `make prune … PLAN=1 CARD=t4`.

Work is layer applications × tokens × the FLOPs that `lib.counting` counts of a layer, and bytes of
weights that each batch reads (and unpacks from NF4). Its time is the sum of both, each at a rate of
the card; a job also loads its model. Left out are the tokenizer, downloads, what a CPU fits to
states (linear maps, probes), rows of other lengths than the mean, and notebook 09.
Loads no weights, writes nothing, and imports torch only where it counts.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.blocks import Block
from lib.gpu import nf4
from lib.healing import Recipe
from lib.models import machine, registry
from replication import paths
from replication.measure.request import BLOCK, Request
from replication.profiles import Profile
from replication.run.stored import is_done, jobs_of, key_of
from replication.token_counts import Reading, lengths, note, reading

CARDS = paths.ROOT / "replication" / "cards.csv"
ENDLESS = 1e15  # bytes, of a CPU: there no layer is recomputed
LOADING = 1e9  # bytes a second of weights in 16 bits: a disk, and packing on one core (assumed)
BYTES = 2  # of a number that is not quantised; of float32 a plan counts half
ADAPTER_BYTES = 4  # of an adapter's number on the disk
COLUMNS = "model nb jobs missing hours longest GB fit".split()


# ---- cards -----------------------------------------------------------------------------------


class Work(NamedTuple):
    """What a result takes."""

    kind: str
    flops: float  # of matrix products
    moved: float  # bytes that other kernels read and write
    weights: float  # bytes of weights that batches read
    memory: float  # bytes: the weights, and one row


class Card(NamedTuple):
    """A processor: a row of cards.csv."""

    name: str
    gpu: str  # pattern of what nvidia-smi calls it
    memory: float  # GB that a program can use; of a CPU, whatever there is
    products: float  # TFLOP/s
    others: float  # TB/s of other kernels; inf: the rate of products is that of all
    weights: float  # TB/s
    forward: float  # share of these rates that a forward pass reaches
    training: float  # and a healing
    source: str  # of the rates

    def seconds(self, work: Work) -> float:
        """Return the time of `work`."""
        parts = (
            work.flops / self.products,
            work.moved / self.others,
            work.weights / self.weights,
        )
        share = self.training if work.kind == "healing" else self.forward
        return sum(parts) / 1e12 / share


def cards() -> dict[str, Card]:
    """Return the rows of cards.csv by name."""
    return {row.name: Card(*row) for row in pd.read_csv(CARDS).itertuples(index=False)}


def get_card(name: str | None = None) -> Card:
    """Return the card `name`, by default the one at hand. Raises ValueError if it has no row."""
    known, name = cards(), name or machine.gpu_at_hand() or "cpu"
    same = [card for card in known.values() if name == card.name or re.search(card.gpu, name)]
    if not same:
        raise ValueError(f"Unknown card {name!r}: choose one of {', '.join(known)}.")
    return same[0]


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


class ModelOnCard(NamedTuple):
    """A model that a run has loaded on a card."""

    costs: object  # `counting.LayerCosts`
    quantization: str | None
    card: Card

    @property
    def packed(self) -> bool:
        """Whether NF4 stays packed."""
        size = BYTES * self.costs.parameters.size()
        return bool(self.quantization) and nf4.stays_packed(size, self.card.memory * 1e9)

    @property
    def loading(self) -> float:
        """Return the seconds to load the model, once a job."""
        return BYTES * self.costs.parameters.size() / LOADING

    def weights(self, num_layers: int) -> float:
        """Return the bytes of the model with so many layers."""
        matrix = machine.NF4_BYTES if self.packed else BYTES
        return self.costs.parameters.size(num_layers, matrix, BYTES)

    def weights_read(self, num_layers: float) -> float:
        """Return the bytes that a batch moves for the weights of so many layers."""
        unpacking = machine.NF4_BYTES + BYTES if self.packed else 0
        return self.costs.parameters.size(num_layers, BYTES + unpacking, other=0)

    def forward(self, kind: str, read: Reading, runs: Sequence[float], batch: float) -> Work:
        """Return the work of versions that run so many layers each, in batches of `batch` tokens.

        memory: a batch's states at all cuts are held, and the keys and values of shared examples.
        """
        costs, num_layers = self.costs, len(self.costs.parameters.layers)
        flops, moved = read.tokens * sum(runs) * costs.forward
        flops += read.scored * len(runs) * costs.head
        num_batches = max(1, read.tokens / batch)
        weights = num_batches * self.weights_read(sum(runs))
        values_of_token = costs.state + read.prefix * costs.cached
        held = BYTES * batch * num_layers * values_of_token
        return Work(kind, flops, moved, weights, self.weights(num_layers) + held)

    def healing(self, num_layers: int, recipe: Recipe, at_once: int | None = None) -> Work:
        """Return the work of healing the layers that are left, `at_once` sequences at most."""
        from lib.gpu import memory
        from lib.healing.packing import micro_batches

        costs = self.costs
        whole = min(self.card.memory * 1e9, ENDLESS)
        free = whole - self.weights(num_layers)
        budget = memory.activation_budget(costs, free, recipe.rank, num_layers)
        most = min(at_once or memory.MICRO_BATCH, memory.MICRO_BATCH)
        micro_batch = micro_batches(recipe.batch, most)[0]
        row = micro_batch * fmean(lengths(recipe.max_tokens, recipe.packed))
        num_rows = recipe.steps * recipe.batch / micro_batch
        # FLOPs of adapters beyond those of rank 1, which are counted, and the bytes of their thin
        # products: forward, back to the input and back to the adapters
        thin = np.array([6 * (recipe.rank - 1), 3 * BYTES]) * costs.adapter
        # forward through all layers, again through some, and back through all
        forward = num_layers + budget.num_recomputed(row)
        flops, moved = (
            num_rows
            * row
            * (forward * costs.forward + num_layers * (costs.training - costs.forward + thin))
        )
        flops += 2 * num_rows * row * costs.head
        read = num_rows * self.weights_read(forward + num_layers)
        kept = budget.outside + num_layers * budget.layer if whole == ENDLESS else budget.least
        held = whole - budget.memory + recipe.max_tokens * kept
        return Work("healing", flops, moved, read, held)

    def work(self, request: Request, is_shared: bool) -> Work:
        """Return the work of a result.

        is_shared: another result reads the same, so that only the layers after the cut are run.
        """
        params, block, num_layers = request.params, request.block, len(self.costs.parameters.layers)
        if request.kind == "healing":
            return self.healing(num_layers - block.size, request.recipe)
        runs = [num_layers - block.stop] * bool(block.size) + [num_layers] * (not is_shared)
        if request.kind == "damage":  # the whole model, and without each block
            runs += [stop for size in range(1, num_layers) for stop in range(num_layers - size + 1)]
        if request.recipe or request.writes:
            runs = [num_layers - block.size]
        batch = params.get("batch_tokens", params.get("max_tokens"))
        work = self.forward(request.kind, reading(params), runs, batch)
        return work if not request.writes else self._and_written(work, params, runs)

    def _and_written(self, read: Work, params: dict, runs: Sequence[float]) -> Work:
        """Return the work of reading prompts and writing texts of the greatest length."""
        from lib.sweep import WRITTEN_TOGETHER

        tokens = params["questions"] * params["new_tokens"]
        written = self.forward(read.kind, Reading(tokens, tokens), runs, WRITTEN_TOGETHER)
        together = map(sum, zip(read[1:-1], written[1:-1], strict=True))
        return Work(read.kind, *together, max(read.memory, written.memory))


def works(model: ModelOnCard, requests: Iterable[Request]) -> list[Work]:
    """Return the work of a job's results, in order."""
    texts, works = set(), []
    for request in requests:
        text = key_of(request, *BLOCK, "map")
        works.append(model.work(request, text in texts))
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
        """Return the GB of the largest job."""
        return self.rows.GB.max()


def plan_of(profile: Profile, notebooks: Sequence[str], card: Card) -> Planned:
    """Return the plan of a run on a card."""
    rows, adapters, notes = [], [0.0], {}
    for job, missing, work in planned(profile, notebooks, card):
        model = ModelOnCard(layer_costs(job.model), profile.quantization, card)
        seconds = sum(map(card.seconds, work)) + bool(missing) * model.loading
        hours, memory = seconds / 3600, max((each.memory for each in work), default=0) / 1e9
        names, is_missing = (registry.label(job.model), job.notebook), bool(missing)
        fits = is_missing and memory <= card.memory
        rows.append((*names, is_missing, len(missing), hours, hours, memory, fits))
        for one in missing:
            notes[note(one.params)] = None
            if one.kind == "healing":
                left = len(model.costs.parameters.layers) - one.block.size
                numbers = one.recipe.rank * left * model.costs.adapter
                adapters.append(ADAPTER_BYTES * numbers / 1e9)
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
    return f"""{profile.name} on {card.name}: {card.memory:g} GB, {card.products:g} TFLOP/s.
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


# ---- the plan of a pruned model --------------------------------------------------------------


def prune_table(options, card: Card) -> str:
    """Return what `make prune` takes to choose, to score and to heal; not of its short map."""
    from lib import counting
    from lib.models import files, layers
    from lib.prune import far
    from lib.prune.options import MAX_TOKENS, TASKS

    config = files.configuration(options.model)
    if config is None:  # that of a model on the hub is downloaded
        config = files.open_checkpoint(options.model, files.CONFIGURATION).config
    layers.check(config)
    Block(options.start or 0, options.layers).kept(
        config.get_text_config(decoder=True).num_hidden_layers
    )
    model = ModelOnCard(counting.layer_costs(config), "nf4" if options.nf4 else None, card)
    parameters = model.costs.parameters
    num_layers = len(parameters.layers)
    if options.needs_table:
        return "\n".join(size_line(model, count) for count in range(num_layers, 0, -1))
    left = num_layers - options.layers
    # similarity takes the whole model; any other choice also the layers after each block
    runs = [num_layers] if options.by == "similarity" else [num_layers, *range(left + 1)]
    works = [model.forward("choosing", reading(TASKS["c4"]), runs, 2048)]  # as many texts
    runs = [num_layers, left, left, left]
    for name in dict.fromkeys(["c4", *options.tasks.split()]):
        read = reading(TASKS[name] | {"task": name})
        first = [num_layers] * (name != "c4")  # the whole model answers questions first
        works.append(model.forward(f"scoring {name}", read, first + runs, 2048))
    first = MAX_TOKENS
    for length in far.lengths(options, config):
        read = Reading(far.TEXTS * length, far.TEXTS * (length - first))
        works.append(model.forward(f"scoring to token {length:,}", read, [num_layers, left], 2048))
        first = length
    if options.heals:
        recipe = options.recipe(parameters.size(), card.name == "cpu")
        works.append(model.healing(left, recipe, options.sequences_at_once))
    lines = [f"{work.kind}: {card.seconds(work) / 60:.1f} minutes" for work in works]
    gb, most = model.weights(left) / 1e9, max(work.memory for work in works) / 1e9
    lines.append(
        f"{left} layers are left, of {gb:.1f} GB. It takes {most:.1f} GB on {card.name}; "
        "Python and its libraries take about 1 GB of the machine."
    )
    return "\n".join(lines)


def size_line(model: ModelOnCard, num_layers: int) -> str:
    """Return what so many layers are on a card: GB, and tokens a second, written one at a time."""
    flops, moved = num_layers * model.costs.forward
    head = model.costs.head  # FLOPs of a token: as many as its weights have bytes
    weights = model.weights_read(num_layers) + head
    seconds = model.card.seconds(Work("writing", flops + head, moved, weights, 0))
    return (
        f"{num_layers} layers: {model.weights(num_layers) / 1e9:.2f} GB, "
        f"{1 / seconds:.3g} tokens a second on {model.card.name}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the plan of `make prune`."""
    from lib.prune.__main__ import arguments
    from lib.prune.options import Options

    parser = arguments()
    parser.add_argument("--card", help=f"{', '.join(cards())}; default: at hand")
    try:
        given = vars(parser.parse_args(argv))
        name, _ = given.pop("card"), given.pop("out")
        options = Options(**given)
        print(prune_table(options, get_card(name)))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
