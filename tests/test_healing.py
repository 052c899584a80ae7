"""Healing: trust in the gradient, resume byte for byte, and a model that comes back whole."""

import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from conftest import DEVICE, EXPERTS, architectures, in_nf4, stored, tiny, with_real_tokenizer
from torch import nn
from transformers import AutoModelForCausalLM, TrainerCallback

from lib import storage
from lib.blocks import Block
from lib.data import sets
from lib.healing import lora, packing, training
from lib.healing.recipe import memory_fallbacks
from lib.models import files, loading
from lib.models.decoder import decoder_layers
from lib.pruning import dropped, save_pruned
from lib.storage import SEAL, seal
from replication import profiles

SMOKE = profiles.get("smoke")
BLOCK = Block(3, 2)
RECIPE = replace(profiles.recipe("tiny-random", SMOKE), steps=6, learning_rate=0.05)
WEIGHTS = "adapter_model.safetensors"


pytestmark = pytest.mark.usefixtures("few_articles")


def healed(base, recipe, folder, **options) -> training.Healed:
    """The healing of the model without BLOCK."""
    with dropped(base[0], BLOCK):
        return training.heal(*base, recipe, folder, **options)


def healed_bytes(base, folder, recipe=RECIPE) -> bytes:
    result = healed(base, recipe, folder)
    assert result.status == "ok" and len(result.losses) == recipe.steps
    return (result.adapter / WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def undisturbed(base, few_articles, tmp_path_factory):
    return healed_bytes(base, tmp_path_factory.mktemp("undisturbed"))


def at_each_step(monkeypatch, note) -> None:
    """`note` is called with the inputs of each forward and backward pass of a training."""
    step = training.Trainer.training_step

    def noted(trainer, model, inputs, *rest):
        note(inputs)
        return step(trainer, model, inputs, *rest)

    monkeypatch.setattr(training.Trainer, "training_step", noted)


def random_adapter(wrapped, std: float) -> None:
    """An adapter that does something: a new one adds zero."""
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=std)


# ---- what is trained -----------------------------------------------------------------------

FFN = {
    "llama": ["gate_proj", "up_proj", "down_proj"],
    "gemma3": ["gate_proj", "up_proj", "down_proj"],
    "phi": ["fc1", "fc2"],
    "gpt_neox": ["dense_h_to_4h", "dense_4h_to_h"],
    "gpt2": ["c_fc", "c_proj"],
}


