"""Heal a pruned model: a short LoRA fine-tune of its FFN projections on C4 (the paper's QLoRA).

HF Trainer and peft do the work. This module fixes the recipe, the order of the data, what counts
as a complete checkpoint, and that the model comes back as it was.
"""

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate.utils import AutocastKwargs
from accelerate.utils.memory import clear_device_cache
from filelock import FileLock
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import Trainer, TrainingArguments
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.trainer_callback import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerState,
)
from transformers.trainer_utils import get_last_checkpoint

from .. import storage
from ..models.decoder import check_tokens, decoder_layers
from ..models.machine import is_out_of_memory
from . import lora, packing
from .attention import attending_with, can_join_documents, isolated_documents
from .recipe import Recipe

MICRO_BATCH = 16  # sequences at a time, at most
WATCHED = 4  # times on its way, and before it, the loss of held-out texts is measured
CHECKPOINTS = 8  # a healing leaves this many on its way,
SECONDS = 15 * 60  # and one each time that so many have passed: a machine may be taken away
BEGUN = "recipe.json"  # of a healing that has begun: its recipe, and the layers of its model
HELD_OUT = "held_out"  # in an entry of a training's history: the loss of held-out texts
STATE = "trainer_state.json"  # in a checkpoint: steps, losses, sequences at a time
COMPLETE = "complete"  # a file in a checkpoint, written last: the digests of all others

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Healed:
    """The result of a healing. status: "ok", "diverged" (loss not finite) or "oom"."""

    adapter: Path | None  # a peft adapter, in the numbering of the pruned model
    losses: list[float]  # training loss of each step in nats, where it is finite
    status: str
    micro_batch: int
    epochs: float  # how often the documents were read
    real_tokens: int  # tokens trained on, padding not counted
    seconds: float = 0.0  # of all steps, also those of earlier calls
    joined: bool | None = None  # documents in one row, or padded; None: stored before it was noted
    targets: int | None = None  # tokens that count in the loss: of chats those of answers
    held_out: Sequence = ()  # [steps, loss] of held-out texts, before the first step and on the way


def heal(
    model,
    tokenizer,
    recipe: Recipe,
    folder: str | Path,
    micro_batch: int = MICRO_BATCH,
    held_out_loss: Callable[[], float] | None = None,
    whole: Callable[[], AbstractContextManager] | None = None,
) -> Healed:
    """Fine-tune LoRA adapters of a model, of a pruned one within `pruning.dropped`, into `folder`.

    The documents of a micro-batch are read in one row, each for itself (`healing.attention`); where
    a model cannot do that, padded. Resumes from the newest complete checkpoint in `folder`, if a
    call was interrupted there. Where memory ends, it goes on with fewer sequences at a time; the
    batch of a step stays. The model comes back without adapter, also after an error. A second
    process that is to heal into the same folder waits, and takes what the first one left.
    micro_batch: the most sequences at a time; only divisors of the batch are tried.
    held_out_loss: measures the model on texts that are not trained on, before the first step and
    WATCHED times on the way. Each result is printed in a line, and changes nothing.
    whole: what `pruning.dropped` yields; a recipe with a teacher needs it.
    Raises ValueError for a folder that has a healing of another recipe, or of other layers, and for
    a teacher without `whole`.
    """
    folder = Path(folder)
    if recipe.teacher and whole is None:
        raise ValueError("A teacher is the whole model: give heal what `dropped` yields, as whole.")
    whole = whole if recipe.teacher else None
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        _check_begun(model, recipe, folder)
        if finished := _load_result(folder):
            return finished
        watches = [HeldOut(model, held_out_loss, recipe.steps)] if held_out_loss else []
        documents = isolated_documents(model, recipe.max_tokens)
        if not _teacher_can_join(model, recipe, whole):
            documents = nullcontext(False)
        with documents as joined:
            healed = _heal_within_memory(
                model, tokenizer, recipe, folder, micro_batch, joined, watches, whole
            )
        if healed.status != "oom":  # with more memory it resumes from its checkpoints
            _save_result(folder, healed)
        return healed


