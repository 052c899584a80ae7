"""What a run will take, before it runs: `python -m replication --plan --card a100-80`.

Work is layer applications × tokens × what `lib.counting` counts of a layer. Its time is a sum of
three, each at a rate of the card: FLOPs of matrix products, bytes that all other kernels move, and
bytes of weights that each batch reads (and unpacks from NF4). Left out are starting kernels, the
tokenizer, loading, fitting linear maps. Loads no weights, writes nothing, and imports torch only
where it counts.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from math import sqrt
from statistics import fmean, pstdev
from typing import NamedTuple

import pandas as pd

from lib.data.encoding import WRITTEN_TOGETHER
from lib.healing import Recipe
from lib.healing.recipe import ADAPTER, PLANNED, Room, memory_fallbacks
from lib.models import machine, registry
from replication import paths, tables
from replication.measure import cache as results
from replication.measure import signals
from replication.measure.request import BLOCK, Request, similarity
from replication.profiles import Profile
from replication.run.jobs import Job, by_job

CARDS = paths.ROOT / "replication" / "cards.csv"
TOKENS = json.loads((paths.DATA / "token_counts.json").read_text(encoding="utf-8"))
MACHINE = ("revision", "dtype", "device")  # parameters that the machine decides


# ---- cards -----------------------------------------------------------------------------------


class Work(NamedTuple):
    """What a result takes."""

    kind: str
    tokens: float
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
    others: float  # TB/s of other kernels, in 16 bits; inf: the rate of products is that of all
    weights: float  # TB/s
    forward: float  # share of the speed by these rates that a forward pass reaches
    training: float  # and a healing
    source: str  # of the rates
    element: int = 2  # bytes of a weight that is not quantised

    def seconds(self, work: Work) -> float:
        """Return the time of `work`."""
        others = self.others * 2 / self.element
        parts = work.flops / self.products, work.moved / others, work.weights / self.weights
        return sum(parts) / 1e12 / (self.training if work.kind == "healing" else self.forward)


def cards() -> dict[str, Card]:
    """Return the rows of cards.csv by name."""
    return {row.name: Card(*row) for row in pd.read_csv(CARDS).itertuples(index=False)}


def get_card(name: str | None = None, dtype: str | None = None) -> Card:
    """Return the card `name`, by default the one at hand. Raises ValueError if it has no row."""
    known, name = cards(), name or machine.gpu_at_hand() or "cpu"
    same = [card for card in known.values() if name == card.name or re.search(card.gpu, name)]
    if not same:
        raise ValueError(f"Unknown card {name!r}: choose one of {', '.join(known)}.")
    return same[0]._replace(element=4 if dtype == "float32" else 2)


# ---- what results take -----------------------------------------------------------------------


class Reading(NamedTuple):
    """What a model reads, in tokens."""

    tokens: float
    scored: float  # of which lm_head runs
    prefix: float = 0  # of shared prefixes before a batch, for each token of it


def lengths(max_tokens: int, packed: bool = False) -> list[int]:
    """Return the tokens of C4 documents, truncated, or joined and cut into full sequences."""
    return [max_tokens if packed else min(length, max_tokens) for length in TOKENS["c4"]]


def reading(params: dict) -> Reading:
    """Return what is read of texts or of a task, as the parameters of a result's key say."""
    if "sequences" in params:
        tokens = params["sequences"] * fmean(lengths(params["max_tokens"]))
        return Reading(tokens, tokens)
    name = max((task for task in TOKENS if params["task"].startswith(task)), key=len)
    counts, subjects = TOKENS[name][str(params["shots"])], params.get("subjects", 1)
    questions = subjects * min(params["questions"], counts["questions"])
    tokens = questions * counts["own"] + subjects * counts["prefix"]
    return Reading(tokens, questions * counts["scored"], counts["repeated"])


@cache
def counted(name: str):
    """Return what a model takes for a token (`counting.Counted`); None where it cannot be counted.

    That is so without a configuration, and where a decoder does not run without numbers.
    """
    from lib import counting
    from lib.models import files

    try:
        config = files.configuration(name)
        return config and counting.counted(config)
    except Exception:  # whatever keeps it from running
        return None


