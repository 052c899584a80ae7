"""Rows 1 and 2: the similarity pass against a plain forward, and against a pass for each n."""

import numpy as np
import torch
from torch.nn import functional

from benchmarks import inputs
from benchmarks.sizes import Size
from benchmarks.table import Line, seconds
from benchmarks.timing import alternate
from lib.blocks import BlockDistances
from lib.models.decoder import decoder_layers
from lib.similarity import block_distances, right_padded


def similarity_pass(size: Size) -> list[Line]:
    """Row 1: all distances should cost hardly more than reading the text."""
    model, tokenizer = inputs.load(size.model, dtype=None)
    batches = inputs.c4_batches(tokenizer, size.similarity_sequences, size.tokens)
    pair = alternate(
        lambda: plain_forward(model, batches),
        lambda: block_distances(model, batches),
        2 * size.repeats,
    )
    line = Line(
        row=1,
        what=f"Angular distances of all blocks, {size.similarity_sequences} C4 sequences of "
        f"{size.tokens} tokens",
        reference="plain forward of the base model",
        ours="`similarity.block_distances`",
        required="≤ 1.10",
        ratio=pair.ours / pair.reference,
        met=pair.ours / pair.reference <= 1.10,
        seconds=seconds(pair),
        limit="1.00",
        dtype=inputs.dtype_of(model),
    )
    return [line]


def distance_map(size: Size) -> list[Line]:
    """Row 2: the known tools take one block size a run, so the whole map takes L - 1 runs."""
    model, tokenizer = inputs.load(size.model, dtype=None)
    batches = inputs.c4_batches(tokenizer, size.map_sequences, size.tokens)
    pair = alternate(
        lambda: one_pass_per_size(model, batches),
        lambda: block_distances(model, batches),
        size.repeats,
    )
    layers = len(decoder_layers(model))
    apart = largest_difference(pair.reference_value, pair.ours_value)
    line = Line(
        row=2,
        what=f"Whole distance map, n = 1 … {layers - 1}, {size.map_sequences} C4 sequences of "
        f"{size.tokens} tokens",
        reference="a forward for each n, hidden states of HF (no lm_head, in its favour)",
        ours="`similarity.block_distances`",
        required=f"≥ {layers / 2:g}",
        ratio=pair.speedup,
        met=pair.speedup >= layers / 2,
        seconds=seconds(pair),
        limit=f"{layers - 1}",
        dtype=inputs.dtype_of(model),
        notes=(
            f"largest difference of a distance {apart:.1e}; left out are the distances to "
            "x^(L), which HF hands out only after the final norm.",
        ),
    )
    return [line]


@torch.inference_mode()
def plain_forward(model, batches: list[dict]) -> None:
    """The base model reads all batches."""
    for batch in batches:
        model.get_decoder()(input_ids=batch["input_ids"].to(model.device), use_cache=False)


def one_pass_per_size(model, batches: list[dict]) -> dict[int, np.ndarray]:
    """For each n, d(x^(l), x^(l+n)) of all l, from a pass over the data of its own."""
    return {n: distances_of(model, batches, n) for n in range(1, len(decoder_layers(model)))}


@torch.inference_mode()
def distances_of(model, batches: list[dict], size: int) -> np.ndarray:
    """Mean angular distances at the last token, of one block size."""
    angles = []
    for batch in batches:
        ids, last = right_padded(batch["input_ids"], batch["attention_mask"])
        read = model.get_decoder()(
            input_ids=ids.to(model.device), use_cache=False, output_hidden_states=True
        )
        rows = torch.arange(len(ids))
        states = torch.stack([x[rows, last] for x in read.hidden_states], 1)
        unit = functional.normalize(states.cpu().double(), dim=-1)
        cosines = (unit[:, :-size] * unit[:, size:]).sum(-1)
        angles.append(torch.arccos(cosines.clamp(-1, 1)) / torch.pi)
    return torch.cat(angles).mean(0).numpy()


def largest_difference(by_size: dict[int, np.ndarray], ours: BlockDistances) -> float:
    """Between the reference and ours, over all blocks that end before the last layer's output."""
    differences = {size: reference - ours.row(size) for size, reference in by_size.items()}
    return max(abs(row[:-1]).max() for row in differences.values())
