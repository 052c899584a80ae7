"""A healing within a GPU's memory: its micro-batch, and the layers that each row recomputes.

A layer that is recomputed keeps only its input, computes the rest again on the way back, and
changes no bit (tests/test_packed.py). Gain, by the plan of `paper` on an A100-80: a fifth of the
hours that it takes with all layers recomputed. What a token keeps is known within 6 % by counting
on the meta device (tests/test_gpu_room.py). No GPU has run it yet: `make gpu` times it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

import torch

from ..models.decoder import decoder_layers, get_decoder

MICRO_BATCH = 8  # sequences at a time, at most: of 16 more is recomputed, 4 % more hours
ADAPTER_BYTES = 16  # of an adapter's number: itself, its gradient, AdamW's two moments, in fp32
RUNTIME_BYTES = 1.6e9  # what CUDA's context and the allocator's fragments take
USABLE = 0.9  # of the memory for activations


@dataclass(frozen=True)
class ActivationBudget:
    """The bytes that a healing has for activations, and what a token keeps of them."""

    memory: float
    outside: float  # kept outside of the layers,
    layer: float  # by a layer,
    state: float  # and by one that is recomputed
    num_layers: int  # that are trained

    @property
    def least(self) -> float:
        """Return the bytes of a token where each layer is recomputed."""
        return self.outside + self.num_layers * self.state + self.layer

    def num_recomputed(self, tokens: int) -> int:
        """Return how many layers a row of so many tokens must recompute."""
        kept = self.outside + self.num_layers * self.layer
        lacking = max(0, kept - USABLE * self.memory / tokens)
        return min(self.num_layers, ceil(lacking / (self.layer - self.state)))


def activation_budget(
    costs, memory: float, rank: int, num_layers: int, element: int = 2, models: int = 1
):
    """Return the budget of a healing that trains so many layers, with adapters of that rank.

    costs: `counting.LayerCosts` of the model. memory: bytes that its weights leave. element: bytes
    of a number. models: whose logits a row keeps: 2 with a teacher.
    """
    adapters = ADAPTER_BYTES * rank * num_layers * costs.adapter
    layer, state = costs.kept * element / 2, costs.state * element
    return ActivationBudget(memory - adapters, models * costs.loss, layer, state, num_layers)


def gpu_memory(device) -> int:
    """Return the bytes of a GPU, whether free or not; 0 of any other device."""
    on_cuda = str(device).startswith("cuda")
    return torch.cuda.get_device_properties(device).total_memory if on_cuda else 0


def free_memory(device: torch.device) -> float:
    """Return the bytes of a GPU that this process may still take: nothing that another holds.

    What it has reserved and not allocated is its own, and is not among the card's free bytes.
    """
    module = torch.get_device_module(device)
    held, reserved = module.memory_allocated(device), module.memory_reserved(device)
    free, _ = module.mem_get_info(device)
    return min(gpu_memory(device) - RUNTIME_BYTES - held, free + reserved - held)


@contextmanager
def recomputing(model, budget: ActivationBudget) -> Iterator[None]:
    """While active, each row recomputes the first trained layers, as many as it must."""
    layers = decoder_layers(model)
    first = len(layers) - budget.num_layers

    def choose(decoder, args, kwargs):
        ids = args[0] if args else kwargs["input_ids"]
        stop = first + budget.num_recomputed(ids.numel())
        for number, layer in enumerate(layers):
            layer.gradient_checkpointing = first <= number < stop

    model.activation_checkpointing_enable()
    model.disable_input_require_grads()  # or gradients would flow to the embeddings
    hook = get_decoder(model).register_forward_pre_hook(choose, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
        model.activation_checkpointing_disable()