@pytest.mark.parametrize("name", FFN)
def test_only_the_ffn_is_adapted(name):
    model = tiny(name)
    projections = lora.ffn_projections(model)
    prefix = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}.get(name, "model.layers")
    expected = {f"{prefix}.{l}.mlp.{p}" for l in range(6) for p in FFN[name]}
    assert sorted(projections) == sorted(expected)
    with dropped(model, Block(1, 3)), lora.new_lora(model, RECIPE) as wrapped:
        trained = {n for n, p in wrapped.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 3 * len(FFN[name])
    assert all("lora_" in n and ".mlp." in n for n in trained)


@pytest.mark.parametrize("name", EXPERTS)
def test_experts_cannot_be_healed(name):
    with pytest.raises(ValueError, match="no experts"):
        lora.ffn_projections(tiny(name))


def test_a_model_without_a_known_ffn_cannot_be_healed(llama):
    for layer in decoder_layers(llama):
        layer.other = layer._modules.pop("mlp")
    with pytest.raises(ValueError, match="Layer 0 of .* cannot be healed"):
        lora.ffn_projections(llama)


# ---- trust in the gradient -----------------------------------------------------------------


def all_in_nf4(model: nn.Module) -> nn.Module:
    """Every linear weight but the head's to NF4 and back, by bitsandbytes' own functions."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            module.weight.data = in_nf4(module.weight.data)
    return model


def lora_gradients(model, ids) -> dict[str, torch.Tensor]:
    recipe = replace(RECIPE, dropout=0.0)
    with lora.new_lora(model, recipe) as wrapped, lora.autocast_like(model):
        random_adapter(wrapped, std=0.1)
        wrapped.train()
        wrapped(input_ids=ids, labels=ids).loss.backward()
        return {n: p.grad.clone() for n, p in wrapped.named_parameters() if p.requires_grad}


def test_gradients_through_nf4_also_after_an_evaluation(tmp_path, ids):
    """In every layer those of the dequantised weights; an evaluation without gradients before
    the training must not change them (it does, without an error, in bitsandbytes' CPU path)."""
    with_real_tokenizer(tiny("llama").to(torch.bfloat16), tmp_path)
    quantised, _ = loading.load(str(tmp_path), quantization="nf4", dtype="bfloat16", device="cpu")
    assert quantised.model.rotary_emb.inv_freq.dtype == torch.float32
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    unquantised = plain(ids).logits
    reference = all_in_nf4(plain)
    with torch.inference_mode():
        assert not torch.equal(quantised(ids).logits, unquantised)
        assert torch.equal(quantised(ids).logits, reference(ids).logits)
    gradients, expected = lora_gradients(quantised, ids), lora_gradients(reference, ids)
    assert len(gradients) == 6 * 3 * 2
    for name, gradient in expected.items():
        assert gradient.norm() > 0
        torch.testing.assert_close(gradients[name], gradient, msg=name)


# ---- data ----------------------------------------------------------------------------------


def test_each_epoch_has_every_document_in_an_order_of_its_own(base, monkeypatch):
    texts = [f"text {number}" for number in range(8)]
    monkeypatch.setattr(sets, "healing_texts", lambda source, count: texts)
    recipe = replace(RECIPE, steps=3, batch=8, max_tokens=32, packed=False)
    sequences, epochs = packing.training_sequences(base[1], recipe)
    documents = [tuple(sequence["documents"][0]) for sequence in sequences]
    orders = [documents[first : first + 8] for first in (0, 8, 16)]
    assert len(documents) == 24 and epochs == 3
    assert all(len(set(order)) == 8 for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_packed_sequences_are_full(base):
    sequences, epochs = packing.training_sequences(base[1], RECIPE)
    assert len(sequences) == RECIPE.steps * RECIPE.batch
    assert {packing.real_tokens([s]) for s in sequences} == {RECIPE.max_tokens}
    assert 0 < epochs < 0.05
    end = base[1].eos_token_id
    assert all(d[-1] == end for s in sequences for d in s["documents"][:-1])


def test_documents_are_truncated_and_padding_has_no_loss(base):
    recipe = replace(RECIPE, packed=False, max_tokens=300)
    sequences, _ = packing.training_sequences(base[1], recipe)
    lengths = [len(s["documents"][0]) for s in sequences]
    assert max(lengths) == 300 and min(lengths) < 300
    batch = packing.collator(False, base[1].pad_token_id)(sequences[:16])
    assert (batch["labels"] != -100).sum(1).tolist() == [n - 1 for n in lengths[:16]]
    assert (batch["labels"][:, 0] == -100).all()


def test_documents_begin_as_the_tokenizer_begins_them(tmp_path):
    """With its token for the beginning of a text, if it has one."""
    tokenizer = files.tokenizer(str(stored(tiny("llama"), tmp_path / "model")))
    recipe = replace(RECIPE, steps=1, packed=False, max_tokens=8)
    sequences, _ = packing.training_sequences(tokenizer, recipe)
    read = [document for sequence in sequences for document in sequence["documents"]]
    assert {document[0] for document in read} == {1}
    assert all(1 not in document[1:] for document in read)


# ---- each field of a recipe ----------------------------------------------------------------

START = replace(RECIPE, steps=4, batch=4, warmup_steps=1, max_tokens=32)
CHANGES = {  # of each field: another value, and all that it changes
    "steps": (6, {"sequences", "rates"}),
    "max_tokens": (48, {"sequences", "length"}),
    "learning_rate": (0.01, {"rates"}),
    "rank": (4, {"rank", "alpha", "start"}),
    "warmup_steps": (2, {"rates"}),
    "packed": (False, {"sequences"}),
    "source": ("elsewhere", {"sequences"}),
    "batch": (8, {"sequences", "batch"}),
    "dropout": (0.5, {"dropout masks"}),
    "seed": (1, {"sequences", "start", "dropout masks"}),
    "first_layer": (2, {"layers", "start"}),
    "decay_steps": (2, {"rates"}),
}


def texts(source: str, count: int) -> list[str]:
    letters = "abcdefgh" if source == "wheels" else "ijklmnop"
    return [letter * n for letter in letters for n in (20, 40, 60)]


def before_training(base, recipe, folder) -> dict:
    """All that a recipe decides, as it is when the first step would begin."""
    model, tokenizer = base
    ready = {}

    def look(trainer, resume_from_checkpoint):
        arguments, sequences = trainer.args, trainer.train_dataset
        modules = dict(trainer.model.named_modules())
        dropouts = [module for name, module in modules.items() if "lora_dropout." in name]
        parameters = dict(trainer.model.named_parameters())
        starts = {n: p.tolist() for n, p in parameters.items() if "lora_A" in n}
        config = trainer.model.peft_config["default"]
        ready["dropout masks"] = dropouts[0].train()(torch.ones(1000)).tolist()
        ready["layers"] = sorted(starts)
        ready["start"] = starts
        ready["rank"], ready["alpha"] = config.r, config.lora_alpha
        ready["sequences"] = [sequence["documents"] for sequence in sequences]
        ready["length"] = max(packing.real_tokens([sequence]) for sequence in sequences)
        micro_batches = arguments.gradient_accumulation_steps
        ready["batch"] = arguments.per_device_train_batch_size * micro_batches
        trainer.create_optimizer_and_scheduler(arguments.max_steps)
        ready["rates"] = []
        for _ in range(arguments.max_steps):
            ready["rates"] += trainer.lr_scheduler.get_last_lr()[:1]
            trainer.optimizer.step()
            trainer.lr_scheduler.step()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "healing_texts", texts)
        patch.setattr(training._Healing, "train", look)
        training.heal(model, tokenizer, recipe, folder / "healing", micro_batch=4)
    return ready


@pytest.fixture(scope="module")
def ready(base, tmp_path_factory):
    return before_training(base, START, tmp_path_factory.mktemp("start"))


@pytest.mark.parametrize("field", [field.name for field in fields(training.Recipe)])
def test_a_field_of_the_recipe_changes_what_it_should_and_nothing_else(
    base, ready, tmp_path, field
):
    value, expected = CHANGES[field]
    assert getattr(START, field) != value
    other = before_training(base, replace(START, **{field: value}), tmp_path)
    assert other.keys() == ready.keys()
    assert {part for part in ready if other[part] != ready[part]} == expected


# ---- resume --------------------------------------------------------------------------------


class Killed(BaseException):
    """What no handler catches."""


@contextmanager
def killed_at(step: int):
    """Within, a healing is killed after so many steps."""

    def stop(self, args, state, control, **kwargs):
        if state.global_step == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training._Watch, "on_step_end", stop)
        yield


@pytest.mark.parametrize("step", [1, 2, 4, 5])
def test_continues_after_an_interruption(base, undisturbed, tmp_path, monkeypatch, step):
    with killed_at(step):
        healed(base, RECIPE, tmp_path)
    assert not (tmp_path / "adapter").exists()
    started = []
    real = training._newest_complete
    monkeypatch.setattr(
        training, "_newest_complete", lambda f: started.append(real(f)) or started[-1]
    )
    assert healed_bytes(base, tmp_path) == undisturbed
    expected = tmp_path / f"checkpoint-{step - 1}"
    assert started == [str(expected) if step > 1 else None]


DAMAGE = {
    "no optimizer": lambda c: (c / "optimizer.pt").unlink(),
    "no scheduler": lambda c: (c / "scheduler.pt").unlink(),
    "no RNG state": lambda c: next(c.glob("rng_state*")).unlink(),
    "half an adapter": lambda c: (c / WEIGHTS).write_bytes((c / WEIGHTS).read_bytes()[:99]),
    "empty state": lambda c: (c / "trainer_state.json").write_text(""),
    "not sealed": lambda c: (c / SEAL).unlink(),
    "another adapter": lambda c: (c / WEIGHTS).write_bytes(
        (c / WEIGHTS).read_bytes()[:-4] + b"\0\0\0\0"
    ),
}


@pytest.fixture(scope="module")
def interrupted(base, few_articles, tmp_path_factory):
    """A healing that was stopped after its fourth step: checkpoints 2 and 3 are there."""
    folder = tmp_path_factory.mktemp("interrupted")
    with killed_at(4):
        healed(base, RECIPE, folder)
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_does_not_count(base, undisturbed, interrupted, tmp_path, damage):
    folder = shutil.copytree(interrupted, tmp_path / "copy")
    assert training._newest_complete(folder) == str(folder / "checkpoint-3")
    DAMAGE[damage](folder / "checkpoint-3")
    assert training._newest_complete(folder) == str(folder / "checkpoint-2")
    assert healed_bytes(base, folder) == undisturbed


class _Evil:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("part", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_runs_no_code(base, interrupted, tmp_path, part):
    """Not even one whose seal is right."""
    folder = shutil.copytree(interrupted, tmp_path / "copy")
    checkpoint = folder / "checkpoint-3"
    torch.save(_Evil(tmp_path / "proof"), checkpoint / part)
    (checkpoint / SEAL).unlink()
    seal(checkpoint)
    with pytest.raises(pickle.UnpicklingError, match="[Ww]eights.only"):
        healed(base, RECIPE, folder)
    assert not (tmp_path / "proof").exists()


def test_kill_minus_nine(base, small, undisturbed, tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_healing import RECIPE, healed, loading, sets\n"
        f"sets._articles = lambda: {sets._articles()!r}\n"
        f"base = loading.load({small!r}, dtype='float32')\n"
        f"healed(base, RECIPE, {str(tmp_path)!r})"
    )
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    while not (tmp_path / "checkpoint-2" / SEAL).exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "healed.json").exists()
    assert healed_bytes(base, tmp_path) == undisturbed


def test_a_lost_adapter_is_trained_again(base, undisturbed, tmp_path):
    """A record next to no adapter says nothing."""
    first = healed(base, RECIPE, tmp_path)
    shutil.rmtree(first.adapter)
    assert healed_bytes(base, tmp_path) == undisturbed


def test_a_finished_healing_is_not_repeated(base, tmp_path, monkeypatch):
    """Nor one stored before it was noted whether documents are joined."""
    first = healed(base, RECIPE, tmp_path)
    monkeypatch.setattr(training, "_train", lambda *a: pytest.fail("trained again"))
    assert healed(base, RECIPE, tmp_path) == first
    assert not list(tmp_path.glob("checkpoint-*"))
    values = json.loads((tmp_path / "healed.json").read_text())
    assert values.pop("joined") is True
    (tmp_path / "healed.json").write_text(json.dumps(values))
    assert healed(base, RECIPE, tmp_path) == replace(first, joined=None)


# ---- seeds, failures, and what is left of the model ----------------------------------------


class Rates(TrainerCallback):
    """The optimizer's settings at each step."""

    def __init__(self):
        self.seen = []

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        self.seen += [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups[:1]]


@pytest.mark.parametrize(
    "changes, shares",
    [
        ({"warmup_steps": 2}, [0, 0.5, *((1 + math.cos(math.pi * i / 4)) / 2 for i in range(4))]),
        ({"warmup_steps": 1, "decay_steps": 2}, [0, 1, 1, 1, 1, 0.5]),
    ],
    ids=["cosine", "decay"],
)
def test_the_training_follows_the_recipe(base, tmp_path, changes, shares):
    """LoRA alpha is the rank; the rate rises to its peak, and falls along a cosine, or last."""
    model, tokenizer = base
    recipe, rates = replace(RECIPE, rank=4, **changes), Rates()
    sequences, _ = packing.training_sequences(tokenizer, recipe)
    with dropped(model, BLOCK), lora.new_lora(model, recipe) as wrapped:
        config = wrapped.peft_config["default"]
        training._train(wrapped, tokenizer, sequences, recipe, tmp_path, 16, callbacks=[rates])
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 4, 0.05)
    assert [rate for rate, _ in rates.seen] == pytest.approx([0.05 * s for s in shares])
    assert {decay for _, decay in rates.seen} == {0}


