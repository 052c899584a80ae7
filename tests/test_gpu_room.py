"""What only a GPU needs: out of a CPU's way, and seen at full size on the meta device.

There nothing is computed. It is one row of a healing of each of the paper's models, forward and
back; where a kernel exists on a GPU only, another one of the same reads and writes stands for it.
"""

import sys
from collections.abc import Sequence
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.nn import Linear4bit, Params4bit
from conftest import ARCHITECTURES, logits, tiny
from torch.distributed._tools.mem_tracker import MemTracker

from lib import cards, counting, gpu
from lib.blocks import Block
from lib.gpu import memory, norms
from lib.healing import attention, lora, packing, training
from lib.models import files, layers, registry
from lib.models.decoder import decoder_layers
from replication import profiles
from replication.measure import fetching, request

PAPER, SMOKE = profiles.get("paper"), profiles.get("smoke")
LENGTHS = (700, 463, 463, 226)  # tokens of the row's documents


def test_a_run_on_a_cpu_enters_no_file_of_it(output):
    """Measured: a healed score."""
    recipe = profiles.recipe("tiny-random", SMOKE, steps=2)
    healed = request.score("tiny-random", SMOKE, "c4", Block(1, 2), recipe, strategy="similarity")
    entered, (folder,) = set(), gpu.__path__

    def note(frame, event, argument):
        if event == "call":
            entered.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        ((score,),) = fetching.fetch([healed])
    finally:
        sys.setprofile(None)
    assert score["status"] == "ok"
    assert training.__file__ in entered
    assert not [file for file in entered if file.startswith(folder)]


class StepMemory(MemTracker):
    """What is held on the meta device, by PyTorch's own tracker, which shares no code with a plan.

    Its hooks of modules are left out: they ask weights that are frozen for gradients.
    """

    _pre_fw_hook = _post_fw_hook = _pre_bw_hook = _post_bw_hook = lambda *_: None

    @property
    def peak(self) -> int:
        return self.get_tracker_snapshot("peak")[torch.device("meta")]["Total"]


def step(wrapped, lengths: Sequence[int]) -> None:
    """Go forward and back on a row of documents."""
    batch = packing.collator(True)([{"documents": [[5] * length for length in lengths]}])
    batch = {k: v.to("meta") if torch.is_tensor(v) else v for k, v in batch.items()}
    labels = batch.pop("labels")
    outputs = wrapped(**batch, use_cache=False)
    training._loss(outputs, labels, torch.tensor(1.0, device="meta")).backward()


@contextmanager
def healed_on_a_gpu(model, recipe, budget: memory.ActivationBudget):
    """Yield a model with adapters, where it is healed by the kernels of a GPU."""
    with (
        counting.kernels_of_a_gpu(),
        attention.attending_with(model),
        lora.new_lora(model.train(), recipe) as wrapped,
        memory.recomputing(model, budget),
    ):
        norms.fuse_norms(model)
        yield wrapped


@pytest.mark.parametrize("name, share", [*((name, 1) for name in PAPER.models), ("phi-2", 0.6)])
def test_a_row_holds_what_is_budgeted(name, share):
    """All that it keeps; with less room it recomputes so many layers that what it keeps fits."""
    costs, num_layers = counting.layer_costs(files.configuration(name)), registry.num_layers(name)
    whole = memory.activation_budget(costs, 0, 0, num_layers)
    needed = share * sum(LENGTHS) * (whole.outside + whole.num_layers * whole.layer)
    budget = memory.activation_budget(costs, needed / memory.USABLE, 0, num_layers)
    assert (0 < budget.num_recomputed(sum(LENGTHS)) < num_layers) == (share < 1)
    model = layers.meta_model(files.configuration(name)).bfloat16()
    with (
        healed_on_a_gpu(model, profiles.recipe(name, PAPER), budget) as wrapped,
        counting.CountBytes([*wrapped.parameters(), *wrapped.buffers()]) as held,
    ):
        step(wrapped, LENGTHS)
    assert 0.9 * needed < held.peak < 1.06 * needed


