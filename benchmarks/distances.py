"""Row 1: the similarity pass against a plain forward."""

import torch

from benchmarks import inputs
from benchmarks.sizes import Size
from benchmarks.table import Line
from benchmarks.timing import alternate
from lib.similarity import block_distances


def similarity_pass(size: Size) -> Line:
    """Row 1: all distances should cost hardly more than reading the text."""
    model, tokenizer = inputs.load(size.model, dtype=None)
    batches = inputs.c4_batches(tokenizer, size)
    pair = alternate(
        lambda: plain_forward(model, batches),
        lambda: block_distances(model, batches),
        2 * size.repeats,
    )
    return Line(
        row=1,
        what=f"Angular distances of all blocks, {size.similarity_sequences} C4 sequences of "
        f"{size.tokens} tokens",
        reference="plain forward of the base model",
        ours="`similarity.block_distances`",
        required="≥ 0.91",
        met=pair.speedup >= 0.91,
        pair=pair,
        limit="1.00",
        dtype=inputs.dtype_of(model),
    )


@torch.inference_mode()
def plain_forward(model, batches: list[dict]) -> None:
    """Let the base model read all batches."""
    for batch in batches:
        model.get_decoder()(input_ids=batch["input_ids"].to(model.device), use_cache=False)