def test_a_longer_healing_starts_from_the_trunk_of_a_shorter_one(base, tmp_path, monkeypatch):
    """The rate is constant, then falls to 0; up to there a shorter healing is the same."""
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=count().__next__))
    longer = replace(RECIPE, steps=24, warmup_steps=1, decay_steps=8)
    shorter, rates, saved = replace(longer, steps=12, decay_steps=4), Rates(), []
    alone = healed_bytes(base, tmp_path / "alone", longer)
    assert healed(base, shorter, tmp_path / "short").status == "ok"
    with pytest.MonkeyPatch.context() as patch:
        seen = lambda *args, **kwargs: rates.seen.append(1)  # noqa: E731
        patch.setattr(training._Watch, "on_step_begin", seen)
        patch.setattr(storage, "seal", lambda folder: saved.append(folder.name) or seal(folder))
        grown = healed(base, longer, tmp_path / "long", trunk=tmp_path / "short")
    assert (grown.adapter / WEIGHTS).read_bytes() == alone and len(grown.losses) == 24
    assert len(rates.seen) == 24 - 8  # steps that were not made again, but took their second
    assert grown.seconds == 24
    assert [int(n.split("-")[1]) for n in saved if "-" in n] == [9, 12, 15, 16, 18, 21, 24]


LONGER = replace(RECIPE, warmup_steps=1, decay_steps=2)
SHORTER = replace(LONGER, steps=4, decay_steps=1)


