"""The whole path on a device, each number next to the CPU's; with a random model and random texts.

pytest does not collect this file. tests/test_simulated_device.py runs it on the simulated device,
in a process of its own, and `make gpu` on CUDA (DEEPER_LAYERS_DEVICE=cuda).
"""

import gc
import os
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pitfalls
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from conftest import Distances
from transformers import AutoModelForCausalLM

import simulated_device
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import healing as timed
from benchmarks.gpu import random_model, sections
from lib import evaluation, similarity
from lib.blocks import UNPRUNED, Block
from lib.data import encoding, sets
from lib.healing import lora, packing, training
from lib.models import files, loading
from lib.prune import Options, prune
from lib.pruning import dropped, save_pruned
from lib.sweep import continuations, sweep, target_logprobs
from replication import profiles
from replication.beyond import repair
from replication.measure import damage, inference_cost, request

DEVICE = os.environ.get("DEEPER_LAYERS_DEVICE", "sim")
simulated = pytest.mark.skipif(DEVICE != "sim", reason="a question to the simulated device")
if DEVICE == "sim":
    simulated_device.register()

SMOKE = replace(profiles.get("smoke"), dtype="float32")
BLOCK = Block(3, 2)
RECIPE = replace(profiles.recipe("tiny-random", SMOKE), steps=4, learning_rate=0.05)
TEXTS = ["The five boxing wizards jump quickly. " * k for k in (1, 2, 3, 1)] + ["a b c", "d e"]
CLOSE = {"rtol": 1e-4, "atol": 1e-5} if DEVICE == "sim" else {"rtol": 1e-3, "atol": 1e-3}


@contextmanager
def default_device(device: str):
    """Inside, models go to `device` by default, and so does what healing's Trainer makes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "default_device", lambda: device)
        if device != "cpu":
            patch.setenv("ACCELERATE_TORCH_DEVICE", device)
        if device == "sim":
            patch.setattr(loading, "fits", lambda *args, **kwargs: True)  # it asks CUDA
        loading._loaded.clear()
        yield
    loading._loaded.clear()


def on_both(measure) -> list:
    """What measure() gives on the CPU and on the device."""
    tables = []
    for device in ("cpu", DEVICE):
        with default_device(device):
            tables.append(measure())
    return tables


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    """A checkpoint whose widths are multiples of 64, as NF4 has them on every device."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    folder = tmp_path_factory.mktemp("random_model")
    return random_model.write(folder, vocab_size=random_model.VOCABULARY, **sizes, **heads)


@pytest.fixture(scope="module", autouse=True)
def random_texts():
    """In the place of C4: no data set is needed, and short documents are soon tokenised."""
    texts = random_model.texts(100, 60, shortest=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "c4", lambda split, source, count: texts[:count])
        patch.setattr(sets, "healing_texts", lambda source, count: texts)
        yield


