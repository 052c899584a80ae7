"""What a layer takes for a token, counted on the meta device at full size: nothing is computed.

A document is read there, and adapters are trained on it, by a model of one layer and by one of two.
The difference is a layer. Attention, norms and dropout are counted as the kernels of a GPU.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from transformers.loss.loss_utils import ForCausalLMLoss

from .gpu import norms
from .healing import attention, lora
from .healing.recipe import Recipe
from .models import layers, sizes

TOKENS = 512  # of the document: about as many as one of C4 has
RECIPE = Recipe(steps=1, max_tokens=TOKENS, learning_rate=0, rank=1, warmup_steps=0)


def _attention_flops(products: int, query: tuple, key: tuple) -> int:
    """Return the FLOPs of so many products of the size of queries by keys, from two shapes.

    Several heads of queries may share one of keys, which PyTorch counts from 2.12 on.
    """
    batch, heads, length, width = query
    return 2 * products * batch * heads * length * width * key[-2]


FLASH = torch.ops.aten._scaled_dot_product_flash_attention
FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_backward
FLOPS = {  # of kernels, from the shapes of what they are given
    torch.ops.aten._grouped_mm: lambda x, w, *_, **__: 2 * x[0] * x[1] * w[-1],
    FLASH: lambda query, key, *_, **__: _attention_flops(2, query, key),
    FLASH_BACKWARD: lambda _, query, key, *__, **___: _attention_flops(5, query, key),
}
NO_BYTES = {*flop_registry, *FLOPS, torch.ops.aten._unsafe_view}  # products, and a view


class LayerCosts(NamedTuple):
    """What a decoder takes for a token, where numbers have 16 bits.

    Of a layer: FLOPs of matrix products, and bytes that all other kernels read and write.
    """

    parameters: sizes.Parameters
    adapter: int  # parameters of a layer's adapters of rank 1; 0 where LoRA finds no FFN
    forward: np.ndarray  # (FLOPs, bytes)
    training: np.ndarray  # forward and back, with adapters
    kept: float  # bytes of a layer that training keeps until its end
    loss: float  # bytes that training keeps outside of the layers
    head: int  # FLOPs of lm_head
    state: int  # numbers
    cached: int  # numbers of the keys and values of a layer


def layer_costs(config) -> LayerCosts:
    """Return the costs of a decoder, by its last two layers."""
    text = config.get_text_config(decoder=True)
    one, two = (
        layers.meta_model(layers.pruned_config(config, range(text.num_hidden_layers)[-count:]))
        for count in (1, 2)
    )
    forward = _of_token(two) - _of_token(one)
    try:
        adapter = lora.parameters(one)
        trained = _of_token(one, trains=True)
        layer = _of_token(two, trains=True) - trained
    except ValueError:
        adapter, trained, layer = 0, *np.zeros((2, 3))
    return LayerCosts(
        parameters=sizes.parameters(layers.meta_model(config)),
        adapter=adapter,
        forward=forward[:2],
        training=layer[:2],
        kept=layer[2],
        loss=trained[2] - layer[2],
        head=2 * one.get_output_embeddings().weight.numel(),
        state=text.hidden_size,
        cached=2 * sizes.key_width(text),
    )


def _of_token(model, trains: bool = False) -> np.ndarray:
    """Return FLOPs, bytes that other kernels move, and bytes held at the peak, of a token."""
    model.bfloat16().set_attn_implementation(attention.NAME)
    ids = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
    with (
        kernels_of_a_gpu(),
        torch.set_grad_enabled(trains),
        lora.new_lora(model, RECIPE) if trains else nullcontext(model) as run,
        FlopCounterMode(display=False, custom_mapping=FLOPS) as products,
        CountBytes([ids, *run.bfloat16().train(trains).parameters(), *run.buffers()]) as others,
    ):
        norms.fuse_norms(model)
        logits = run(input_ids=ids, use_cache=False).logits
        if trains:
            ForCausalLMLoss(logits, ids, logits.shape[-1]).backward()
    return np.array([products.get_total_flops(), others.moved, others.peak]) / TOKENS


class CountBytes(TorchDispatchMode):
    """Count the bytes that kernels other than matrix products move, and those held at the peak."""

    def __init__(self, given: list[torch.Tensor]):
        super().__init__()
        self.moved = self.held = self.peak = 0
        self.known = {tensor.untyped_storage()._cdata for tensor in given}

    def __torch_dispatch__(self, kernel, types, args=(), kwargs=None):
        made = kernel(*args, **(kwargs or {}))
        if not kernel.is_view and kernel.overloadpacket not in NO_BYTES:
            self.moved += sum(tensor.nbytes for tensor in _tensors((args, made)))
        for tensor in _tensors(made):
            self._hold(tensor.untyped_storage())
        return made

    def _hold(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.known:  # else it is a view, or was given
            self.known.add(storage._cdata)
            self.held += storage.nbytes()
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())

    def _free(self, place: int, size: int) -> None:
        self.known.discard(place)
        self.held -= size


def _tensors(tree) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


# ---- the kernels of a GPU, on the meta device --------------------------------------------------


@contextmanager
def kernels_of_a_gpu() -> Iterator[None]:
    """While active, attention, norms and dropout are each one kernel, and keep what it keeps."""
    with (
        mock.patch.object(functional, "scaled_dot_product_attention", _attention),
        mock.patch.object(functional, "dropout", _dropout),
        mock.patch.object(norms, "rms_norm", _rms_norm),
    ):
        yield


def _attention(query, key, value, *_, scale: float | None = None, **__) -> torch.Tensor:
    outputs = FLASH(query, key, value, is_causal=True, scale=scale)
    return outputs[0]


def _rms_norm(module, x: torch.Tensor) -> torch.Tensor:
    """Return the norm by another kernel of the same reads and writes: this one is CUDA's."""
    return functional.layer_norm(x, x.shape[-1:], module.weight, None, module.variance_epsilon)


def _dropout(x, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    if not training or not p:
        return x
    dropped, _ = torch.native_dropout(x, p, True)
    return dropped