@pytest.fixture(scope="module")
def short(base, few_articles, tmp_path_factory):
    """The folder of a healing that LONGER can start from."""
    folder = tmp_path_factory.mktemp("short") / "short"
    assert healed(base, SHORTER, folder).status == "ok"
    return folder


@pytest.mark.parametrize(
    "noted",
    [
        {},
        {"micro_batch": 8},
        {"recomputes": True},
        {"joined": False},
        {"joined": None},  # stored before it was noted
    ],
    ids=str,
)
def test_only_a_trunk_of_the_same_way_is_taken(base, short, tmp_path, monkeypatch, noted):
    """noted: what healed.json says otherwise."""
    trunk, steps = shutil.copytree(short, tmp_path / "short"), []
    values = json.loads((trunk / "healed.json").read_text())
    (trunk / "healed.json").write_text(json.dumps(values | noted))
    at_each_step(monkeypatch, lambda inputs: steps.append(1))
    longer = healed(base, LONGER, tmp_path / "long", trunk=trunk)
    assert len(longer.losses) == LONGER.steps
    assert len(steps) == LONGER.steps - (0 if noted else SHORTER.steps - SHORTER.decay_steps)


def test_healing_lowers_the_loss(base, tmp_path):
    losses = healed(base, replace(RECIPE, steps=12), tmp_path).losses
    assert sum(losses[-3:]) < sum(losses[:3])


