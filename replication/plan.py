"""What a run will take, before it runs: `python -m replication --plan --card a100-80`.

Work is layers × tokens × FLOPs of a layer, and those of lm_head; a matrix of P parameters takes 2P
FLOPs a token. Hours are work over a rate of cards.csv. Memory is that of the weights and one row: a
healing finds its own micro-batch. Loads no model, writes nothing, imports no torch.
"""

import json
import os
import shutil
import subprocess
from functools import cache
from statistics import fmean
from typing import NamedTuple

from lib import storage
from lib.healing import Recipe
from lib.models import machine, registry
from lib.models.shapes import NF4_BYTES, Shape
from replication import paths, results
from replication.measure.request import BLOCK, Request, grouped
from replication.profiles import Profile
from replication.run.jobs import jobs
from replication.run.missing import key_of, maps_of, missing

CARDS = paths.ROOT / "replication" / "cards.csv"
TOKENS = json.loads((paths.DATA / "token_counts.json").read_text(encoding="utf-8"))
LOGIT = 12  # bytes in training: in fp32 the logit's log-softmax and two gradients
ADAPTER = 16  # bytes of an adapter's number: itself, its gradient, AdamW's two moments, in fp32
HEADER = ("model", "nb", "jobs", "missing", "PFLOP", "hours", "longest", "GB", "fits")
LINE = "{:14} {:2} {:>4} {:>7} {:>9} {:>6} {:>7} {:>5}  {}"


class Card(NamedTuple):
    """A processor: memory that a program can use (bytes), rates (FLOP/s), and their source."""

    name: str
    gpu: str  # stands in what nvidia-smi calls it; empty: a CPU
    memory: float
    forward: float
    training: float
    source: str
    element: int = 2  # bytes of a weight that is not quantised


def cards() -> dict[str, Card]:
    """The rows of cards.csv by name. The CPU has this machine's memory."""
    known, here = {}, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for row in storage.rows(CARDS):
        memory = float(row["memory_gb"]) * 1e9 if row["memory_gb"] else here
        rates = float(row["forward_tflops"]) * 1e12, float(row["training_tflops"]) * 1e12
        known[row["card"]] = Card(row["card"], row["gpu"], memory, *rates, row["source"])
    return known


def get_card(name: str | None = None, dtype: str | None = None) -> Card:
    """The card `name`, by default the one at hand. Raises ValueError if cards.csv has none."""
    known = cards()
    name = name or _at_hand(known)
    if name not in known:
        raise ValueError(f"Unknown card {name!r}: choose one of {', '.join(known)}.")
    if dtype is None and not known[name].gpu:
        dtype = (machine.remembered() or {}).get("dtype")  # a plan measures nothing
    return known[name]._replace(element=4 if dtype == "float32" else 2)


def _at_hand(known: dict[str, Card]) -> str:
    """The card that nvidia-smi lists first, or its own name if there is no such row; or cpu."""
    if not shutil.which("nvidia-smi"):
        return "cpu"
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True)
    gpu, _, mib = answer.stdout.partition("\n")[0].rpartition(", ")
    if answer.returncode or not gpu:  # no devices, or no driver
        return "cpu"
    same = [card for card in known.values() if card.gpu and card.gpu in gpu]
    if not same or not mib.isdecimal():
        return gpu
    return min(same, key=lambda card: abs(card.memory - int(mib) * 2**20)).name


class Reading(NamedTuple):
    """What a model reads, in tokens."""

    tokens: float
    context: float  # mean number of tokens that a token attends to
    scored: float  # positions that lm_head runs on
    prefix: float = 0  # tokens of shared prefixes before a batch, per token of it


@cache
def read_texts(sequences: int, max_tokens: int, packed: bool = False) -> Reading:
    """C4 texts, truncated to `max_tokens`, or joined and cut into full sequences."""
    lengths = [max_tokens if packed else min(length, max_tokens) for length in TOKENS["c4"]]
    context = sum(length**2 for length in lengths) / sum(lengths) / 2
    tokens = sequences * fmean(lengths)
    return Reading(tokens, context, tokens - sequences)


def read_task(params: dict) -> Reading:
    """A task, as the parameters of a score's key describe it."""
    if params["task"] == "c4":
        return read_texts(params["sequences"], params["max_tokens"])
    counts = TOKENS[params["task"]][str(params["shots"])]
    groups, most, own = counts["groups"], counts["questions"], counts["own"]
    prefix = counts["prefix"] / groups if groups else 0
    questions = min(params["questions"], most)
    if "subjects" in params:  # each a group with its own examples
        questions = params["subjects"] * min(params["questions"], most / groups)
        groups = params["subjects"]
    elif groups == most:  # the answers to a question share it
        groups = questions
    tokens, scored = groups * prefix + questions * own, questions * counts["scored"]
    return Reading(tokens, prefix + own / 2, scored, counts["repeated"])


class Work(NamedTuple):
    """What a result takes: tokens read, FLOPs, and bytes (the weights, and one row)."""

    kind: str
    tokens: float
    flops: float
    memory: float

    def hours(self, card: Card) -> float:
        return self.flops / (card.training if self.kind == "healing" else card.forward) / 3600


