"""What one measurement takes, by formulas that follow the code: FLOPs, bytes read, memory.

A multiplication with a matrix of P parameters is 2P FLOPs a token. Memory is that at the peak: of
the largest batch, with every sequence as long as it may be. Imports neither torch nor transformers.
"""

from dataclasses import dataclass, replace
from math import ceil

from lib.blocks import CHUNK, HEAD_POSITIONS
from lib.healing import Recipe
from lib.models.shapes import NF4_BYTES, Shape
from replication.plan import assumptions
from replication.plan.assumptions import DISK, Card

STORED = 2  # bytes of a weight on disk
COMPARED = 256  # tokens whose states are compared at once, on the CPU
LOGITS = 12  # bytes of a logit in training: in fp32 its log-softmax and two gradients

# Bytes that a layer keeps for the backward pass in bf16, per token and per number of (D, FFN,
# queries + keys), next to the inputs of its adapters: counted with autograd's hooks.
_KEPT = {
    "phi": (2, 8, 4),
    "gpt_neox": (2, 2, 4),
    "gemma3_text": (16, 6, 8),
    "qwen3": (8, 6, 8),
    "olmo2": (8, 6, 8),
}


@dataclass(frozen=True)
class Cost:
    """What one measurement takes; memory in bytes, at its peak."""

    tokens: float  # read
    applications: float  # of one layer to one token
    flops: float
    weights: float
    activations: float  # and whatever else is held of a batch
    optimizer: float = 0  # adapters, their gradients and AdamW's moments
    read: float = 0  # bytes from disk
    written: float = 0  # bytes on disk
    micro_batch: int = 0  # of a healing
    recomputes: bool = False  # activations in its backward pass
    how: str = "whole"  # it is run

    @property
    def memory(self) -> float:
        return self.weights + self.activations + self.optimizer

    def seconds(self, card: Card) -> float:
        """Time to read from disk, and then to compute."""
        rate = card.training_rate if self.micro_batch else card.rate
        return self.flops / rate + self.read / DISK


# ---- parts ---------------------------------------------------------------------------------


def weights(shape: Shape, layers: int, quantization: str | None, card: Card) -> float:
    """Bytes of the weights in memory. Quantised are the layers' matrices, except experts."""
    count = shape.parameters(layers)
    if quantization is None or card.on_cpu:  # on a CPU NF4 values are unpacked
        return count * card.element
    linear = layers * shape.packable
    return linear * NF4_BYTES + (count - linear) * card.element


def _layers(shape: Shape, applications: float, context: float, matrices=1, attention=1) -> float:
    """FLOPs of `applications` of a layer to a token, whose two parts are computed so often."""
    return applications * (matrices * 2 * shape.active + attention * 4 * shape.query * context)


def _head(shape: Shape, positions: float) -> float:
    return positions * 2 * shape.hidden * shape.vocab_size


def _working(shape: Shape, tokens: float, card: Card) -> float:
    """Bytes that one layer works with in a pass of `tokens` tokens: states, a matrix unpacked."""
    states = tokens * card.element * (3 * shape.hidden + 3 * shape.active_experts * shape.ffn)
    return states + (0 if card.on_cpu else shape.expert / 3 * card.element)


def kept(shape: Shape, rank: int, card: Card) -> float:
    """Bytes a token that one layer keeps for the backward pass of its adapters.

    Each keeps its input after dropout in the format of the weights, and the mask of the dropout,
    which is of that format on a CPU and bool on a GPU.
    """
    d, ffn, heads = _KEPT.get(shape.architecture, (8, 6, 4))
    own = d * shape.hidden + ffn * shape.ffn + heads * (shape.query + shape.key)
    inputs = sum(inputs for inputs, _ in shape.ffn_matrices)
    mask = card.element if card.on_cpu else 1
    adapters = inputs * (card.element + mask) + card.element * rank * len(shape.ffn_matrices)
    return own * card.element / 2 + adapters


# ---- measurements --------------------------------------------------------------------------