def test_a_diverging_rate_ends_as_diverged_and_the_next_job_runs(base, undisturbed, tmp_path):
    wild = replace(RECIPE, learning_rate=1e30)
    diverged = healed(base, wild, tmp_path / "wild")
    assert (diverged.status, diverged.adapter) == ("diverged", None)
    assert len(diverged.losses) < RECIPE.steps
    assert healed_bytes(base, tmp_path / "next") == undisturbed


def test_out_of_memory_halves_the_micro_batch(base, tmp_path, monkeypatch):
    real, tried = training._train, []

    def limited(*arguments):
        tried.append(arguments[-2])
        if tried[-1] > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(*arguments)

    monkeypatch.setattr(training, "_train", limited)
    halved = healed(base, RECIPE, tmp_path / "a")
    assert (halved.status, halved.micro_batch, tried) == ("ok", 4, [16, 8, 4])
    whole = healed(base, RECIPE, tmp_path / "b", micro_batch=4)
    assert whole.losses == halved.losses


def test_less_and_less_memory_the_quickest_way_first():
    """Recomputing many sequences before reading one without, and one recomputed last."""
    expected = [(16, False), (8, False), (4, False), (2, False), (16, True), (8, True)]
    assert memory_fallbacks(16) == [*expected, (1, False), (4, True), (2, True), (1, True)]
    assert memory_fallbacks(2) == [(2, False), (1, False), (2, True), (1, True)]