@pytest.fixture(scope="module", autouse=True)
def nf4_stays_packed():
    """Also on a real GPU, whose memory these small models hardly fill."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "UNPACKED", 0)
        yield


@pytest.fixture(scope="module")
def c4(random_texts):
    """The task of these texts."""
    return evaluation.task_of(request.of_task("c4", SMOKE))


def load(name, quantization=None, device=DEVICE, block=UNPRUNED):
    dtype = "bfloat16" if quantization else "float32"
    return loading.load(name, quantization=quantization, dtype=dtype, device=device, block=block)


@pytest.fixture(scope="module", params=[None, "nf4"], ids=["fp32", "packed"])
def quantization(request):
    return request.param


@pytest.fixture(scope="module")
def pair(name, quantization):
    """The model on the CPU and on the device, and the tokenizer."""
    (cpu, tokenizer), (sim, _) = (load(name, quantization, device) for device in ("cpu", DEVICE))
    tensors = [*sim.parameters(), *sim.buffers()]
    assert {t.device.type for t in tensors} == {DEVICE}
    four_bit = {p.dtype for p in sim.parameters()} == {torch.uint8, torch.bfloat16}
    assert four_bit == (quantization == "nf4"), "NF4 stays packed on the device"
    return cpu, sim, tokenizer


@pytest.fixture
def precision(quantization):
    """NF4 computes in bf16 on both, on the device from packed weights."""
    return {"rtol": 2e-2, "atol": 2e-2} if quantization else CLOSE


# ---- the device's own rules ----------------------------------------------------------------


@simulated
def test_tensors_of_two_devices_do_not_meet():
    ours, theirs = torch.ones(3, 3, device="sim"), torch.ones(3, 3)
    ids = torch.zeros(2, dtype=torch.long)
    mixed = [
        lambda: ours + theirs,
        lambda: ours.gather(1, ids[:, None]),
        lambda: torch.nn.functional.embedding(ids, ours),
    ]
    for operation in mixed:
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            operation()
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, device="sim", generator=torch.Generator())
    with pytest.raises(TypeError, match="can't convert sim:0"):
        np.asarray(ours)
    assert torch.equal(ours[ids].cpu() * 2, theirs[ids] * torch.tensor(2.0))  # CUDA allows these
    drawn = torch.randn(9, device="sim", generator=torch.Generator("sim").manual_seed(1))
    assert torch.equal(drawn.cpu(), torch.randn(9, generator=torch.Generator().manual_seed(1)))


@simulated
def test_memory_is_counted_and_ends():
    held = torch.sim.memory_allocated()
    block = torch.ones(1000, device="sim")
    assert torch.sim.memory_allocated() == held + 4000
    with simulated_device.at_most(3999), pytest.raises(torch.OutOfMemoryError):
        torch.ones(1000, device="sim")
    torch.sim.reset_peak_memory_stats()
    del block
    assert torch.sim.memory_allocated() == held
    assert torch.sim.max_memory_allocated() == held + 4000


# ---- distances and scores ------------------------------------------------------------------


def batches(tokenizer):
    return similarity.calibration_batches(TEXTS, tokenizer, 24, 96)


def test_distances(pair, precision):
    cpu, sim, tokenizer = pair
    maps = [similarity.block_distances(model, batches(tokenizer)) for model in (cpu, sim)]
    np.testing.assert_allclose(maps[1].matrix, maps[0].matrix, **precision)
    ids = torch.randint(3, 250, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(12) >= torch.tensor([[0], [3], [7]])).long()  # padded on the left
    left = {"input_ids": ids, "attention_mask": mask}
    states, expected = (similarity.last_token_states(m, left).cpu() for m in (sim, cpu))
    assert (states - expected).norm() < (precision["rtol"] * expected).norm()


def test_layer_by_layer(name, pair, quantization):
    _, sim, tokenizer = pair

    def layers():
        return loading.one_layer_models(
            name, quantization=quantization, dtype=sim.dtype, device=DEVICE
        )

    by_layer = similarity.layerwise_distances(layers, batches(tokenizer))
    whole = similarity.block_distances(sim, batches(tokenizer))
    np.testing.assert_array_equal(by_layer.matrix, whole.matrix)


TASKS = ("mmlu", "boolq", "arc_easy", "hellaswag", "gsm8k_bpb")


def test_scores_of_every_task(pair, precision, c4):
    cpu, sim, tokenizer = pair
    blocks = [BLOCK, Block(6, 2), Block(0, 1)]
    for task in (c4, *(random_model.task(name, 6) for name in TASKS)):
        rows = [row for example in task.rows(tokenizer) for row in example]
        logprobs, expected = (
            target_logprobs(m, [UNPRUNED, *blocks], rows, 512, task.name) for m in (sim, cpu)
        )
        for block in (UNPRUNED, *blocks):
            both = (np.concatenate(part[block]) for part in (logprobs, expected))
            np.testing.assert_allclose(*both, err_msg=task.name, **precision)
        whole = sweep(sim, tokenizer, blocks, [task], 512).value
        with dropped(sim, BLOCK):
            alone = sweep(sim, tokenizer, [], [task], 512).value
        np.testing.assert_allclose(alone[0], whole[1], err_msg=task.name, **CLOSE)


def test_generation(pair, quantization):
    cpu, sim, tokenizer = pair
    rows = [encoding.Row(tuple(tokenizer(text).input_ids), ()) for text in TEXTS[:4]]
    texts, expected = (
        continuations(m, tokenizer, [UNPRUNED, BLOCK], rows, 6, 64) for m in (sim, cpu)
    )
    assert texts.keys() == expected.keys() and all(texts[UNPRUNED])
    if not quantization:  # in bf16 a near tie may fall otherwise
        assert texts == expected


def test_without_a_block_is_dropped(name, pair, quantization):
    _, sim, _ = pair
    part, _ = load(name, quantization, block=BLOCK)
    ids = torch.arange(3, 23, device=DEVICE)[None]
    with torch.inference_mode(), dropped(sim, BLOCK):
        assert torch.equal(part(ids).logits, sim(ids).logits)


@simulated
def test_nf4_is_unpacked_where_a_third_of_the_memory_is_enough(name, monkeypatch):
    """The values stay. Asked to stay packed, or to multiply in bf16 what is in fp32, it does."""
    monkeypatch.setattr(loading, "UNPACKED", 1 / 3)
    monkeypatch.setattr(loading, "_gpu_memory", lambda device: 0)
    whole = files.in_memory(files.lazy_state_dict(Path(name)), 2, 2)
    packed, _ = load(name, "nf4")
    linear = {n: m for n, m in packed.named_modules() if isinstance(m, Linear4bit)}
    cases = [
        (3 * whole + 1, {}, True),
        (3 * whole - 1, {}, False),
        (3 * whole + 1, {"packed": True}, False),
        (6 * whole + 1, {"dtype": "float32"}, False),
    ]
    for memory, options, expected in cases:
        monkeypatch.setattr(loading, "_gpu_memory", lambda device, memory=memory: memory)
        options = {"quantization": "nf4", "dtype": "bfloat16", "device": DEVICE} | options
        model, _ = loading.load(name, **options)
        assert (torch.uint8 not in {p.dtype for p in model.parameters()}) == expected, options
        if expected:
            for path, module in linear.items():
                values = dequantize_4bit(module.weight.data, module.weight.quant_state)
                assert torch.equal(model.get_submodule(path).weight, values), path


def test_damage_map(name, output):
    expected, table = on_both(lambda: damage.measure([name], SMOKE))
    np.testing.assert_allclose(table.value, expected.value, rtol=0.05, atol=0.02)


# ---- healing -------------------------------------------------------------------------------


class Killed(BaseException):
    """What no handler catches."""


def heal(model, *arguments) -> training.Healed:
    with default_device(model.device.type), dropped(model, BLOCK):
        return training.heal(model, *arguments)


def adapter(healed: training.Healed) -> bytes:
    assert healed.status == "ok"
    return (healed.adapter / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("first", [0, BLOCK.start], ids=["all layers", "after the cut"])
def test_healing_and_its_resume(pair, tmp_path, monkeypatch, quantization, first, c4):
    """The CPU's losses; after an interruption the same adapter, byte for byte."""
    cpu, sim, tokenizer = pair
    recipe = replace(RECIPE, first_layer=first)
    expected = heal(cpu, tokenizer, recipe, tmp_path / "cpu")
    whole = heal(sim, tokenizer, recipe, tmp_path / "whole")
    near = {"rtol": 2e-3} if quantization else CLOSE
    np.testing.assert_allclose(whole.losses, expected.losses, **near)

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training._Watch, "on_step_end", stop)
        heal(sim, tokenizer, recipe, tmp_path / "resumed")
    assert list((tmp_path / "resumed").glob("checkpoint-*"))
    resumed = heal(sim, tokenizer, recipe, tmp_path / "resumed")
    assert adapter(resumed) == adapter(whole)
    assert resumed.losses == whole.losses and len(whole.losses) == RECIPE.steps
    with dropped(sim, BLOCK), lora.load_lora(sim, whole.adapter):
        healed = sweep(sim, tokenizer, [], [c4]).value[0]
    assert healed != sweep(sim, tokenizer, [BLOCK], [c4]).value[1]


