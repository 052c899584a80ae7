"""Healing: the recipe followed, resumed byte for byte, and a model that comes back whole."""

import copy
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import weakref
from contextlib import ExitStack
from dataclasses import replace
from itertools import count, cycle
from types import SimpleNamespace

import pytest
import torch
from conftest import LAYERS, tiny
from filelock import FileLock, Timeout
from healings import BLOCK, RECIPE, START, WEIGHTS, Killed, heal, killed_at, weights
from peft import PeftConfig
from torch import nn

from lib.blocks import UNPRUNED, Block
from lib.data import sets
from lib.gpu.memory import ActivationBudget
from lib.healing import linear, lora, packing, training
from lib.healing.attention import attending_with
from lib.models.decoder import residual_stream
from lib.pruning import dropped


@pytest.fixture(scope="module")
def undisturbed(base, tmp_path_factory) -> training.Healed:
    """The healing of RECIPE in one go, for all to read."""
    healed = heal(base, tmp_path_factory.mktemp("healing") / "undisturbed")
    assert healed.status == "ok" and len(healed.losses) == RECIPE.steps
    return healed


def at_each_pass(monkeypatch, note) -> None:
    """Call `note` with the inputs of each forward and backward pass of a training."""
    step = training.Trainer.training_step

    def noted(trainer, model, inputs, *rest):
        note(inputs)
        return step(trainer, model, inputs, *rest)

    monkeypatch.setattr(training.Trainer, "training_step", noted)


def randomise(wrapped, std: float) -> None:
    """Make an adapter do something: a new one adds zero."""
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=std)


# ---- what is trained -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, projections", [("llama", ("gate_proj", "up_proj", "down_proj")), ("phi", ("fc1", "fc2"))]
)
def test_only_the_ffn_is_adapted(name, projections):
    """And of a cut model the layers that are left, in their new numbering."""
    model = tiny(name)
    with dropped(model, Block(1, 3)), lora.new_lora(model, RECIPE) as wrapped:
        trained = {n for n, p in wrapped.named_parameters() if p.requires_grad}
    assert trained == {
        f"base_model.model.model.layers.{l}.mlp.{projection}.lora_{matrix}.default.weight"
        for l in range(3)
        for projection in projections
        for matrix in "AB"
    }


@pytest.mark.parametrize("memory", [math.inf, 0])
def test_no_gradient_goes_before_the_first_layer(memory, llama, tmp_path):
    """No state up to it is part of what the backward pass goes through, recomputed or not."""
    recipe = replace(RECIPE, steps=1, batch=1, warmup_steps=0, first_layer=3)
    budget = ActivationBudget(memory, 1, 2, 1, LAYERS - 3)
    needed = {}

    def note(l, x):
        needed[l] = x.requires_grad

    with lora.new_lora(llama, recipe) as wrapped, residual_stream(llama, note):
        sequences = [{"documents": [[5, 6, 7]]}]
        collate = packing.collator(False)
        training._train(wrapped, collate, sequences, recipe, tmp_path, 1, budget)
        learnt = [p.any() for n, p in wrapped.named_parameters() if "lora_B" in n]
    assert learnt and all(learnt)
    assert needed == {l: l > 3 for l in range(LAYERS + 1)}


# ---- data ----------------------------------------------------------------------------------


def test_each_epoch_has_every_document_in_an_order_of_its_own(base, monkeypatch):
    texts = [f"text {number}" for number in range(8)]
    monkeypatch.setattr(sets, "healing_texts", lambda source, count: texts)
    recipe = replace(RECIPE, steps=3, batch=8, max_tokens=32, packed=False)
    sequences, epochs = packing.training_sequences(base[1], recipe)
    documents = [tuple(sequence["documents"][0]) for sequence in sequences]
    assert len(documents) == 8 * epochs == 24
    first, second, third = documents[:8], documents[8:16], documents[16:]
    assert len(set(first)) == 8
    assert set(first) == set(second) == set(third)
    assert first != second != third != first


