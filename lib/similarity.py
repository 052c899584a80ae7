"""Angular distances between layer inputs: all blocks of a model from one forward pass."""

import random
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from .blocks import BlockDistances
from .data import chats
from .models.decoder import residual_stream, run_decoder

FOLDS = 16


def angular_distances(states: torch.Tensor) -> np.ndarray:
    """Angular distances (B, L+1, L+1) of last-token states (B, L+1, D), in half turns.

    d(x, y) = arccos(x·y / (|x| |y|)) / pi, in fp64: near zero, arccos in fp32 is noise.
    """
    unit = torch.nn.functional.normalize(states.to("cpu", torch.float64), dim=-1)
    cosines = unit @ unit.transpose(1, 2)
    distances = torch.arccos(cosines.clamp(-1, 1)) / torch.pi
    distances.diagonal(dim1=1, dim2=2).zero_()
    return distances.numpy()


def block_distances(model, batches: Iterable[dict]) -> BlockDistances:
    """All distances of section 3.2 of the paper from one pass of the base model (no lm_head).

    batches: dicts with `input_ids` and `attention_mask`, both (B, T), padded on the right; and
    `numbers`, (B,), of the sequences, by which they are dealt into folds (by default as they come).
    The numbers are those before sequences were sorted by length: folds by the place in that order
    would be stratified by length, and their spread too small.
    Only the last real token of each sequence counts; angles, not cosines, are averaged; states
    are compared as fp64 unit vectors. Holds (L+1)·B·D numbers of a batch.
    """
    total = squares = folds = 0.0
    counts = np.zeros(FOLDS, int)
    num_sequences = 0
    for batch in batches:
        distances = angular_distances(last_token_states(model, batch))
        total = total + distances.sum(0)
        squares = squares + (distances**2).sum(0)
        numbers = batch.get("numbers")
        if numbers is None:
            numbers = torch.arange(num_sequences, num_sequences + len(distances))
        fold_of = numbers.cpu().numpy() % FOLDS
        sums = [distances[fold_of == fold].sum(0) for fold in range(FOLDS)]
        folds = folds + np.stack(sums)
        counts += np.bincount(fold_of, minlength=FOLDS)
        num_sequences += len(distances)
    if num_sequences < 2:
        raise ValueError(f"Angular distances need at least 2 sequences, not {num_sequences}.")
    mean = total / num_sequences
    variance = np.maximum(squares / num_sequences - mean**2, 0)
    variance = variance * num_sequences / (num_sequences - 1)
    used = counts > 0
    folds = folds[used] / counts[used, None, None]
    return BlockDistances(mean, np.sqrt(variance / num_sequences), folds, num_sequences)


@torch.inference_mode()
def last_token_states(model, batch: dict) -> torch.Tensor:
    """x_T^(l) of each sequence: (B, L+1, D), T its last real token.

    Padding is on the right: there, causal attention and positions need no mask, whatever the
    architecture. Raises ValueError if it is not.
    """
    ids, mask = (batch[name].to(model.device) for name in ("input_ids", "attention_mask"))
    if not (mask.shape[1] and mask[:, 0].all()):
        raise ValueError("A batch of texts must be padded on the right, and no text may be empty.")
    last = mask.sum(1) - 1
    rows = torch.arange(len(ids), device=model.device)
    states = []
    with residual_stream(model, lambda l, x: states.append(x[rows, last])):
        run_decoder(model, ids)
    return torch.stack([x.to(model.device) for x in states], dim=1)


def calibration_batches(
    texts: list[chats.Text],
    tokenizer,
    max_tokens: int,
    batch_tokens: int,
    cut_at_random: bool = False,
) -> Iterator[dict]:
    """Batches for `block_distances`: each text one sequence, truncated, longest first.

    About `batch_tokens` tokens a batch, padding counted. `numbers` are the places in `texts`.

    cut_at_random: keep only the beginning of each sequence, up to a random place, the same in each
    call. Distances read the last token. That of a whole text is mostly a full stop, and full stops
    choose other blocks than other tokens do (of SmolLM2 one that costs 2.5 nats, not 0.6). Off in
    the paper's figures: there most texts are longer than `max_tokens`, so they end anywhere.
    """
    numbered, places = [], random.Random(0)
    for number, text in enumerate(texts):
        ids = chats.tokens(text, tokenizer, max_tokens).ids
        if cut_at_random:  # never after the first token, whose state is like no other's
            ids = ids[: places.randint(min(2, len(ids)), len(ids))]
        numbered.append((number, torch.tensor(ids)))
    numbered.sort(key=lambda pair: len(pair[1]), reverse=True)
    progress = tqdm(total=len(numbered), desc="calibration")
    while numbered:
        longest = max(1, len(numbered[0][1]))
        size = max(1, batch_tokens // longest)
        part, numbered = numbered[:size], numbered[size:]
        numbers, sequences = zip(*part, strict=True)
        mask = pad_sequence([torch.ones_like(ids) for ids in sequences], batch_first=True)
        ids = pad_sequence(sequences, batch_first=True)
        yield {"input_ids": ids, "attention_mask": mask, "numbers": torch.tensor(numbers)}
        progress.update(len(part))
    progress.close()