@pytest.mark.parametrize("packed", [True, False])
def test_trying_the_longest_micro_batch_changes_no_bit(base, tmp_path, monkeypatch, packed):
    """Also where training resumes. On a CPU it is not tried, unless this test says so."""
    recipe, read = replace(RECIPE, packed=packed), []
    expected = healed_bytes(base, tmp_path / "untried", recipe)
    monkeypatch.setattr(training, "_raises", lambda device: True)
    at_each_step(monkeypatch, lambda inputs: read.append(inputs["input_ids"].numel()))
    assert healed_bytes(base, tmp_path / "tried", recipe) == expected
    assert len(read) == recipe.steps + 1 and read[0] == max(read[1:])
    with killed_at(4):
        healed(base, recipe, tmp_path / "resumed")
    assert healed_bytes(base, tmp_path / "resumed", recipe) == expected


def test_memory_that_would_end_late_ends_before_the_first_step(base, tmp_path, monkeypatch):
    """A long document comes last: the micro-batch that has no room for it makes no step."""
    recipe, steps = replace(RECIPE, packed=False, max_tokens=64), []
    real = packing.training_sequences

    def longest_last(*arguments):
        sequences, epochs = real(*arguments)
        return sorted(sequences, key=lambda s: packing.real_tokens([s])), epochs

    def limited(inputs):
        if inputs["input_ids"].numel() > 500:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(packing, "training_sequences", longest_last)
    expected = healed(base, recipe, tmp_path / "alone", micro_batch=4)
    step = lambda self, args, state, *rest, **kwargs: steps.append(state.global_step)  # noqa: E731
    monkeypatch.setattr(training._Watch, "on_step_end", step)
    at_each_step(monkeypatch, limited)
    monkeypatch.setattr(training, "_raises", lambda device: True)
    result = healed(base, recipe, tmp_path / "limited")
    assert (result.micro_batch, result.recomputes) == (4, False)
    assert steps == list(range(1, recipe.steps + 1))
    assert result.losses == expected.losses


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2 GiB",
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    ],
)
def test_whatever_lacks_memory_is_tried_with_less(base, tmp_path, monkeypatch, message):
    tried = []

    def fails(*arguments):
        tried.append(arguments[-2:])
        raise RuntimeError(message)

    monkeypatch.setattr(training, "_train", fails)
    result = healed(base, RECIPE, tmp_path)
    assert (result.status, result.adapter) == ("oom", None)
    assert tried == memory_fallbacks(16)
    message = "mat1 and mat2 shapes cannot be multiplied"
    with pytest.raises(RuntimeError, match="shapes"):
        healed(base, RECIPE, tmp_path)