def test_packed_sequences_are_full(base):
    sequences, epochs = packing.training_sequences(base[1], RECIPE)
    assert len(sequences) == RECIPE.steps * RECIPE.batch
    assert 0 < epochs < 0.05
    ended = True
    for sequence in sequences:
        assert packing.real_tokens([sequence]) == RECIPE.max_tokens
        for document in sequence["documents"]:
            assert (document[0] == base[1].bos_token_id) == ended
            ended = document[-1] == base[1].eos_token_id


def test_all_documents_are_begun_before_one_goes_on(base, monkeypatch):
    """And all are read to their ends before one is begun again."""
    documents = [" ".join(map(str, range(300)))] * 2
    monkeypatch.setattr(sets, "healing_texts", lambda source, count: documents)
    recipe = replace(RECIPE, batch=1, steps=136)  # nearly all of their tokens
    one_by_one, once = packing.training_sequences(base[1], recipe)
    by_turns, epochs = packing.training_sequences(base[1], replace(recipe, beginnings_first=True))
    assert by_turns[:5:2] == one_by_one[:3]
    assert once == epochs == 1
    documents[:] = [letter * (2 * recipe.max_tokens - 2) for letter in "abc"]  # of two sequences
    recipe = replace(recipe, steps=12, beginnings_first=True)
    sequences, _ = packing.training_sequences(base[1], recipe)
    begun = [sequence["documents"][0][0] == base[1].bos_token_id for sequence in sequences]
    assert begun == 2 * [True, True, True, False, False, False]


def test_texts_shorter_than_a_sequence_are_read_again_and_chats_without_a_target_refused(
    base, monkeypatch
):
    monkeypatch.setattr(sets, "healing_texts", lambda source, count: ["a b", "c"])
    sequences, epochs = packing.training_sequences(base[1], RECIPE)
    assert {packing.real_tokens([sequence]) for sequence in sequences} == {RECIPE.max_tokens}
    assert epochs > 1
    no_target = [packing.Document([1, 2, 3], [-100] * 3)]
    monkeypatch.setattr(packing, "_in_order", lambda *_: cycle(no_target))
    with pytest.raises(ValueError, match="No answer has a token that healing reads"):
        packing.training_sequences(base[1], RECIPE)


def test_documents_are_truncated_and_padding_has_no_loss(base):
    """Each begins with the tokenizer's own token for the beginning of a text."""
    recipe = replace(RECIPE, packed=False, max_tokens=300)
    sequences = packing.training_sequences(base[1], recipe)[0][:16]
    lengths = []
    for sequence in sequences:
        (document,) = sequence["documents"]
        assert document[0] == document.count(1) == 1
        lengths.append(len(document))
    assert min(lengths) < max(lengths) == 300
    labels = packing.collator(False)(sequences)["labels"]
    assert (labels[:, 0] == -100).all()
    targets = (labels != -100).sum(1)
    assert targets.tolist() == [length - 1 for length in lengths]


# ---- each field of a recipe ----------------------------------------------------------------


CHANGES = {
    "steps": 6,
    "max_tokens": 48,
    "learning_rate": 0.01,
    "rank": 4,
    "warmup_steps": 2,
    "packed": False,
    "source": "elsewhere",
    "batch": 8,
    "dropout": 0.5,
    "seed": 1,
    "first_layer": 2,
    "all_linear": True,
    "decay_steps": 2,
    "beginnings_first": True,
    "teacher": True,
}


def texts(source: str, count: int) -> list[str]:
    """Texts of a source, of several lengths."""
    letters = "abcdefgh" if source == "wheels" else "ijklmnop"
    return [letter * length for letter in letters for length in (20, 40, 60)]


def test_no_field_of_the_recipe_is_ignored(base, tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "healing_texts", texts)
    assert CHANGES.keys() == vars(RECIPE).keys()
    unchanged = weights(heal(base, tmp_path / "unchanged", START))
    for field, value in CHANGES.items():
        changed = heal(base, tmp_path / field, replace(START, **{field: value}))
        assert weights(changed) != unchanged, field