class Loaded(NamedTuple):
    """A model that a run has loaded on a card."""

    counts: object  # `counting.Counted`
    quantization: str | None
    card: Card

    @property
    def packed(self) -> bool:
        """Whether NF4 stays packed: on a GPU of which the whole model would take much."""
        whole = self.counts.parameters.size() * self.card.element
        memory = machine.nominal(self.card.memory * 1e9)
        return bool(self.quantization) and whole > machine.UNPACKED * memory

    def weights(self, layers: int) -> float:
        """Return the bytes of the model with `layers` layers."""
        matrix = machine.NF4_BYTES if self.packed else self.card.element
        return self.counts.parameters.size(layers, matrix, self.card.element)

    def read(self, layers: float) -> float:
        """Return the bytes of weights that a batch reads in so many layers; of NF4 it unpacks."""
        unpacking = machine.NF4_BYTES + self.card.element if self.packed else 0
        return self.counts.parameters.size(layers, self.card.element + unpacking, other=0)

    def passes(
        self, kind: str, tokens: float, layers: tuple[float, float], heads: float, batch: float
    ) -> Work:
        """Return the work of applying layers to tokens: so many forward, and so many back.

        heads: applications of lm_head. batch: tokens at a time.
        """
        of, (ahead, back) = self.counts, layers
        flops, moved = tokens * (ahead * of.forward + back * (of.training - of.forward))
        batches = max(1, tokens / batch)
        weights = batches * self.read(ahead + back)
        return Work(kind, tokens, flops + heads * of.head, moved, weights, memory=0)

    def forward(self, kind: str, read: Reading, runs: Sequence[int], batch: float) -> Work:
        """Return the work of versions that run so many layers each, in batches of `batch` tokens.

        A batch's states at all cuts are held, and the keys and values of what comes before it.
        """
        of, layers = self.counts, len(self.counts.parameters.layers)
        row = batch * layers * (of.state + read.prefix * of.cached) * self.card.element
        work = self.passes(kind, read.tokens, (sum(runs), 0), read.scored * len(runs), batch)
        return work._replace(memory=self.weights(layers) + row)

    def healing(
        self, layers: int, recipe: Recipe, made: int = 0, micro: tuple[int, bool] | None = None
    ) -> Work:
        """Return the work of healing the `layers` layers that are left, after `made` steps.

        micro: sequences at a time, and whether all activations are recomputed; by default the first
        way that fits with its longest row, four standard deviations above the mean, or the last.
        memory: of one sequence, recomputed.
        """
        of, back, element = self.counts, layers - recipe.first_layer, self.card.element
        fixed = self.weights(layers) + ADAPTER * recipe.rank * back * of.adapter
        free = self.card.memory * 1e9 - fixed
        room = Room(free, of.loss, of.kept * element / 2, of.state * element, back)
        sequences = lengths(recipe.max_tokens, recipe.packed)
        mean, spread = fmean(sequences), pstdev(sequences)
        ways = [micro] if micro else memory_fallbacks(recipe.batch, room, sequences)
        for count, recomputes in ways:
            share = 1 if recomputes else room.share(sequences, count)
            longest = count * mean + 4 * sqrt(count) * spread
            if longest * room.least <= PLANNED * free:
                break
        tokens, ahead = (recipe.steps - made) * recipe.batch * mean, layers + back * share
        work = self.passes("healing", tokens, (ahead, back), 2 * tokens, count * mean)
        return work._replace(memory=fixed + recipe.max_tokens * room.least)

    def work(self, request: Request, shared: bool, made: int) -> Work:
        """Return the work of a result, where a shorter healing has made `made` steps.

        shared: another result reads the same, so that only the layers after the cut are run.
        """
        params, block, layers = request.params, request.block, len(self.counts.parameters.layers)
        if request.kind == "healing":
            return self.healing(layers - block.size, request.recipe, made)
        runs = [layers - block.stop] * bool(block.size) + [layers] * (not shared)
        if request.kind == "damage":  # the whole model, and without each block
            runs += [stop for size in range(1, layers) for stop in range(layers - size + 1)]
        if request.recipe or request.writes:
            runs = [layers - block.size]
        batch = params.get("batch_tokens", params.get("max_tokens"))
        work = self.forward(request.kind, reading(params), runs, batch)
        if request.writes:  # a token of all texts that are written together reads the weights
            together = 1 if self.card.name == "cpu" else WRITTEN_TOGETHER
            passes = params["questions"] * params["new_tokens"] / together
            work = work._replace(weights=work.weights + passes * self.read(*runs))
        return work


def works(model: Loaded, requests: Iterable[Request]) -> list[Work]:
    """Return the work of a job's results, in order."""
    keys, texts, works = set(), set(), []
    for request in requests:
        shorter = [each.recipe for each in request.shorter if key_of(each) in keys]
        made = shorter[0].steps - shorter[0].decay_steps if shorter else 0
        text = key_of(request, *BLOCK, "map")
        works.append(model.work(request, text in texts, made))
        keys.add(key_of(request))
        texts.add(text)
    return works


# ---- what is there ---------------------------------------------------------------------------


