"""What only a GPU needs: out of a CPU's way, and seen at full size on the meta device.

There nothing is computed. It is one row of a healing of each of the paper's models, forward and
back; where a kernel exists on a GPU only, another one of the same reads and writes stands for it.
"""

import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ARCHITECTURES, logits, tiny

from lib import counting, gpu
from lib.blocks import Block
from lib.gpu import memory, norms
from lib.healing import attention, lora, packing, training
from lib.models import files, layers, registry
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


def peak(name: str, budget: memory.ActivationBudget) -> int:
    """Return the bytes that training on a row holds at the peak."""
    model = layers.meta_model(files.configuration(name)).bfloat16().train()
    documents = [[5] * length for length in LENGTHS]
    batch = packing.collator(True)([{"documents": documents}])
    batch = {k: v.to("meta") if torch.is_tensor(v) else v for k, v in batch.items()}
    with (
        counting.kernels_of_a_gpu(),
        attention.attending_within_documents(model),
        lora.new_lora(model, profiles.recipe(name, PAPER)) as wrapped,
        counting.CountBytes([*wrapped.parameters(), *wrapped.buffers()]) as held,
        memory.recomputing(model, budget),
    ):
        norms.fuse_norms(model)
        labels = batch.pop("labels")
        outputs = wrapped(**batch, use_cache=False)
        training._loss(outputs, labels, torch.tensor(1.0, device="meta")).backward()
    return held.peak


@pytest.mark.parametrize("name, share", [*((name, 1) for name in PAPER.models), ("phi-2", 0.6)])
def test_a_row_holds_what_is_budgeted(name, share):
    """All that it keeps; with less room it recomputes so many layers that what it keeps fits."""
    costs, num_layers = counting.layer_costs(files.configuration(name)), registry.num_layers(name)
    whole = memory.activation_budget(costs, 0, 0, num_layers)
    needed = share * sum(LENGTHS) * (whole.outside + whole.num_layers * whole.layer)
    budget = memory.activation_budget(costs, needed / memory.USABLE, 0, num_layers)
    assert (0 < budget.num_recomputed(sum(LENGTHS)) < num_layers) == (share < 1)
    assert 0.9 * needed < peak(name, budget) < 1.06 * needed


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