@pytest.mark.parametrize(
    "changes, shares",
    [
        ({"warmup_steps": 2}, [0, 0.5, *((1 + math.cos(math.pi * i / 4)) / 2 for i in range(4))]),
        ({"warmup_steps": 1, "decay_steps": 2}, [0, 1, 1, 1, 1, 0.5]),
    ],
)
def test_the_rate_rises_to_its_peak_and_falls_along_a_cosine_or_last(
    base, tmp_path, monkeypatch, changes, shares
):
    """Without weight decay, and with an alpha equal to the rank."""
    rates, decays, step = [], set(), training.Trainer.training_step

    def noted(trainer, *arguments):
        groups = trainer.optimizer.param_groups
        rates.append(groups[0]["lr"])
        decays.update(group["weight_decay"] for group in groups)
        return step(trainer, *arguments)

    monkeypatch.setattr(training.Trainer, "training_step", noted)
    healed = heal(base, tmp_path, replace(START, steps=6, **changes))
    assert rates == pytest.approx([START.learning_rate * share for share in shares])
    assert decays == {0}
    config = json.loads((healed.adapter / "adapter_config.json").read_text())
    assert config["lora_alpha"] == config["r"] == START.rank


# ---- a teacher -----------------------------------------------------------------------------


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("mapped", [True, False])
def test_a_teacher_is_the_whole_model_and_the_gradient_that_of_its_distribution(
    llama, joined, mapped
):
    """Against another whole model, and softmax(student) - softmax(whole) at each target."""
    whole_model, recipe = copy.deepcopy(llama), replace(RECIPE, dropout=0.5)
    change = 0.3 * torch.randn(llama.config.hidden_size, llama.config.hidden_size)
    sequence = {"documents": [[5, 6, 7, 8], [9, 10, 11]]}
    sequence["labels"] = [[5, 6, -100, 8], [-100, -100, 11]]
    targets = [(0, 0), (0, 2), (1, 1)]  # document and place of what predicts 6, 8 and 11
    with ExitStack() as stack:
        whole = stack.enter_context(dropped(llama, BLOCK))
        if mapped:
            linear.add_map_hook(llama, BLOCK, change)
        wrapped = stack.enter_context(lora.new_lora(llama, recipe))
        randomise(wrapped, std=0.3)
        wrapped.train()
        if joined:
            stack.enter_context(attending_with(llama))
        batch = packing.collator(joined)([sequence])
        labels = batch.pop("labels")
        trained = [p for p in wrapped.parameters() if p.requires_grad]

        def student() -> torch.Tensor:
            torch.manual_seed(0)  # of dropout
            logits = wrapped(**batch).logits
            rows = logits[0].split([4, 3]) if joined else logits
            return torch.stack([rows[document][place] for document, place in targets])

        logits = student()
        documents = [torch.tensor([ids]) for ids in sequence["documents"]]
        expected = torch.stack(
            [whole_model(documents[document]).logits[0, place] for document, place in targets]
        ).softmax(-1)
        gradients = torch.autograd.grad(logits, trained, (logits.softmax(-1) - expected) / 5)

        teacher = training.Teacher(wrapped, whole)
        torch.manual_seed(0)
        outputs = wrapped(**batch)
        loss = teacher.loss(outputs, labels, torch.tensor(5))
        found = torch.autograd.grad(loss, trained)
        assert wrapped.training and all(layer.training for layer in llama.model.layers)
        assert trained == [p for p in wrapped.parameters() if p.requires_grad]
    for gradient, other in zip(gradients, found, strict=True):
        torch.testing.assert_close(other, gradient, atol=1e-6, rtol=1e-4)
    divergence = (expected * (expected.log() - logits.log_softmax(-1))).sum() / 5
    assert loss.item() == pytest.approx(divergence.item(), rel=1e-4)
    assert not any(module.training for module in llama.modules())
    if not mapped:
        ids = documents[0]
        assert torch.equal(llama(ids).logits, whole_model(ids).logits)