@simulated
def test_healing_out_of_memory(name, tmp_path):
    """A real end of memory: at 16 and 8 sequences at a time, and then at any number of them."""
    sim, tokenizer = load(name, "nf4")
    recipe, peaks = replace(RECIPE, steps=2, max_tokens=64), {}
    gc.collect()
    held = torch.sim.memory_allocated()
    for micro in (8, 4):
        torch.sim.reset_peak_memory_stats()
        whole = heal(sim, tokenizer, recipe, tmp_path / f"{micro}", micro)
        assert whole.micro_batch == micro
        peaks[micro] = torch.sim.max_memory_allocated() - held
        assert comes_back(held)
    with simulated_device.at_most((peaks[8] + peaks[4]) // 2):
        halved = heal(sim, tokenizer, recipe, tmp_path / "halved")
    assert halved.micro_batch == 4 and adapter(halved) == adapter(whole)
    with simulated_device.at_most(peaks[4] // 16):
        assert heal(sim, tokenizer, recipe, tmp_path / "none").status == "oom"
    assert comes_back(held)


@simulated
def test_memory_that_would_end_late(name, tmp_path, monkeypatch):
    """The longest documents come last: where there is no room for them, no step is made."""
    sim, tokenizer = load(name, "nf4")
    recipe, real = replace(RECIPE, packed=False, max_tokens=64), packing.training_sequences
    step, peaks, steps = training._Watch.on_step_end, {}, []

    def longest_last(*arguments):
        sequences, epochs = real(*arguments)
        return sorted(sequences, key=lambda s: packing.real_tokens([s])), epochs

    def counted(self, args, state, *rest, **kwargs):
        steps.append(state.global_step)
        step(self, args, state, *rest, **kwargs)

    monkeypatch.setattr(packing, "training_sequences", longest_last)
    gc.collect()
    held = torch.sim.memory_allocated()
    for micro in (16, 8):
        torch.sim.reset_peak_memory_stats()
        whole = heal(sim, tokenizer, recipe, tmp_path / f"{micro}", micro)
        peaks[micro] = torch.sim.max_memory_allocated() - held
        assert comes_back(held)
    with monkeypatch.context() as patch:
        patch.setattr(training, "_raises", lambda device: False)
        untried = heal(sim, tokenizer, recipe, tmp_path / "untried", 8)
    assert adapter(untried) == adapter(whole) and untried.losses == whole.losses
    assert comes_back(held)
    monkeypatch.setattr(training._Watch, "on_step_end", counted)
    with simulated_device.at_most((peaks[16] + peaks[8]) // 2):
        halved = heal(sim, tokenizer, recipe, tmp_path / "halved")
    assert halved.micro_batch == 8 and adapter(halved) == adapter(whole)
    assert steps == list(range(1, recipe.steps + 1))


def comes_back(held: int) -> bool:
    """Whether the device holds that many bytes again; a thread of autograd may still let go."""
    for _ in range(100):
        gc.collect()
        if torch.sim.memory_allocated() == held:
            return True
        time.sleep(0.1)
    return False


def test_repairs(name, output):
    """Scores of every repair."""
    expected, table = on_both(
        lambda: repair.measure({name: Distances(BLOCK.start)}, SMOKE, repair.repairs)
    )
    loss = expected.task == "c4"
    np.testing.assert_allclose(table.value[loss], expected.value[loss], rtol=1e-2)
    assert table[table.treatment == "healed"].seconds.gt(0).all()


# ---- what else is measured, and what is saved ----------------------------------------------


def test_inference_cost(name, output):
    plain, packed = [], []
    for table in on_both(lambda: inference_cost.of_model(name, SMOKE)):
        assert table[table.status == "ok"].value.gt(0).all()
        weights = table[table.task == "weights"]
        plain.append(weights[weights.quantization.isna()].value)
        packed.append(weights[weights.quantization.notna()].value)
    np.testing.assert_array_equal(*plain)
    np.testing.assert_allclose(*packed, rtol=0.2)  # a CPU may lay packed weights out otherwise


PITFALLS = ("final_norm", "half_precision", "last_token", "averages")


def test_pitfalls(pair):
    cpu, sim, tokenizer = pair
    batch = next(batches(tokenizer))
    for pitfall in PITFALLS:
        values = [getattr(pitfalls, pitfall)(m, batch).table.value for m in (sim, cpu)]
        np.testing.assert_allclose(*values, atol=0.02, err_msg=pitfall)


def test_what_is_saved(name, output):
    """An ordinary checkpoint from a model on the device, pruned or healed and merged."""
    sim, tokenizer = load(name)
    ids = torch.arange(3, 23)[None]
    with torch.inference_mode(), dropped(sim, BLOCK):
        expected = sim(ids.to(DEVICE)).logits.cpu()
    save_pruned(sim, tokenizer, BLOCK, output / "pruned")
    plain = AutoModelForCausalLM.from_pretrained(output / "pruned")
    torch.testing.assert_close(plain(ids).logits, expected, rtol=1e-4, atol=1e-4)
    with default_device(DEVICE):
        prune(Options(name, layers=2, heal=2, limit=4, dtype="float32"), output / "healed")
    healed = AutoModelForCausalLM.from_pretrained(output / "healed")
    assert healed.config.num_hidden_layers == 6


@simulated
def test_make_gpu(tmp_path):
    """Its sections of the uncut model, with memory that is counted."""
    bench = gpu.bench(tmp_path / "work", tiny=True)
    kinds = (sections.load, sections.distances, sections.sweeps)
    with default_device("sim"):
        assert gpu.measure(bench, dict.fromkeys(kinds, 60), budget=60) == []
    assert len(bench.rows) == 7 and all(row.measured.peak for row in bench.rows[1:])


@simulated
def test_make_gpu_tells_the_peak_of_the_attempt_that_had_room(name, tmp_path):
    bench, recipe = gpu.bench(tmp_path / "work", tiny=True), replace(RECIPE, max_tokens=64)
    pair = load(name, "nf4")
    bench.model = lambda block: pair
    with default_device("sim"), dropped(pair[0], BLOCK):
        _, took = timed.heal(bench, recipe, tmp_path / "8", 8)
        with simulated_device.at_most(took.peak * 5 // 4):
            healed, limited = timed.heal(bench, recipe, tmp_path / "16", 16)
    assert healed.micro_batch == 8 and took.seconds and limited.seconds
    assert limited.peak == pytest.approx(took.peak, rel=0.02)