def _teacher_can_join(model, recipe: Recipe, whole: Callable | None) -> bool:
    """Return whether the teacher, if there is one, can read several documents in one row.

    The block that is back in it may have other kinds of layers than the rest.
    """
    if not whole:
        return True
    with whole():
        return can_join_documents(model, recipe.max_tokens)


def _check_begun(model, recipe: Recipe, folder: Path) -> None:
    """Note what is healed into a folder. Raises ValueError if something else was."""
    kept = lora.kept_layers(model)
    begun = asdict(recipe) | {"layers": len(kept), "kept": kept}
    file = folder / BEGUN
    # an older note lacks fields that came later
    if file.exists() and begun | json.loads(file.read_text()) != begun:
        raise ValueError(
            f"{folder} has a healing of another recipe, or of other layers: choose another folder."
        )
    folder.mkdir(exist_ok=True)
    storage.atomic_write(file, json.dumps(begun).encode())


# ---- training ------------------------------------------------------------------------------


def _heal_within_memory(
    model, tokenizer, recipe: Recipe, folder: Path, micro_batch: int, joined: bool, watches, whole
) -> Healed:
    """Train, with fewer sequences at a time as long as memory runs out.

    A smaller micro-batch draws other dropout masks: the recipe is the same, the adapter differs as
    another seed's would. So a resumed healing keeps its own.
    """
    if not joined:
        log.warning("%s cannot keep joined documents apart: rows are padded.", type(model).__name__)
    sequences, epochs = packing.training_sequences(tokenizer, recipe)
    check_tokens(model, (ids for sequence in sequences for ids in sequence["documents"]))
    collate = packing.collator(joined)
    history, status, adapter, budget = [], "oom", None, None
    if model.device.type != "cpu":
        budget, micro_batch = _fit_to_gpu(model, recipe, micro_batch)
    most = _resumed_micro_batch(folder) or micro_batch
    for micro in packing.micro_batches(recipe.batch, most):
        try:
            with lora.new_lora(model, recipe) as wrapped:
                history = _train(
                    wrapped, collate, sequences, recipe, folder, micro, budget, watches, whole
                )
                status = "ok"
                if not all(math.isfinite(entry.get("loss", 0.0)) for entry in history):
                    status = "diverged"
                else:
                    adapter = lora.save(wrapped, folder / "adapter")
            break
        except RuntimeError as error:
            if not is_out_of_memory(str(error)):
                raise
            # the next try begins outside of this `except`: until it is left, the error holds the
            # frames that failed, and with them their tensors
            log.warning("Memory ended with %d sequences at a time.", micro)
        clear_device_cache(garbage_collection=True)  # of the adapter and its gradients
    steps = [entry for entry in history if "loss" in entry]
    return Healed(
        adapter,
        losses=[step["loss"] for step in steps if math.isfinite(step["loss"])],
        status=status,
        micro_batch=micro,
        epochs=epochs,
        real_tokens=packing.real_tokens(sequences),
        seconds=sum(step.get("seconds", 0) for step in steps),
        joined=joined,
        targets=packing.targets(sequences),
        held_out=[[entry["step"], entry[HELD_OUT]] for entry in history if HELD_OUT in entry],
    )


def _fit_to_gpu(model, recipe: Recipe, micro_batch: int):
    """Return the budget of a GPU for activations, and how many sequences it reads at a time."""
    from .. import counting
    from ..gpu import memory

    costs, free = counting.layer_costs(model.config), memory.free_memory(model.device)
    num_layers = len(decoder_layers(model))
    element, models = model.dtype.itemsize, 1 + recipe.teacher
    budget = memory.activation_budget(costs, free, recipe.rank, num_layers, element, models)
    return budget, min(micro_batch, memory.MICRO_BATCH)