def test_a_healing_with_a_teacher_nears_the_whole_model_and_resumes(base, tmp_path):
    recipe = replace(RECIPE, teacher=True)
    healed = heal(base, tmp_path / "alone", recipe)
    assert min(healed.losses) >= 0 and healed.losses[-1] < healed.losses[0]
    with killed_at(4):
        heal(base, tmp_path / "killed", recipe)
    resumed = heal(base, tmp_path / "killed", recipe)
    assert weights(resumed) == weights(healed) and resumed.losses == healed.losses
    with pytest.raises(ValueError, match="give heal what `dropped` yields"):
        heal(base, tmp_path / "none", recipe, whole=None)


# ---- resume --------------------------------------------------------------------------------


def test_continues_after_an_interruption(base, undisturbed, tmp_path, monkeypatch):
    """And counts the seconds before it: 100 a step."""
    with killed_at(4), monkeypatch.context() as patch:
        patch.setattr(training, "time", SimpleNamespace(monotonic=count(step=100).__next__))
        heal(base, tmp_path)
    assert not (tmp_path / "adapter").exists()
    passes = []
    at_each_pass(monkeypatch, passes.append)
    healed = heal(base, tmp_path)
    assert len(passes) == RECIPE.steps - 3
    assert weights(healed) == weights(undisturbed)
    assert healed.losses == undisturbed.losses
    assert healed.seconds > 3 * 100


KILL = """
import os, sys
sys.path.insert(0, "tests")
from lib.models import loading
from healings import heal, training

def kill(self, args, state, control, **kwargs):
    if state.global_step == 4:
        os.kill(os.getpid(), 9)

training.CheckpointCallback.on_step_end = kill
heal(loading.load({model!r}, dtype="float32"), {folder!r})
"""


DAMAGE = {
    "incomplete": lambda newest: (newest / training.COMPLETE).unlink(),
    "without its optimizer": lambda newest: (newest / "optimizer.pt").unlink(),
    "another adapter": lambda newest: (newest / WEIGHTS).write_bytes(
        (newest / WEIGHTS).read_bytes()[:-4] + bytes(4)
    ),
}


def test_kill_minus_nine_and_a_damaged_checkpoint(base, small, undisturbed, tmp_path):
    killed = tmp_path / "killed"
    code = KILL.format(model=small, folder=str(killed))
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([sys.executable, "-c", code], env=environment)
    assert done.returncode == -signal.SIGKILL
    assert not (killed / "healed.json").exists()
    assert training._newest_complete(killed) == str(killed / "checkpoint-3")
    for name, damage in DAMAGE.items():
        folder = shutil.copytree(killed, tmp_path / name)
        damage(folder / "checkpoint-3")
        assert training._newest_complete(folder) == str(folder / "checkpoint-2"), name
    assert weights(heal(base, folder)) == weights(undisturbed)


def test_a_kill_loses_a_quarter_of_an_hour_at_most(base, tmp_path, monkeypatch):
    """However many steps there are; a step takes 400 s by this clock. Two checkpoints are kept."""
    clock, saved = SimpleNamespace(now=0), [0]
    on_save = training.CheckpointCallback.on_save

    def note_save(self, args, *rest, **kwargs):
        on_save(self, args, *rest, **kwargs)
        saved.append(clock.now)
        assert len(list(tmp_path.glob("checkpoint-*"))) <= 2

    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(training, "CHECKPOINTS", 1)
    monkeypatch.setattr(training.CheckpointCallback, "on_save", note_save)
    at_each_pass(monkeypatch, lambda inputs: setattr(clock, "now", clock.now + 400))
    healed = heal(base, tmp_path, replace(START, steps=10))
    assert healed.seconds == 10 * 400
    assert saved == [0, 1200, 2400, 3600, 4000]