def pack(model) -> None:
    """Let bitsandbytes pack the projections of all layers in NF4, as it does on a GPU."""
    nf4 = {"quant_type": "nf4", "compress_statistics": True}
    for layer in decoder_layers(model):
        for path, module in list(layer.named_modules()):
            if isinstance(module, torch.nn.Linear):
                data, state = functional.quantize_4bit(module.weight.data, **nf4)
                options = nf4 | {"requires_grad": False, "bnb_quantized": True}
                sizes = module.in_features, module.out_features
                packed = Linear4bit(*sizes, bias=False, device="meta", **nf4)
                packed.weight = Params4bit(data, quant_state=state, **options)
                layer.set_submodule(path, packed)


def peak_of_step(config, recipe, is_packed: bool) -> int:
    """Return the bytes of a step on one sequence of the greatest length, all layers recomputed.

    They are weights, adapters with gradients and AdamW's two moments, and what a row keeps.
    """
    model = layers.meta_model(config).bfloat16().requires_grad_(False)
    if is_packed:
        pack(model)
    no_room = memory.ActivationBudget(0, 0, 1, 0, config.num_hidden_layers)
    with healed_on_a_gpu(model, recipe, no_room) as wrapped:
        optimizer = torch.optim.AdamW(p for p in wrapped.parameters() if p.requires_grad)
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
        held = StepMemory()
        held.track_external(*wrapped.parameters(), optimizer)
        with held:
            step(wrapped, [recipe.max_tokens])
    return held.peak


@pytest.mark.parametrize("name", PAPER.models)
def test_a_step_of_healing_holds_what_is_planned(name):
    """Of the paper's recipe on an A100-80; each layer adds what a third one does. (Nothing goes
    back to the input of the first.)"""
    config, recipe = files.configuration(name), profiles.recipe(name, PAPER)
    on_card = cards.ModelOnCard(counting.layer_costs(config), "nf4", cards.get_card("a100-80"))
    two, three = (
        peak_of_step(layers.pruned_config(config, range(count)), recipe, on_card.packed)
        for count in (2, 3)
    )
    num_layers = registry.num_layers(name)
    peak = two + (num_layers - 2) * (three - two)
    planned = on_card.healing(num_layers, recipe).memory
    assert 0.9 * planned < peak < planned


def test_memory_that_others_hold_is_not_free(monkeypatch):
    """Of a card of 80 GB; what this process has reserved and does not use is its own."""
    device = torch.device("cuda", 0)
    monkeypatch.setattr(memory, "gpu_memory", lambda device: 80e9)
    own = {"memory_allocated": 10e9, "memory_reserved": 12e9}
    for free, usable in ((67e9, 80e9 - 10e9 - memory.RUNTIME_BYTES), (20e9, 20e9 + 2e9)):
        answers = own | {"mem_get_info": (free, 80e9)}
        module = SimpleNamespace(
            **{name: lambda device, answer=answer: answer for name, answer in answers.items()}
        )
        monkeypatch.setattr(torch, "get_device_module", lambda device, module=module: module)
        assert memory.free_memory(device) == usable


def test_a_fused_norm_is_the_norm():
    """Of every architecture, in fp32; those of Gemma, which add one to their weights, are not."""
    fused = set()
    ids = torch.arange(3, 23)[None]
    for name in ARCHITECTURES:
        model = tiny(name)
        expected = logits(model, ids)
        norms.fuse_norms(model)
        fused |= {name for module in model.modules() if "forward" in vars(module)}
        torch.testing.assert_close(logits(model, ids), expected, atol=1e-4, rtol=1e-4)
    assert {"llama", "mistral", "qwen2", "qwen3", "olmo2"} <= fused
    assert not fused & {"gemma2", "gemma3", "gpt2"}
