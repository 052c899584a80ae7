"""What a run will take, before it runs: `python -m replication --plan --card a100-80`.

Work is layers × tokens × FLOPs of a layer, and those of lm_head; a matrix of P parameters takes 2P
FLOPs a token. `cards` turns work into hours. Memory is that of the weights and one row: a healing
finds its own micro-batch, the first that fits. Loads no model, writes nothing, imports no torch.
"""

from typing import NamedTuple

from lib.healing import Recipe
from lib.healing.recipe import memory_fallbacks
from lib.models import registry
from lib.models.shapes import NF4_BYTES, Shape
from replication import paths, results
from replication.cards import Card, Work, get_card
from replication.measure.request import BLOCK, Request, grouped
from replication.profiles import Profile
from replication.run.jobs import jobs
from replication.run.missing import key_of, maps_of, missing
from replication.token_counts import Reading, longest_row, read_task, read_texts

LOGIT = 12  # bytes in training: in fp32 the logit's log-softmax and two gradients
ADAPTER = 16  # bytes of an adapter's number: itself, its gradient, AdamW's two moments, in fp32
# Element-wise work of a layer, forward and back: how often each of the numbers that it works with
# (`Loaded.numbers`) is read or written. Counted op by op for Llama-2-7B: 2.75 MB a token.
TOUCHED = 10.5
FORWARD = 0.4  # the forward pass's share of it
HEADER = ("model", "nb", "jobs", "missing", "PFLOP", "hours", "longest", "GB", "fits")
LINE = "{:14} {:2} {:>4} {:>7} {:>9} {:>6} {:>7} {:>5}  {}"


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

    @property
    def numbers(self) -> int:
        """Numbers a token that a layer works with between its matrices, at 2 bytes half of them."""
        shape = self.shape
        ffn = shape.active_experts * shape.ffn
        return 8 * shape.hidden + 6 * ffn + 4 * (shape.query + shape.key)

    def moved(self, forward: float, back: float = 0) -> float:
        """Bytes a token of element-wise work in so many layers, forward and back."""
        passes = FORWARD * forward + (1 - FORWARD) * back
        return TOUCHED * self.card.element * self.numbers * passes

    def unpacked(self, layers: float) -> float:
        """Bytes read and written when the NF4 matrices of so many layers are unpacked once."""
        if self.quantization is None or not self.card.gpu:
            return 0
        return layers * self.shape.packable * (NF4_BYTES + self.card.element)

    def passes(self, kind: str, read: Reading, flops: float, memory: float, runs, batch) -> Work:
        """Forward passes of `runs` layers in batches of `batch` tokens."""
        moved = read.tokens * self.moved(runs)
        unpacked = max(1, read.tokens / batch) * self.unpacked(runs)
        return Work(kind, read.tokens, flops, memory, batch, moved, unpacked)

    def texts(
        self, kind: str, runs: int, sequences: int, longest: int, batch: int, products: int = 0
    ) -> Work:
        """A pass of C4 texts through `runs` layers; products: with a (D, D), a token."""
        read, layers = read_texts(sequences, longest), self.shape.num_layers
        held = 6 * layers if kind == "states" else layers  # in fp32, three times over
        flops = runs * self.layer_flops(read.context) + products * 2 * self.shape.hidden**2
        memory = self.weights(layers) + self.row(longest, held)
        return self.passes(kind, read, read.tokens * flops, memory, runs, batch)

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
        return self.passes("scores", read, flops, memory, sum(runs), batch)

    def micro_batch(self, layers: int, recipe: Recipe) -> tuple[int, bool]:
        """Sequences at a time, and whether a healing recomputes: the first that fits, or the last.

        Kept of a token: what each layer works with, its adapters' inputs (with dropout's mask), and
        the logits; recomputed, the state before each layer, and the rest of one.
        """
        shape, back, element = self.shape, layers - recipe.first_layer, self.card.element
        inputs = sum(inputs for inputs, _ in shape.ffn_matrices)
        of_layer = self.numbers * element / 2 + inputs * (element + 1)
        held = {False: back * of_layer, True: back * shape.hidden * element + of_layer}
        room = self.card.memory - self.weights(layers) - ADAPTER * shape.lora(recipe.rank, back)
        for sequences, recomputes in memory_fallbacks(recipe.batch):
            of_token = held[recomputes] + LOGIT * shape.vocab_size
            if longest_row(sequences, recipe.max_tokens, recipe.packed) * of_token <= room:
                break
        return sequences, recomputes

    def healing(
        self, layers: int, recipe: Recipe, made: int = 0, micro: tuple[int, bool] | None = None
    ) -> Work:
        """A healing of the `layers` layers that are left, after `made` steps; its row recomputes.

        Back through the frozen base costs as forward, attention twice, down to the first adapter.
        micro: of `micro_batch`, if it is known.
        """
        shape, back, longest = self.shape, layers - recipe.first_layer, recipe.max_tokens
        sequences, recomputes = micro or self.micro_batch(layers, recipe)
        forward = layers + back * recomputes
        read = read_texts((recipe.steps - made) * recipe.batch, longest, recipe.packed)
        row = sequences * read_texts(1, longest, recipe.packed).tokens
        adapters = shape.lora(recipe.rank, back)
        flops = forward * self.layer_flops(read.context)
        flops += back * self.layer_flops(read.context, attention=2)
        flops += 2 * 2 * shape.hidden * shape.vocab_size + 6 * adapters
        memory = self.weights(layers) + self.row(longest, back)
        memory += longest * LOGIT * shape.vocab_size + ADAPTER * adapters
        moved = read.tokens * self.moved(forward, back)
        unpacked = read.tokens / row * self.unpacked(forward + back)
        return Work("healing", read.tokens, read.tokens * flops, memory, row, moved, unpacked)

    def work(self, request: Request, shared: bool, made: int) -> Work:
        """What a result takes, where a shorter healing has made `made` steps.

        shared: another result reads the same, so that only the layers after the cut are run.
        """
        params, block, layers = request.params, request.block, self.shape.num_layers
        if request.kind == "healing":
            return self.healing(layers - block.size, request.recipe, made)
        if request.kind == "maps":  # of the state, and of what FFNs add: two products each
            texts = params["map_sequences"], params["map_tokens"], params["map_batch_tokens"]
            return self.texts("maps", block.stop, *texts, products=4)
        if request.kind in ("similarity", "states"):  # of states, one text at a time
            longest = params["max_tokens"]
            batch = params.get("batch_tokens", longest)
            return self.texts(request.kind, layers, params["sequences"], longest, batch)
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
        f"Not counted: {', '.join([*drawn, 'what models write (GSM8K)'])}.",
        *([f"Not planned: {unknown}. No config.json tells the sizes."] if unknown else []),
        f"{len(lacks)} jobs, {lacks.count([])} done. The rest: {_number(hours)} hours, "
        f"{_number(flops / 1e15)} PFLOP.",
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    digits = 0 if value >= 100 else 1 if value >= 1 else 2
    return "<0.01" if 0 < value < 0.01 else f"{value:,.{digits}f}"