def test_a_folder_that_has_another_healing_is_refused(base, tmp_path):
    """Of another recipe, of another number of layers, or of others; an older note names none."""
    healed = heal(base, tmp_path)
    with pytest.raises(ValueError, match="a healing of another recipe"):
        heal(base, tmp_path, replace(RECIPE, rank=RECIPE.rank + 1))
    for other in (UNPRUNED, Block(BLOCK.start + 1, BLOCK.size)):
        with (
            pytest.raises(ValueError, match="a healing of .* other layers"),
            dropped(base[0], other),
        ):
            training.heal(*base, RECIPE, tmp_path)
    note = json.loads((tmp_path / training.BEGUN).read_text())
    del note["kept"]
    (tmp_path / training.BEGUN).write_text(json.dumps(note))
    assert heal(base, tmp_path) == healed


def test_one_process_at_a_time_heals_into_a_folder(base, tmp_path, monkeypatch):
    """Another would wait, and take what it left."""

    def note(*arguments):
        with pytest.raises(Timeout), FileLock(tmp_path / "adapter.lock", timeout=0):
            pass
        raise Killed

    monkeypatch.setattr(training, "_heal_within_memory", note)
    with pytest.raises(Killed):
        heal(base, tmp_path / "adapter")


# ---- failures, memory, and what is left of the model ---------------------------------------


def test_a_diverging_rate_ends_as_diverged_and_the_next_job_runs(base, undisturbed, tmp_path):
    wild = replace(RECIPE, learning_rate=1e30)
    diverged = heal(base, tmp_path / "wild", wild)
    assert diverged.status == "diverged"
    assert diverged.adapter is None
    assert len(diverged.losses) < RECIPE.steps
    following = heal(base, tmp_path / "next")
    assert weights(following) == weights(undisturbed)


def test_what_lacks_memory_is_tried_with_less(base, tmp_path, monkeypatch):
    """And nothing of an earlier try is held then."""
    tried, adapters = [], []

    def fails(*arguments):
        assert all(adapter() is None for adapter in adapters)
        numbers = [p for p in arguments[0].parameters() if p.requires_grad]
        adapters.extend(map(weakref.ref, numbers))
        tried.append(arguments[5])
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")

    monkeypatch.setattr(training, "_train", fails)
    healed = heal(base, tmp_path)
    assert (healed.status, healed.adapter) == ("oom", None)
    assert tried == [8, 4, 2, 1]


