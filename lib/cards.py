"""What work takes on a card, before it is done.

Work is layer applications × tokens × the FLOPs that `counting` counts of a layer, and bytes of
weights that each batch reads (and unpacks from NF4). Its time is the sum of both, each at a rate of
the card; a job also loads its model. Left out are the tokenizer, downloads, what a CPU fits to
states (linear maps, probes), and rows of other lengths than the mean.
Loads no weights, writes nothing, and imports torch only where it counts.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pandas as pd

from .gpu import nf4
from .healing import Recipe
from .models import machine

CARDS = Path(__file__).with_name("cards.csv")
# of the data sets of the record, by SmolLM2's tokenizer: a plan needs neither it nor the data
TOKENS = json.loads(Path(__file__).with_name("token_counts.json").read_text(encoding="utf-8"))
ENDLESS = 1e15  # bytes, of a CPU: there no layer is recomputed
LOADING = 1e9  # bytes a second of weights in 16 bits: a disk, and packing on one core (assumed)
BYTES = 2  # of a number that is not quantised; of float32 a plan counts half


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

    @property
    def size(self) -> str:
        """The memory in words."""
        return f"{self.memory:g} GB" if np.isfinite(self.memory) else "the machine's memory"

    def seconds(self, work: Work) -> float:
        """Return the time of `work`."""
        parts = (
            work.flops / self.products,
            work.moved / self.others,
            work.weights / self.weights,
        )
        share = self.training if work.kind == "healing" else self.forward
        return sum(parts) / 1e12 / share


def known_cards() -> dict[str, Card]:
    """Return the rows of cards.csv by name."""
    return {row.name: Card(*row) for row in pd.read_csv(CARDS).itertuples(index=False)}


def get_card(name: str | None = None) -> Card:
    """Return the card `name`, by default the one at hand. Raises ValueError if it has no row."""
    known, name = known_cards(), name or machine.gpu_at_hand() or "cpu"
    same = [card for card in known.values() if name == card.name or re.search(card.gpu, name)]
    if not same:
        raise ValueError(f"Unknown card {name!r}: choose one of {', '.join(known)}.")
    return same[0]


# ---- what is read ----------------------------------------------------------------------------


class Reading(NamedTuple):
    """What a model reads, in tokens."""

    tokens: float
    scored: float  # of which lm_head runs
    prefix: float = 0  # of shared prefixes before a batch, for each token of it


class Counts(NamedTuple):
    """The tokens of a task's questions; `about` in token_counts.json says of each what it is."""

    questions: float
    prefix: float
    own: float
    scored: float
    repeated: float


def texts_read(sequences: int, max_tokens: int) -> Reading:
    """Return what is read of so many texts."""
    tokens = sequences * fmean(lengths(max_tokens))
    return Reading(tokens, tokens)


def questions_read(counts: Counts, questions: int, subjects: int = 1) -> Reading:
    """Return what is read of so many questions of a task, or of each of its subjects."""
    asked = subjects * min(questions, counts.questions)
    tokens = asked * counts.own + subjects * counts.prefix
    return Reading(tokens, asked * counts.scored, counts.repeated)


def lengths(max_tokens: int, packed: bool = False) -> list[int]:
    """Return the tokens of C4 documents, truncated, or joined and cut into full sequences."""
    return [max_tokens if packed else min(length, max_tokens) for length in TOKENS["c4"]]


def stored_counts(task: str, shots: int) -> Counts | None:
    """Return the tokens of a task, or of the task it is a version of, where the file has them."""
    alike = [name for name in TOKENS if f"{task}_".startswith(f"{name}_")]
    stored = TOKENS[max(alike, key=len)] if alike else {}
    return Counts(**stored[str(shots)]) if str(shots) in stored else None


# ---- a model on a card -----------------------------------------------------------------------


class ModelOnCard(NamedTuple):
    """A model that is loaded on a card."""

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
        from .gpu import memory
        from .healing.packing import micro_batches

        costs = self.costs
        taught = len(costs.parameters.layers) if recipe.teacher else 0  # layers of the teacher
        whole = min(self.card.memory * 1e9, ENDLESS)
        free = whole - self.weights(max(num_layers, taught))
        budget = memory.activation_budget(
            costs, free, recipe.rank, num_layers, models=1 + recipe.teacher
        )
        most = min(at_once or memory.MICRO_BATCH, memory.MICRO_BATCH)
        micro_batch = micro_batches(recipe.batch, most)[0]
        row = micro_batch * fmean(lengths(recipe.max_tokens, recipe.packed))
        num_rows = recipe.steps * recipe.batch / micro_batch
        # FLOPs of adapters beyond those of rank 1, which are counted, and the bytes of their thin
        # products: forward, back to the input and back to the adapters
        thin = np.array([6 * (recipe.rank - 1), 3 * BYTES]) * costs.adapter
        # forward through all layers, those of the teacher, again through some, and back through all
        forward = num_layers + taught + budget.num_recomputed(row)
        flops, moved = (
            num_rows
            * row
            * (forward * costs.forward + num_layers * (costs.training - costs.forward + thin))
        )
        flops += (2 + recipe.teacher) * num_rows * row * costs.head
        read = num_rows * self.weights_read(forward + num_layers)
        kept = budget.outside + num_layers * budget.layer if whole == ENDLESS else budget.least
        held = whole - budget.memory + recipe.max_tokens * kept
        return Work("healing", flops, moved, read, held)
