"""Rows 7, 8, 14 and 16: a healing step beside a plain script and its own past, and its trial."""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest import mock

import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from benchmarks import inputs
from benchmarks.gpu import random_model
from benchmarks.gpu.sections import TINY as TINY_SHAPE
from benchmarks.sizes import TINY, Size
from benchmarks.table import Line, seconds
from benchmarks.timing import alternate
from lib.healing import lora, packing, training
from lib.models import files, loading, registry
from replication import profiles

QUANTISABLE = "smollm2-135m"


@cache
def quantisable(size: Size) -> str:
    """The model that is healed: for TINY a small random checkpoint (`tiny-random` has no files)."""
    if size != TINY:
        return QUANTISABLE
    folder = Path(tempfile.mkdtemp(prefix="quantisable-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return random_model.write(folder, **TINY_SHAPE)


def against_plain_script(size: Size) -> list[Line]:
    """Row 7: the same batch, length, adapters and steps through HF's parts as they come."""
    name = quantisable(size)
    recipe = replace(_recipe(name), steps=size.healing_steps)
    ours, tokenizer = inputs.load(name, quantization="nf4")
    packed = loading.nf4()
    packed.bnb_4bit_compute_dtype = ours.dtype  # bf16 is slow where a CPU has to emulate it
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        files.local_folder(registry.resolve(name)), dtype=ours.dtype, quantization_config=packed
    )
    sequences, _ = packing.training_sequences(tokenizer, recipe)
    pair = alternate(
        lambda: _plain(plain, tokenizer, sequences, recipe),
        lambda: _ours(ours, tokenizer, sequences, recipe),
        1,
    )
    line = Line(
        row=7,
        what=f"Healing, {recipe.steps} steps of {recipe.batch} × {recipe.max_tokens} tokens",
        reference="plain HF Trainer, peft and bitsandbytes (NF4), in the same format",
        ours="`healing.heal`'s training, checkpoints included",
        required="≥ 0.95",
        ratio=pair.speedup,
        met=pair.speedup >= 0.95,
        seconds=seconds(pair),
        dtype=_format(ours),
    )
    return [line]


def packed_documents(size: Size) -> list[Line]:
    """Row 8: real tokens (no padding) trained on in a second, packed against padded documents.

    The reference pads, as a model must that cannot keep joined documents apart.
    """
    name = quantisable(size)
    model, tokenizer = inputs.load(name, quantization="nf4")
    packed = replace(_recipe(name), steps=1, max_tokens=size.packing_tokens)
    padded = replace(packed, packed=False)
    sets = {r.packed: packing.training_sequences(tokenizer, r)[0] for r in (packed, padded)}

    def padding() -> list[float]:
        with _padding():
            return _ours(model, tokenizer, sets[False], padded)

    pair = alternate(
        padding,
        lambda: _ours(model, tokenizer, sets[True], packed),
        size.repeats,
    )
    real = {which: packing.real_tokens(sequences) for which, sequences in sets.items()}
    line = Line(
        row=8,
        what=f"One step of {packed.batch} sequences of up to {size.packing_tokens} tokens",
        reference=f"padded documents, {real[False] / pair.reference:.0f} real tokens/s",
        ours=f"packed, {real[True] / pair.ours:.0f} real tokens/s",
        required="shown",
        ratio=(real[True] / pair.ours) / (real[False] / pair.reference),
        seconds=seconds(pair),
        dtype=_format(model),
    )
    return [line]


def before_and_after(size: Size) -> list[Line]:
    """Row 14: steps of the recorded recipe; documents padded, adapters in fp32, against today's."""
    name, profile = quantisable(size), profiles.get(profiles.RECORDED)
    recipe = replace(profiles.recipe(name, profile), steps=size.healing_steps)
    model, tokenizer = inputs.load(name, quantization="nf4")
    sequences, _ = packing.training_sequences(tokenizer, recipe)
    whole = [{"documents": [_whole(sequence)]} for sequence in sequences]

    def before() -> list[float]:
        with (
            _padding(),
            mock.patch.object(lora, "half", lambda model: False),
            mock.patch.object(training, "_deterministic", _filling),
        ):
            return _ours(model, tokenizer, whole, recipe)

    pair = alternate(before, lambda: _ours(model, tokenizer, sequences, recipe), size.repeats)
    real = packing.real_tokens(sequences)
    line = Line(
        row=14,
        what=f"{recipe.steps} healing steps of {recipe.batch} × {recipe.max_tokens} tokens",
        reference=f"adapters in fp32, {real / pair.reference:.0f} real tokens/s",
        ours=f"in the weights' format, documents apart, {real / pair.ours:.0f} real tokens/s",
        required="≥ 1.3",
        ratio=pair.speedup,
        met=pair.speedup >= 1.3,
        seconds=seconds(pair),
        dtype=_format(model),
    )
    return [line]


def longest_first(size: Size) -> list[Line]:
    """Row 16: a healing that tries its longest micro-batch before step 0, as one on a GPU does."""
    name = quantisable(size)
    recipe = replace(_recipe(name), steps=size.healing_steps, packed=False)
    model, tokenizer = inputs.load(name, quantization="nf4")
    sequences, _ = packing.training_sequences(tokenizer, recipe)

    def tried() -> tuple[list[float], float]:
        with mock.patch.object(training, "_raises", lambda device: True):
            return _ours(model, tokenizer, sequences, recipe)

    pair = alternate(lambda: _ours(model, tokenizer, sequences, recipe), tried, size.repeats)
    cost = (pair.ours - pair.reference) / (pair.reference / recipe.steps)
    same = pair.reference_value[0] == pair.ours_value[0]
    line = Line(
        row=16,
        what=f"Healing, {recipe.steps} steps of {recipe.batch} documents, joined in one row",
        reference="the steps alone",
        ours=f"the longest row tried before them: the time of {cost:.2f} steps",
        required="same losses",
        ratio=pair.speedup,
        met=same,
        seconds=seconds(pair),
        dtype=_format(model),
    )
    return [line]


def _padding():
    """Within, documents are padded rows, whatever the model can do."""
    return mock.patch.object(packing, "_reads_apart", lambda model: False)


@contextmanager
def _filling(warn_only: bool) -> Iterator[None]:
    """Deterministic as PyTorch comes: it fills new tensors."""
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _recipe(name: str) -> training.Recipe:
    return profiles.recipe(name, profiles.get("quick"))


def _format(model) -> str:
    return f"NF4, {inputs.dtype_of(model)} compute"


def _ours(model, tokenizer, sequences, recipe) -> tuple[list[float], float]:
    with tempfile.TemporaryDirectory() as folder, lora.new_lora(model, recipe) as wrapped:
        return training._train(wrapped, tokenizer, sequences, recipe, Path(folder), recipe.batch)


def _whole(sequence: dict) -> list[int]:
    return [token for document in sequence["documents"] for token in document]


def _plain(model, tokenizer, sequences, recipe) -> None:
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.rank,
        lora_dropout=recipe.dropout,
        target_modules=["gate_proj", "up_proj", "down_proj"],
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=recipe.steps,
            per_device_train_batch_size=recipe.batch,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="cosine",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        trainer = Trainer(
            model=get_peft_model(model, config),
            args=arguments,
            train_dataset=[{"input_ids": s, "labels": s} for s in map(_whole, sequences)],
            data_collator=DataCollatorForSeq2Seq(tokenizer),
        )
        trainer.train()