@pytest.mark.parametrize("gpus", [1, 8])
def test_a_step_is_the_batch_however_many_gpus_there_are(base, tmp_path, monkeypatch, gpus):
    """Trainer multiplies the batch and the loss by the number of GPUs that torch sees."""
    sizes = []
    recipe = replace(RECIPE, steps=3)
    alone = healed(base, recipe, tmp_path / "cpu", micro_batch=4).losses
    real = training.TrainingArguments
    monkeypatch.setattr(training, "TrainingArguments", lambda **k: real(**k | {"use_cpu": False}))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    at_each_step(monkeypatch, lambda inputs: sizes.append(inputs["input_ids"].numel()))
    losses = healed(base, recipe, tmp_path / "gpus", micro_batch=4).losses
    assert sizes == [4 * recipe.max_tokens] * (3 * recipe.batch // 4)
    assert losses == alone


def test_determinism_is_torchs_and_only_for_the_training(base, tmp_path, monkeypatch):
    """Environment variables that CUDA has read by then stay; so do torch's settings."""
    monkeypatch.delenv("CUDA_LAUNCH_BLOCKING", raising=False)
    settings, inside = _settings(), []
    at_each_step(monkeypatch, lambda inputs: inside.append(_settings()))
    healed(base, replace(RECIPE, steps=1), tmp_path)
    assert set(inside) == {(True, False, True, False)}
    assert _settings() == settings and not settings[0]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert "CUDA_LAUNCH_BLOCKING" not in os.environ


def _settings() -> tuple[bool, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )


def test_the_model_comes_back_whole(base, tmp_path, monkeypatch, ids):
    model, _ = base
    modules, config = dict(model.named_modules()), model.config.to_dict()
    flags = [p.requires_grad for p in model.parameters()]
    before = model(ids).logits
    healed(base, RECIPE, tmp_path / "fine")

    def broken(*arguments):
        raise ValueError("inside")

    monkeypatch.setattr(training, "_train", broken)
    with pytest.raises(ValueError, match="inside"):
        healed(base, RECIPE, tmp_path / "broken")
    assert dict(model.named_modules()) == modules
    assert model.config.to_dict() == config
    assert [p.requires_grad for p in model.parameters()] == flags
    assert not model.training and not hasattr(model, "peft_config")
    assert torch.equal(model(ids).logits, before)


# ---- adapters ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", architectures("bloom", "gpt2", *EXPERTS))
def test_saved_adapter_on_the_base_pruned_again(name, tmp_path, ids):
    """Adapters are stored in the pruned numbering: prune the same way, then attach.

    The whole model, and another cut of the same size, would take it, too: they are refused.
    """
    model = tiny(name)
    with dropped(model, Block(1, 3)), lora.new_lora(model, RECIPE) as wrapped:
        random_adapter(wrapped, std=0.3)
        wrapped.eval()
        expected = wrapped(ids).logits
        lora.save(wrapped, tmp_path / "adapter")
    again = tiny(name)
    with dropped(again, Block(1, 3)), lora.load_lora(again, tmp_path / "adapter"):
        assert torch.equal(again(ids).logits, expected)
    with dropped(model, Block(1, 3)):
        assert not torch.equal(model(ids).logits, expected)
    for block in (Block(0, 0), Block(2, 3)):
        with dropped(again, block), pytest.raises(ValueError, match="healed a model of"):
            with lora.load_lora(again, tmp_path / "adapter"):
                pass


def test_merged_checkpoint_to_take_away(small, tmp_path, ids):
    """Merged while the block is dropped; saved without it afterwards."""
    model, tokenizer = base = loading.load(small, dtype="float32")  # its own: it is changed
    adapter = healed(base, RECIPE, tmp_path / "healing").adapter
    with dropped(model, BLOCK), lora.load_lora(model, adapter):
        expected = model(ids).logits
    with dropped(model, BLOCK):
        lora.merge(model, adapter)
    folder = save_pruned(model, tokenizer, BLOCK, tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(folder).to(DEVICE).eval()
    torch.testing.assert_close(plain(ids).logits, expected, atol=1e-4, rtol=1e-4)
    part, _ = loading.load(small, dtype="float32", block=BLOCK)
    with lora.load_lora(part, adapter):
        assert torch.equal(part(ids).logits, expected)
    with lora.load_lora(plain, adapter):  # the same layers, too
        assert not torch.equal(plain(ids).logits, expected)
