"""What a GPU would compute, seen at full size on the meta device, where nothing is computed.

It is one row of a healing of each of the paper's models, forward and back. Where a kernel exists on
a GPU only, another one of the same reads and writes stands for it; autocast, which knows no meta
device, is done by hand.
"""

from collections import Counter
from unittest import mock

import pytest
import torch
from conftest import ARCHITECTURES, logits, tiny
from torch.nn import functional

from lib import counting
from lib.healing import attention, lora, packing, training
from lib.healing.recipe import PLANNED, Room
from lib.models import files, kernels, layers, registry
from replication import profiles

PAPER = profiles.get("paper")
LENGTHS = (700, 463, 463, 226)  # tokens of the row's documents
KERNELS = 111  # of a layer; peft's own forward and norms that are not fused would be 143
PRODUCTS = ("mm", "addmm", "bmm")
KNOWN = {
    *PRODUCTS,
    *("_varlen_attn", "_varlen_attn_backward", "native_dropout", "native_dropout_backward"),
    *("native_layer_norm", "native_layer_norm_backward", "silu", "silu_backward"),
    *("tanh", "tanh_backward", "pow", "embedding", "cos", "sin", "cat", "neg", "add", "mul", "div"),
    *("_to_copy", "clone", "zeros", "ones_like", "constant_pad_nd"),
    *("select_backward", "slice_backward", "_log_softmax", "_log_softmax_backward_data"),
    *("nll_loss_forward", "nll_loss_backward"),
}


class Seen(counting._Bytes):
    """Count kernels by name, and note products in fp32 and the windows of attention."""

    def __init__(self, given):
        super().__init__(given)
        self.kernels, self.in_fp32, self.windows = Counter(), [], set()

    def __torch_dispatch__(self, kernel, types, args=(), kwargs=None):
        name = kernel.overloadpacket.__name__
        if not kernel.is_view and name != "_unsafe_view":
            self.kernels[name] += 1
        if name in PRODUCTS and args[0].dtype == torch.float32:
            self.in_fp32.append([matrix.shape for matrix in args])
        if name == "_varlen_attn":
            names = [argument.name for argument in kernel._schema.arguments]
            self.windows.add(tuple(args[names.index("window_size")]))
        return super().__torch_dispatch__(kernel, types, args, kwargs)


def in_16_bits(x, weight, bias=None, linear=functional.linear):
    """Multiply as autocast does."""
    return linear(*(None if part is None else part.bfloat16() for part in (x, weight, bias)))


def trained(name: str, room: Room | None = None) -> Seen:
    """Train a model without weights on a row; return what was seen."""
    model = layers.meta_model(files.configuration(name)).bfloat16().train()
    documents = [[5] * length for length in LENGTHS]
    batch = packing.collator(True, 0)([{"documents": documents}])
    batch = {k: v.to("meta") if torch.is_tensor(v) else v for k, v in batch.items()}
    if room:
        model.activation_checkpointing_enable()
        training._recompute(model, room, sum(LENGTHS))
    with (
        mock.patch.object(attention, "has_flash", lambda query: True),
        mock.patch.object(kernels, "rms_norm", counting._rms_norm),
        mock.patch.object(functional, "dropout", counting._dropout),
        mock.patch.object(functional, "linear", in_16_bits),
        attention._attending(model, attention.NAME),
        lora.new_lora(model, profiles.recipe(name, PAPER)) as wrapped,
        Seen([*wrapped.parameters(), *wrapped.buffers()]) as seen,
    ):
        kernels.fuse_norms(model)
        model.disable_input_require_grads()
        labels = batch.pop("labels")
        outputs = wrapped(**batch, use_cache=False)
        training._loss(outputs, labels, torch.tensor(1.0, device="meta")).backward()
    return seen


def planned(name: str, memory: float = float("inf")) -> Room:
    """Return what the plan says of a row of the whole model."""
    of, num_layers = counting.counted(files.configuration(name)), registry.num_layers(name)
    return Room(memory, of.loss, of.kept, 2 * of.state, num_layers)


@pytest.mark.parametrize("name", PAPER.models)
def test_a_row_takes_the_kernels_and_the_memory_that_are_planned(name):
    seen, room = trained(name), planned(name)
    kept = room.outside + room.layers * room.layer
    assert seen.peak / sum(LENGTHS) == pytest.approx(kept, rel=0.06)
    assert seen.kernels.keys() <= KNOWN  # no softmax over T x T
    assert seen.kernels["_varlen_attn"] == room.layers
    assert seen.kernels.total() / room.layers <= KERNELS
    assert seen.in_fp32 == []
    window = getattr(files.configuration(name), "sliding_window", None)
    assert seen.windows == {(window - 1 if window else -1, 0)}


def test_a_row_recomputes_what_has_no_room():
    whole = planned("mistral-7b")
    needed = sum(LENGTHS) * (whole.outside + whole.layers * whole.layer)
    room = whole._replace(memory=0.6 * needed / PLANNED)
    seen = trained("mistral-7b", room)
    assert 0 < room.recomputed(sum(LENGTHS)) < room.layers
    assert 0.9 * 0.6 * needed < seen.peak < 1.06 * 0.6 * needed


# ---- which kernels -----------------------------------------------------------------------------


def test_a_fused_norm_is_the_norm():
    """Of every architecture, in fp32; those of Gemma, which add one to their weights, are not."""
    fused = set()
    ids = torch.arange(3, 23)[None]
    for name in ARCHITECTURES:
        model = tiny(name)
        expected = logits(model, ids)
        kernels.fuse_norms(model)
        fused |= {name for module in model.modules() if "forward" in vars(module)}
        torch.testing.assert_close(logits(model, ids), expected, atol=1e-4, rtol=1e-4)
    assert {"llama", "mistral", "qwen2", "qwen3", "olmo2"} <= fused
    assert not fused & {"gemma2", "gemma3", "gpt2"}
