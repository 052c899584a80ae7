"""What results take: FLOPs, bytes moved and unpacked, and memory, of a model on a card.

Work is layers × tokens × FLOPs of a layer, and those of lm_head; a matrix of P parameters takes 2P
FLOPs a token. `cards` turns it into hours. Imports no torch.
"""

from typing import NamedTuple

from lib.data.encoding import WRITTEN_TOGETHER
from lib.healing import Recipe
from lib.healing.recipe import memory_fallbacks
from lib.models.shapes import NF4_BYTES, UNPACKED, Shape
from replication.cards import Card, Work
from replication.measure.request import Request
from replication.token_counts import Reading, longest_row, read_problems, read_task, read_texts

LOGIT = 12  # bytes in training: in fp32 the logit's log-softmax and two gradients
ADAPTER = 16  # bytes of an adapter's number: itself, its gradient, AdamW's two moments, in fp32
# Element-wise work of a layer, forward and back: how often each of the numbers that it works with
# (`Loaded.numbers`) is read or written. Counted op by op for Llama-2-7B: 2.75 MB a token.
TOUCHED = 10.5
FORWARD = 0.4  # the forward pass's share of it


class Loaded(NamedTuple):
    """A model as a run loads it on a card."""

    shape: Shape
    quantization: str | None
    card: Card

    @property
    def packed(self) -> bool:
        """Whether NF4 stays packed: on a GPU of which the whole model would take much."""
        whole = self.shape.parameters() * self.card.element
        large = bool(self.card.gpu) and whole > UNPACKED * self.card.memory
        return large and self.quantization is not None

    def weights(self, layers: int) -> float:
        """Bytes of the model with `layers` layers. In NF4 are the layers' matrices, not experts."""
        count = self.shape.parameters(layers)
        packed = layers * self.shape.packable if self.packed else 0
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
        if not self.packed:
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
        read = read_texts(sequences, longest)
        layers = self.shape.num_layers
        held = 6 * layers if kind == "states" else layers  # in fp32, three times over
        flops = runs * self.layer_flops(read.context)
        flops += products * 2 * self.shape.hidden**2
        memory = self.weights(layers) + self.row(longest, held)
        return self.passes(kind, read, read.tokens * flops, memory, runs, batch)

    def sweep(self, layers: int, runs: list[int], params: dict) -> Work:
        """Scores of a task by versions of a model of `layers` layers, that run `runs` of them.

        A "map" is a (D, D) in a block's place. Keys and values of a batch's prefixes are held.
        """
        shape = self.shape
        read = read_task(params)
        batch = params["batch_tokens"]
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
        shape = self.shape
        element = self.card.element
        back = layers - recipe.first_layer
        inputs = sum(inputs for inputs, _ in shape.ffn_matrices)
        of_layer = self.numbers * element / 2 + inputs * (element + 1)
        states = back * shape.hidden * element
        held = {False: back * of_layer, True: states + of_layer}
        adapters = ADAPTER * shape.lora(recipe.rank, back)
        room = self.card.memory - self.weights(layers) - adapters
        for sequences, recomputes in memory_fallbacks(recipe.batch):
            of_token = held[recomputes] + LOGIT * shape.vocab_size
            tokens = longest_row(sequences, recipe.max_tokens, recipe.packed)
            if tokens * of_token <= room:
                break
        return sequences, recomputes

    def healing(
        self, layers: int, recipe: Recipe, made: int = 0, micro: tuple[int, bool] | None = None
    ) -> Work:
        """A healing of the `layers` layers that are left, after `made` steps; its row recomputes.

        Back through the frozen base costs as forward, attention twice, down to the first adapter.
        micro: of `micro_batch`, if it is known.
        """
        shape = self.shape
        longest = recipe.max_tokens
        back = layers - recipe.first_layer
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

    def writing(self, layers: int, params: dict) -> Work:
        """What models of `layers` layers write to GSM8K's problems: each as long as it may be.

        A token of all texts of a batch takes one pass, which reads (and unpacks) all weights, and
        the keys and values of the tokens before it. Rows are short: products wait for the weights.
        """
        shape = self.shape
        problems, prompt = read_problems(params)
        longest = prompt + params["new_tokens"]
        tokens = problems * longest
        cached = longest * layers * 2 * shape.key * self.card.element  # bytes of a text
        together = max(1, params["batch_tokens"] // longest)
        if self.card.gpu:
            room = self.card.memory - self.weights(layers)
            fitting = int(room / (2 * cached))
            together = max(together, min(WRITTEN_TOGETHER, fitting))
        together = min(together, problems)
        batches = problems / together
        new_tokens = problems * params["new_tokens"]
        mean = (prompt + longest) / 2
        head = 2 * shape.hidden * shape.vocab_size
        read = problems * prompt * layers * self.layer_flops(prompt / 2)
        written = new_tokens * (layers * self.layer_flops(mean) + head)
        flops = read + written
        waiting = read / (together * prompt) + written / together  # FLOPs over tokens of a row
        moved = tokens * self.moved(layers)
        moved += new_tokens * cached * mean / longest
        unpacked = batches * (1 + params["new_tokens"]) * self.unpacked(layers)
        memory = self.weights(layers) + together * cached
        return Work("scores", tokens, flops, memory, flops / waiting, moved, unpacked)

    def work(self, request: Request, shared: bool, made: int) -> Work:
        """What a result takes, where a shorter healing has made `made` steps.

        shared: another result reads the same, so that only the layers after the cut are run.
        """
        params, block = request.params, request.block
        layers = self.shape.num_layers
        left = layers - block.size
        if request.kind == "healing":
            return self.healing(left, request.recipe, made)
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
        if params["task"] == "gsm8k":
            return self.writing(left, params)
        if request.recipe:
            return self.sweep(left, [left], params)
        runs = [] if shared else [layers]
        if block.size:
            runs.append(layers - block.stop)
        return self.sweep(layers, runs, params)