@pytest.mark.parametrize(
    "batch, fitting, micro",
    [(4, 16, 4), (14, 16, 14), (14, 6, 2), (16, 16, 16), (16, 6, 4), (17, 16, 1), (20, 16, 10)]
    + [(20, 6, 5), (24, 16, 12), (40, 16, 10)],
)
def test_a_step_reads_its_batch(base, tmp_path, monkeypatch, batch, fitting, micro):
    """Whatever its divisors, where memory ends beyond `fitting` sequences, and on many GPUs.

    Trainer multiplies the batch by the number of GPUs that torch sees.
    """
    recipe, read = replace(RECIPE, steps=2, batch=batch, max_tokens=8), []

    def note(inputs):
        if inputs["input_ids"].numel() > 8 * fitting:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")
        read.append(inputs["input_ids"].numel())

    at_each_pass(monkeypatch, note)
    real = training.TrainingArguments
    monkeypatch.setattr(training, "TrainingArguments", lambda **k: real(**k | {"use_cpu": False}))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    tokens = heal(base, tmp_path, recipe).real_tokens
    assert read == [8 * micro] * (2 * batch // micro)
    assert sum(read) == tokens == 8 * 2 * batch


def test_a_resumed_healing_keeps_its_micro_batch_or_warns(base, tmp_path, monkeypatch, caplog):
    """Also where there is room for more; where there is less, no step is made again."""
    recipe, sizes = replace(RECIPE, steps=3), []
    with killed_at(2):
        heal(base, tmp_path / "same", recipe, micro_batch=4)
    shutil.copytree(tmp_path / "same", tmp_path / "smaller")
    assert heal(base, tmp_path / "same", recipe).micro_batch == 4
    assert not caplog.records

    def note(inputs):
        sizes.append(inputs["input_ids"].numel() // recipe.max_tokens)
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    at_each_pass(monkeypatch, note)
    healed = heal(base, tmp_path / "smaller", recipe)
    assert (healed.status, healed.micro_batch) == ("ok", 2)
    assert sizes == [4] + [2] * (2 * recipe.batch // 2)
    assert "Memory ended with 4 sequences at a time." in caplog.messages


def test_model_and_settings_come_back_as_they_were(base, tmp_path, monkeypatch, ids):
    """Also after an error. Determinism is torch's, and for the training only; nothing is filled."""

    def deterministic() -> tuple[bool, bool]:
        fills = torch.utils.deterministic.fill_uninitialized_memory
        return torch.are_deterministic_algorithms_enabled(), fills

    def state() -> tuple:
        flags = [(name, p.requires_grad) for name, p in model.named_parameters()]
        config = model.config.to_dict(), model.config._attn_implementation
        attributes = model.training, hasattr(model, "peft_config"), config
        return dict(model.named_modules()), flags, attributes, deterministic(), dict(os.environ)

    def fail(inputs):
        assert deterministic() == (True, False)
        raise ValueError("inside")

    model, _ = base
    heal(base, tmp_path / "warm", replace(RECIPE, steps=1))  # Trainer sets variables of its own
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    before, logits = state(), model(ids).logits
    heal(base, tmp_path / "fine", replace(RECIPE, steps=1))
    assert state() == before
    at_each_pass(monkeypatch, fail)
    with pytest.raises(ValueError, match="inside"):
        heal(base, tmp_path / "broken")
    assert state() == before and not deterministic()[0]
    assert torch.equal(model(ids).logits, logits)


# ---- adapters ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_an_adapter_is_merged_in_fp32_and_rounded_once(name, tmp_path):
    """Into weights in bf16, which are transposed in GPT-2."""
    half, exact = tiny(name).bfloat16(), tiny(name)
    exact.load_state_dict(half.state_dict())
    with lora.new_lora(exact, RECIPE) as wrapped:
        randomise(wrapped, std=0.01)
        lora.save(wrapped, tmp_path / "adapter")
    for model in (half, exact):
        lora.merge(model, tmp_path / "adapter")
    for path, parameter in half.named_parameters():
        assert torch.equal(parameter, exact.get_parameter(path).bfloat16()), path


@pytest.mark.parametrize(
    "changes, sentence",
    [({"first_layer": LAYERS}, "no layer 6 to heal"), ({"all_linear": True}, "every layer")],
)
def test_layers_that_cannot_be_healed_are_one_sentence(changes, sentence, llama):
    recipe = replace(RECIPE, **{"first_layer": 3} | changes)
    with pytest.raises(ValueError, match=sentence), lora.new_lora(llama, recipe):
        pass


def test_saved_adapter_on_the_base_pruned_again(llama, tmp_path, ids):
    """Adapters are stored in the pruned numbering: prune the same way, then attach.

    The whole model, and another cut of the same size, would take it, too: they are refused.
    """
    llama.name_or_path = "whole"
    with dropped(llama, Block(1, 3)), lora.new_lora(llama, RECIPE) as wrapped:
        randomise(wrapped, std=0.3)
        wrapped.eval()
        expected = wrapped(ids).logits
        lora.save(wrapped, tmp_path / "adapter")
    # peft would load a model that is named there, which has the layers that were dropped
    assert PeftConfig.from_pretrained(tmp_path / "adapter").base_model_name_or_path is None
    again = tiny("llama")
    with dropped(again, Block(1, 3)), lora.load_lora(again, tmp_path / "adapter"):
        assert torch.equal(again(ids).logits, expected)
    with dropped(llama, Block(1, 3)):
        assert not torch.equal(llama(ids).logits, expected)
    for block in (Block(0, 0), Block(2, 3)):
        with dropped(again, block), pytest.raises(ValueError, match="healed a model of"):
            with lora.load_lora(again, tmp_path / "adapter"):
                pass