def similarity(shape: Shape, asked: dict, quantization: str | None, card: Card) -> Cost:
    """All angular distances: one pass of every layer over C4, without lm_head.

    Layer by layer where the weights alone do not fit, as `distance_maps.of_model` does it.
    """
    longest = asked["max_tokens"]
    sequences = max(1, asked["batch_tokens"] // longest)
    last_tokens = sequences * (shape.num_layers + 1) * shape.hidden * card.element
    batch = sequences * longest
    whole = _pass(shape, shape.num_layers, asked, batch, last_tokens, quantization, card)
    if whole.weights <= card.memory:
        return whole
    return replace(
        whole,
        how="layer by layer",
        weights=weights(shape, 2, quantization, card),
        activations=whole.activations + CHUNK * batch * shape.hidden * card.element,
        read=whole.read * ceil(asked["sequences"] / sequences / CHUNK),
    )


def sweep(
    shape: Shape, layers: int, after: list[int], asked: dict, quantization: str | None, card: Card
) -> Cost:
    """Scores of a task by a model of `layers` layers, and of its versions cut further.

    after: how many layers each version has after its cut; it runs only those. The states at the
    cuts are held (at no more cuts than layers), and the keys and values of shared prefixes. Where
    a "map" is asked for, each version has one (D, D) in place of its block.
    """
    found, batch = assumptions.reading(asked), asked["batch_tokens"]
    per_token = layers + sum(after)
    applications = found.tokens * per_token
    cuts = min(len(after), layers)
    pair = 2 * shape.key * card.element  # a token's keys and values in one layer
    repeated = (found.repeated + 1) * batch if found.repeated else 0  # prefixes and what follows
    prefixes = (found.held * per_token + repeated * layers) * pair
    head = HEAD_POSITIONS * shape.vocab_size * (card.element + 4)
    maps = len(after) * shape.hidden**2 if "map" in asked else 0
    return Cost(
        tokens=found.tokens,
        applications=applications,
        flops=_layers(shape, applications, found.context)
        + _head(shape, found.scored * (1 + len(after)))
        + 2 * maps * found.tokens,
        weights=weights(shape, layers, quantization, card),
        activations=_working(shape, batch, card)
        + cuts * batch * shape.hidden * card.element
        + prefixes
        + head
        + 4 * maps,
        read=shape.parameters(layers) * STORED,
    )


def states(shape: Shape, asked: dict, quantization: str | None, card: Card) -> Cost:
    """What the states of texts say of every block: one pass, a text at a time; all states are held.

    Comparing the states is not counted.
    """
    longest, state = asked["max_tokens"], (shape.num_layers + 1) * shape.hidden
    compared = 16 * min(longest, COMPARED) if card.on_cpu else 4 * longest
    held = (8 * longest + compared) * state
    return _pass(shape, shape.num_layers, asked, longest, held, quantization, card)


def fitting(shape: Shape, stop: int, asked: dict, quantization: str | None, card: Card) -> Cost:
    """Linear maps across a block that ends at layer `stop`, of the state and of what an FFN adds.

    A pass up to there, and two products of (tokens, D) with (tokens, D) for each of both; solving
    the normal equations is not counted.
    """
    texts = {"sequences": asked["map_sequences"], "max_tokens": asked["map_tokens"]}
    batch, square = max(asked["map_batch_tokens"], asked["map_tokens"]), shape.hidden**2
    found, sums = _pass(shape, stop, texts, batch, 0, quantization, card), 64 * square  # in fp64
    most = sums + max(found.activations, 44 * batch * shape.hidden, sums)  # summing, or solving
    return replace(found, flops=found.flops + 8 * square * found.tokens, activations=most)


def _pass(
    shape: Shape,
    layers: int,
    texts: dict,
    batch: int,
    held: float,
    quantization: str | None,
    card: Card,
) -> Cost:
    """One pass of C4 texts through the first `layers` layers, which holds so many bytes more."""
    tokens, context = _read(texts["sequences"], texts["max_tokens"], packed=False)
    return Cost(
        tokens=tokens,
        applications=tokens * layers,
        flops=_layers(shape, tokens * layers, context),
        weights=weights(shape, shape.num_layers, quantization, card),
        activations=_working(shape, batch, card) + held,
        read=shape.parameters() * STORED,
    )


def _read(sequences: int, longest: int, packed: bool) -> tuple[float, float]:
    """Tokens of sequences of C4, and the mean number of those that one attends to."""
    if packed:
        return sequences * longest, longest / 2
    return sequences * assumptions.mean(longest), assumptions.context(longest)


def healing(
    shape: Shape,
    layers: int,
    recipe: Recipe,
    quantization: str | None,
    card: Card,
    micro_batch: int,
    recomputes: bool = False,
) -> Cost:
    """A healing of the `layers` layers that are left, `micro_batch` sequences at a time.

    Documents are joined, so that there is no padding. The base is frozen, so that its backward
    pass costs as much as its forward pass; attention's costs twice as much. It ends at the first
    layer with an adapter. Recomputing costs another forward pass, and keeps one layer at a time.
    """
    tokens, context = _read(recipe.steps * recipe.batch, recipe.max_tokens, recipe.packed)
    back = layers - recipe.first_layer
    trained = shape.lora(recipe.rank, back)
    flops = _layers(shape, tokens * layers, context)
    flops += _layers(shape, tokens * back, context, 1 + recomputes, 2 + recomputes)
    flops += 2 * _head(shape, tokens) + 6 * trained * tokens
    batch = micro_batch * recipe.max_tokens
    if not recipe.packed:
        batch = assumptions.largest(recipe.max_tokens, recipe.batch, micro_batch)
    one = kept(shape, recipe.rank, card)
    held, again = (shape.hidden * card.element, one) if recomputes else (one, 0)
    head, layer = batch * LOGITS * shape.vocab_size, batch * again + _working(shape, batch, card)
    return Cost(
        how="healing",
        tokens=tokens,
        applications=tokens * layers,
        flops=flops,
        weights=weights(shape, layers, quantization, card),
        activations=batch * back * held + max(head, layer),  # one after the other
        optimizer=16 * trained,
        read=shape.parameters(layers) * STORED,
        written=(3 * 12 + 4) * trained,  # checkpoints: two are kept, one is being written
        micro_batch=micro_batch,
        recomputes=recomputes,
    )