def _loss(outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """Return the loss of a micro-batch: its sum over the targets of the whole step, in nats.

    So the micro-batches of a step add up to the mean over its targets, however it is split. Not
    every model's own loss does: some know no more than their micro-batch, and take its mean.
    """
    logits = outputs.logits
    return ForCausalLMLoss(logits, labels, logits.shape[-1], num_items_in_batch)


class Teacher:
    """The whole model's next-token distribution as what a healing learns: knowledge distillation.

    The weights are the student's own: before it reads a micro-batch, the same tokens are read with
    all layers, without adapter, dropout and gradient.
    """

    def __init__(self, wrapped, whole: Callable[[], AbstractContextManager]):
        self.wrapped, self.whole, self.logits = wrapped, whole, None
        wrapped.register_forward_pre_hook(self.read, with_kwargs=True)

    @torch.no_grad()
    def read(self, wrapped, args, kwargs) -> None:
        """Note the whole model's logits of what the student is about to read."""
        model = wrapped.get_base_model()
        with wrapped.disable_adapter(), self.whole():
            training = [module for module in model.modules() if module.training]
            model.eval()
            self.logits = model(*args, **kwargs | {"use_cache": False}).logits
        for module in training:
            module.training = True

    def loss(self, outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
        """Return KL(whole || student), over the same targets as `_loss`, in nats and fp32."""
        counts = labels[:, 1:] != -100
        logprobs = [
            logits[:, :-1][counts].float().log_softmax(-1)
            for logits in (outputs.logits, self.logits)
        ]
        self.logits = None
        divergence = functional.kl_div(*logprobs, reduction="sum", log_target=True)
        return divergence / num_items_in_batch


class CheckpointCallback(ProgressCallback):
    """Saves in time, marks complete checkpoints, times steps, shows progress, stops at NaN."""

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self.last = self.saved = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        super().on_step_end(args, state, control, **kwargs)
        control.should_save |= time.monotonic() - self.saved >= SECONDS

    def on_save(self, args, state, control, **kwargs):
        self.saved = time.monotonic()
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        storage.chmod_readable(checkpoint)
        # last: a kill before this leaves what does not count
        storage.atomic_write(checkpoint / COMPLETE, _digests(checkpoint).encode())

    def on_log(self, args, state, control, logs, **kwargs):
        before, self.last = self.last, time.monotonic()
        state.log_history[-1]["seconds"] = self.last - before  # a checkpoint keeps it
        if not math.isfinite(logs.get("loss", 0.0)):
            control.should_training_stop = True


class HeldOut(TrainerCallback):
    """Measures the loss of held-out texts on the way; the history in a checkpoint keeps it.

    Adapters and the draws of dropout are as without it: nothing is drawn, and no gradient kept.
    The model reads with its own attention, since that within documents knows no cache.
    """

    def __init__(self, model, loss: Callable[[], float], steps: int):
        self.model, self.loss = model, loss
        self.attention = model.config._attn_implementation
        self.at = {round(steps * part / WATCHED) for part in range(1, WATCHED + 1)}

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.global_step:
            self._note(state)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in self.at:
            self._note(state)

    def _note(self, state):
        training = self.model.training
        self.model.eval()
        with attending_with(self.model, self.attention):
            value = self.loss()
        self.model.train(training)
        state.log_history.append({"step": state.global_step, HELD_OUT: value})
        tqdm.write(f"{state.global_step} of {state.max_steps} steps: held-out loss {value:.3f}")


def _train(
    wrapped, collate, sequences, recipe, folder, micro_batch, budget=None, watches=(), whole=None
) -> list[dict]:
    """Train from the newest complete checkpoint on; return the history.

    Of each step it has loss and seconds, and of held-out texts step and loss.

    collate: makes a batch of sequences (`packing.collator`).
    budget: a GPU's, for activations (`gpu.memory.ActivationBudget`).
    watches: a HeldOut, if texts are watched.
    whole: of a teacher, as in `heal`.
    """
    model, recomputing = wrapped.get_base_model(), nullcontext()
    if budget:
        from ..gpu import memory

        recomputing = memory.recomputing(model, budget)
    with recomputing, _deterministic():
        trainer = Trainer(
            model=wrapped,
            args=_training_arguments(recipe, folder, micro_batch, model),
            train_dataset=sequences,
            data_collator=collate,
            compute_loss_func=Teacher(wrapped, whole).loss if whole else _loss,
            callbacks=[CheckpointCallback(), *watches],
        )
        trainer.remove_callback(PrinterCallback)  # of each loss
        # in fp16; it would compute norms in fp32. The adapters multiply in 16 bits by themselves
        trainer.accelerator.autocast_handler = AutocastKwargs(enabled=False)
        trainer.train(resume_from_checkpoint=_newest_complete(folder))
    return trainer.state.log_history


def _training_arguments(recipe: Recipe, folder: Path, micro_batch: int, model):
    """In fp16 the loss is scaled, so that small gradients are not 0; on a CPU Trainer cannot."""
    decay, on_cpu = recipe.decay_steps, model.device.type == "cpu"
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=recipe.steps,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=recipe.batch // micro_batch,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="warmup_stable_decay" if decay else "cosine",
        lr_scheduler_kwargs={"num_decay_steps": decay, "decay_type": "linear"} if decay else {},
        warmup_steps=recipe.warmup_steps,
        seed=recipe.seed,
        train_sampling_strategy="sequential",  # `packing` has fixed the order
        save_steps=max(1, recipe.steps // CHECKPOINTS),
        save_total_limit=2,
        logging_steps=1,
        disable_tqdm=True,  # CheckpointCallback has a bar
        logging_nan_inf_filter=False,
        fp16=model.dtype == torch.float16 and not on_cpu,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        accelerator_config={"non_blocking": not on_cpu},  # or each row waits for the one before it
        remove_unused_columns=False,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # one, however many there are: the batch stays
    return arguments


@contextmanager
def _deterministic() -> Iterator[None]:
    """Let PyTorch compute the same bits each time, or warn where it cannot.

    It cannot on a T4 or V100, nor in float32 on any GPU: last bits of the gradients of
    memory-efficient attention then differ from run to run.

    New tensors are not filled with NaN before they are written: the numbers are the same without,
    and on a GPU it takes as many kernels again. Not by transformers' `full_determinism`: it changes
    environment variables that CUDA has read already, and forbids torch.cumsum, by which a running
    state is computed on a GPU.
    """
    memory, mode = torch.utils.deterministic, torch.get_deterministic_debug_mode()
    fills = memory.fill_uninitialized_memory
    try:
        torch.set_deterministic_debug_mode("warn")
        memory.fill_uninitialized_memory = False
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        memory.fill_uninitialized_memory = fills


def _newest_complete(folder: Path) -> str | None:
    """Return the complete checkpoint of the most steps; delete those that are not complete.

    Nor is one that was damaged since: after a power cut files may hold zeros.
    """
    for checkpoint in folder.glob("checkpoint-*"):
        complete = checkpoint / COMPLETE
        if not complete.exists() or complete.read_text() != _digests(checkpoint):
            shutil.rmtree(checkpoint)
    return get_last_checkpoint(folder)


def _digests(checkpoint: Path) -> str:
    """Return the sha256 of each file of a checkpoint, a line a file."""
    files = [file for file in sorted(checkpoint.iterdir()) if file.name != COMPLETE]
    return "".join(f"{storage.digest(file)} {file.name}\n" for file in files)


def _resumed_micro_batch(folder: Path) -> int | None:
    """Return how many sequences at a time the newest complete checkpoint was trained on."""
    checkpoint = _newest_complete(folder)
    return checkpoint and TrainerState.load_from_json(Path(checkpoint, STATE)).train_batch_size


def _save_result(folder: Path, healed: Healed) -> None:
    """Write the result of a healing, last of all, and drop its checkpoints."""
    record = asdict(healed)
    record["adapter"] = healed.adapter and healed.adapter.name
    storage.atomic_write(folder / "healed.json", json.dumps(record).encode())
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def _load_result(folder: Path) -> Healed | None:
    """Return the result of an earlier call, if it ended and its adapter is still there."""
    if not (folder / "healed.json").exists():
        return None
    record = json.loads((folder / "healed.json").read_text())
    if record["adapter"]:
        record["adapter"] = folder / "adapter"
        if not lora.adapter_exists(record["adapter"]):
            return None
    return Healed(**record)
