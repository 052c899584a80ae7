"""Row 14: a healing step beside its own past."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch

from benchmarks import inputs
from benchmarks.gpu import random_model
from benchmarks.gpu.sections import TINY as TINY_SHAPE
from benchmarks.sizes import TINY, Size
from benchmarks.table import Line
from benchmarks.timing import alternate
from lib.healing import attention, lora, packing, training
from replication import profiles

QUANTISABLE = "smollm2-135m"


def before_and_after(size: Size) -> Line:
    """Row 14: steps of the recorded recipe; documents padded, adapters in fp32, against today's."""
    with tempfile.TemporaryDirectory() as folder:
        name = QUANTISABLE
        if size == TINY:  # a small random checkpoint: `tiny-random` has no files
            name = random_model.write(Path(folder), **TINY_SHAPE)
        model, tokenizer = inputs.load(name, quantization="nf4")
    recipe = profiles.recipe(QUANTISABLE, profiles.get(profiles.RECORDED))
    recipe = replace(recipe, steps=size.healing_steps)
    sequences, _ = packing.training_sequences(tokenizer, recipe)
    whole = [{"documents": [sum(sequence["documents"], [])]} for sequence in sequences]

    def before() -> None:
        patches = (
            (attention, "isolates_documents", lambda model: False),
            (lora, "is_16bit", lambda model: False),
            (training, "_deterministic", _filling),
        )
        with ExitStack() as stack:
            for patch in patches:
                stack.enter_context(mock.patch.object(*patch))
            _train(model, tokenizer, whole, recipe)

    pair = alternate(before, lambda: _train(model, tokenizer, sequences, recipe), size.repeats)
    real = packing.real_tokens(sequences)
    return Line(
        row=14,
        what=f"{recipe.steps} healing steps of {recipe.batch} × {recipe.max_tokens} tokens",
        reference=f"adapters in fp32, {real / pair.reference:.0f} real tokens/s",
        ours=f"in the weights' format, documents apart, {real / pair.ours:.0f} real tokens/s",
        required="≥ 1.3",
        met=pair.speedup >= 1.3,
        pair=pair,
        dtype=f"NF4, {inputs.dtype_of(model)} compute",
    )


@contextmanager
def _filling() -> Iterator[None]:
    """Be deterministic as PyTorch comes: it fills new tensors."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _train(model, tokenizer, sequences, recipe) -> None:
    with tempfile.TemporaryDirectory() as folder, lora.new_lora(model, recipe) as wrapped:
        training._train(wrapped, tokenizer, sequences, recipe, Path(folder), recipe.batch)