class Guess(NamedTuple):
    """Stands for a map that is not there: each block ends before the last eighth of the layers."""

    num_layers: int

    def best_start(self, size: int) -> int:
        """Return the guessed l*(n), n = size."""
        return max(0, self.num_layers - max(2, self.num_layers // 8) - size)


def key_of(request: Request, *ignored: str) -> str:
    """Return a result's key; without some parameters, the same for results that share the rest."""
    params = {name: value for name, value in request.params.items() if name not in ignored}
    return results.key(request.kind, params)


def stored_map(model: str, profile: Profile) -> list[dict] | None:
    """Return the rows of a model's map, measured on whatever machine; None without one."""
    revision, wanted = registry.resolve(model).revision, similarity(model, profile)
    for rows in results.stored("similarity"):
        params = results.params_of(rows)
        same = key_of(Request("similarity", params), *MACHINE) == key_of(wanted, *MACHINE)
        dtype_fits = profile.dtype in (None, params["dtype"])
        if same and dtype_fits and params["revision"] == revision:
            return rows
    return None


def jobs_of(model: str, profile: Profile, notebooks: Sequence[str]) -> dict[Job, list[Request]]:
    """Return a model's jobs and their results, keyed by the machine that has made its map.

    Without a map, blocks are guessed, and of a model whose depth is not known there is only the job
    of its map. A job that was listed then, and that the map shows to be the same as another, stays
    without results.
    """
    layers = registry.num_layers(model)
    guessed = by_job(model, profile, notebooks, Guess(layers or 1))
    guessed = {job: requests for job, requests in guessed.items() if layers or job.is_map}
    rows = stored_map(model, profile)
    if rows is None:
        return guessed
    params = results.params_of(rows)
    made_on = {name: params[name] for name in MACHINE}
    jobs = dict.fromkeys(guessed, ())
    jobs |= by_job(model, profile, notebooks, tables.distances_of(rows))
    return {
        job: [replace(request, params=request.params | made_on) for request in requests]
        for job, requests in jobs.items()
    }


def is_done(request: Request) -> bool:
    """Return whether a result is there, or not to be had: its healing failed, or the whole model
    cannot answer the task."""
    if results.exists(request.kind, request.params) or signals.is_futile(request):
        return True
    healing = results.load("healing", request.healing.params) if request.recipe else None
    return bool(healing) and healing[0]["status"] != "ok"


# ---- the plan --------------------------------------------------------------------------------


class Planned(NamedTuple):
    """A job, how many of its results are done, and those that are not."""

    job: Job
    done: int
    missing: list[Request]
    works: list[Work]  # of a model that can be counted

    def hours(self, card: Card) -> float:
        return sum(map(card.seconds, self.works)) / 3600


def planned(profile: Profile, notebooks: Sequence[str], card: Card) -> list[Planned]:
    """Return the jobs of `notebooks`, in order."""
    plan = []
    for model in profile.models:
        for job, requests in jobs_of(model, profile, notebooks).items():
            missing = [request for request in requests if not is_done(request)]
            work = []
            if missing and counted(model):
                work = works(Loaded(counted(model), profile.quantization, card), missing)
            plan.append(Planned(job, len(requests) - len(missing), missing, work))
    return plan


def table(
    profile: Profile, notebooks: list[str], card_name: str | None = None, count: int = 1
) -> str:
    """Return the plan of a run on `count` cards as text. Raises ValueError for a bad card."""
    card = get_card(card_name, profile.dtype)
    plan = planned(profile, notebooks, card)
    jobs = pd.DataFrame([_row(one, card) for one in plan])
    sums = dict.fromkeys(jobs.columns[2:], "sum") | {"longest": "max", "GB": "max"}
    rows = jobs.groupby(["model", "nb"], sort=False, as_index=False).agg(sums)
    hours = rows.hours.sum()
    uncounted = {one.job.model for one in plan if one.missing and not one.works}
    lines = [
        f"{profile.name} on {card.name}: {card.memory:g} GB, {card.products:g} TFLOP/s; weights "
        f"in {profile.quantization or profile.dtype or '16 bits'}.",
        f"Rates {card.source}.",
        "",
        rows.to_string(index=False, float_format="{:,.2f}".format),
        "",
        "longest: hours of a job. GB: weights and one row. fit: jobs whose GB the card has.",
        f"Not counted: {', '.join(sorted(uncounted)) or 'nothing'}.",
        f"Results: {rows.done.sum()} done, {rows.missing.sum()} missing.",
        f"The rest: {hours:,.1f} hours; on {count} such cards at least "
        f"{max(rows.longest.max(), hours / count):,.1f}.",
    ]
    return "\n".join(lines)


def _row(one: Planned, card: Card) -> dict:
    """Return a job's row in the table."""
    memory = max((work.memory for work in one.works), default=0) / 1e9
    return {
        "model": registry.label(one.job.model),
        "nb": one.job.notebook,
        "jobs": 1,
        "done": one.done,
        "missing": len(one.missing),
        "hours": one.hours(card),
        "longest": one.hours(card),
        "GB": memory,
        "fit": memory <= card.memory,
    }