class Loaded(NamedTuple):
    """A model as a run loads it on a card."""

    shape: Shape
    quantization: str | None
    card: Card

    def weights(self, layers: int) -> float:
        """Bytes of the model with `layers` layers. In NF4 are the layers' matrices, not experts."""
        count, packed = self.shape.parameters(layers), layers * self.shape.packable
        if self.quantization is None or not self.card.gpu:  # a CPU unpacks NF4 as it loads
            packed = 0
        return packed * NF4_BYTES + (count - packed) * self.card.element

    def row(self, tokens: int, layers: int) -> float:
        """Bytes of a row: its state before each layer, and what one layer works with."""
        ffn = self.shape.active_experts * self.shape.ffn
        return tokens * self.card.element * ((layers + 3) * self.shape.hidden + 3 * ffn)

    def layer_flops(self, context: float, attention: int = 1) -> float:
        """FLOPs of a layer, a token. attention: how often queries meet keys, and values."""
        return 2 * self.shape.active + attention * 4 * self.shape.query * context

    def texts(self, kind: str, runs: int, sequences: int, longest: int, products: int = 0) -> Work:
        """A pass of C4 texts through `runs` layers; products: with a (D, D), a token."""
        read, layers = read_texts(sequences, longest), self.shape.num_layers
        held = 6 * layers if kind == "states" else layers  # in fp32, three times over
        flops = runs * self.layer_flops(read.context) + products * 2 * self.shape.hidden**2
        memory = self.weights(layers) + self.row(longest, held)
        return Work(kind, read.tokens, read.tokens * flops, memory)

    def sweep(self, layers: int, runs: list[int], params: dict) -> Work:
        """Scores of a task by versions of a model of `layers` layers, that run `runs` of them.

        A "map" is a (D, D) in a block's place. Keys and values of a batch's prefixes are held.
        """
        read, shape, batch = read_task(params), self.shape, params["batch_tokens"]
        maps = 2 * shape.hidden**2 if "map" in params else 0
        flops = read.tokens * (sum(runs) * self.layer_flops(read.context) + maps)
        flops += read.scored * len(runs) * 2 * shape.hidden * shape.vocab_size
        cached = batch * read.prefix * layers * 2 * shape.key * self.card.element
        cuts = 0 if "recipe" in params else layers  # whose states are held, at most
        memory = self.weights(layers) + self.row(batch, cuts) + cached
        return Work("scores", read.tokens, flops, memory)

    def healing(self, layers: int, recipe: Recipe, made: int = 0) -> Work:
        """A healing of the `layers` layers that are left, after `made` steps; its row recomputes.

        Back through the frozen base costs as forward, attention twice, down to the first adapter.
        """
        shape, back, longest = self.shape, layers - recipe.first_layer, recipe.max_tokens
        read = read_texts((recipe.steps - made) * recipe.batch, longest, recipe.packed)
        adapters = shape.lora(recipe.rank, back)
        flops = layers * self.layer_flops(read.context)
        flops += back * self.layer_flops(read.context, attention=2)
        flops += 2 * 2 * shape.hidden * shape.vocab_size + 6 * adapters
        memory = self.weights(layers) + self.row(longest, back)
        memory += longest * LOGIT * shape.vocab_size + ADAPTER * adapters
        return Work("healing", read.tokens, read.tokens * flops, memory)

    def work(self, request: Request, shared: bool, made: int) -> Work:
        """What a result takes, where a shorter healing has made `made` steps.

        shared: another result reads the same, so that only the layers after the cut are run.
        """
        params, block, layers = request.params, request.block, self.shape.num_layers
        if request.kind == "healing":
            return self.healing(layers - block.size, request.recipe, made)
        if request.kind == "maps":  # of the state, and of what FFNs add: two products each
            texts = params["map_sequences"], params["map_tokens"]
            return self.texts("maps", block.stop, *texts, products=4)
        if request.kind in ("similarity", "states"):
            return self.texts(request.kind, layers, params["sequences"], params["max_tokens"])
        if request.kind == "damage":  # the whole model, and without each block
            after = [stop for size in range(1, layers) for stop in range(layers - size + 1)]
            return self.sweep(layers, [layers, *after], {"task": "c4"} | params)
        if request.recipe:
            return self.sweep(layers - block.size, [layers - block.size], params)
        runs = ([] if shared else [layers]) + ([layers - block.stop] if block.size else [])
        return self.sweep(layers, runs, params)


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
        hours = [sum(work.hours(card) for work in job) for job in self.works]
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
        for notebook, same in grouped(of_model, lambda job: job.notebook).items():
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
    chosen = "float32" if card.element == 4 else "bfloat16"
    hours, flops = sum(work.hours(card) for work in every), sum(work.flops for work in every)
    lines = [
        f"{profile.name} on {card.name}: {card.memory / 1e9:.1f} GB, {card.forward / 1e12:.3g} "
        f"TFLOP/s (healing {card.training / 1e12:.3g}); {card.source}.",
        f"Weights in {profile.quantization or profile.dtype or chosen}. GB: weights and one row. A "
        "healing that has to recompute takes up to a half longer.",
        "",
        LINE.format(*HEADER),
        *(row.line(card) for row in plan),
        "",
        f"Not counted: {', '.join([*drawn, 'what models write (GSM8K)'])}.",
        *([f"Not planned: {unknown}. No config.json tells the sizes."] if unknown else []),
        f"{len(lacks)} jobs, {lacks.count([])} done. The rest: {_number(hours)} hours, "
        f"{_number(flops / 1e15)} PFLOP.",
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    digits = 0 if value >= 100 else 1 if value >= 1 else 2
    return "<0.01" if 0 < value < 0.01 else f"{value:,.{digits}f}"
