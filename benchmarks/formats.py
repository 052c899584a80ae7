"""Row 12: the format that is measured as the fastest, against whole forwards in each."""

import torch

from benchmarks import inputs
from benchmarks.distances import plain_forward
from benchmarks.sizes import Size
from benchmarks.table import Line, seconds
from benchmarks.timing import alternate
from lib.models import machine


def fastest_format(size: Size) -> list[Line]:
    """Row 12: linear maps alone should tell which format a decoder is fastest in."""
    measured = machine.measured()
    other = next(dtype for dtype in machine.TRIED if dtype != measured["dtype"])
    (slow, tokenizer), (fast, _) = (
        inputs.load(size.model, dtype=dtype) for dtype in (other, measured["dtype"])
    )
    batches = inputs.c4_batches(tokenizer, size.map_sequences, size.tokens)
    pair = alternate(
        lambda: plain_forward(slow, batches), lambda: plain_forward(fast, batches), 2 * size.repeats
    )
    milliseconds = {dtype: 1e3 * least for dtype, least in measured["seconds"].items()}
    times = ", ".join(f"{dtype} {least:.1f} ms" for dtype, least in milliseconds.items())
    kept = (machine.remembered() or {"dtype": "none yet"})["dtype"]
    return [
        Line(
            row=12,
            what=f"Forward of {size.map_sequences} C4 sequences of {size.tokens} tokens, "
            f"{torch.get_num_threads()} threads",
            reference=f"in {other}",
            ours=f"in {measured['dtype']}, which `machine.measured` takes",
            required="≥ 1.00",
            ratio=pair.speedup,
            met=pair.speedup >= 1,
            seconds=seconds(pair),
            notes=(f"linear maps alone: {times}; the results folder keeps {kept}.",),
        )
    ]
