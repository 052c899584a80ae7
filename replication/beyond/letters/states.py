"""The states of questions at every depth: at the end of each option's line, and at the last token.

They are read in one pass for all cuts (`lib.sweep`), and kept in a file beside the result, so that
probes can be fitted again without the model. The whole model's states at the last token, which
several questions share, have a file of their own (`last_of_whole`).
"""

import io
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lib import storage
from lib.blocks import UNPRUNED, Block
from lib.data.encoding import prompt_within_limit
from lib.evaluation import Task
from replication.beyond.letters.biases import LETTERS
from replication.beyond.letters.depth_probe import with_four_options
from replication.beyond.letters.option_probe import option_ends
from replication.measure import cache, fetching
from replication.measure.request import BLOCK, Request, load_task
from replication.tables import grouped


@dataclass(frozen=True)
class States:
    """Of one cut, by depth: letters (n, LETTERS; log-likelihoods), states at the last token (n, D)
    and at the option ends (n, LETTERS, D). All are as the final norm hands them on."""

    letters: dict[int, np.ndarray]
    last: dict[int, np.ndarray]
    options: dict[int, np.ndarray]

    @property
    def depths(self) -> list[int]:
        return list(self.letters)


def together(measure: Callable[[list[Request]], None]) -> Callable[[list[Request]], None]:
    """Return what measures requests by `measure`, once the states of all cuts of a task are read in
    one pass."""

    def read_then_measure(missing: list[Request]) -> None:
        by_whole = grouped(missing, lambda one: cache.canonical(_whole(one.params)))
        for same_task in by_whole.values():
            _keep([_whole(same_task[0].params), *(one.params for one in same_task)])
            measure(same_task)

    return read_then_measure


def kept(params: dict, task: Task) -> States:
    """Return the states of a result's parameters from their file; `together` has written it."""
    with np.load(_file(params)) as arrays:
        depths = arrays["depths"].tolist()
        states, letters = arrays["states"], arrays["letters"]
    return States(
        letters=dict(zip(depths, letters, strict=True)),
        last=dict(zip(depths, states[:, :, LETTERS], strict=True)),
        options=dict(zip(depths, states[:, :, :LETTERS], strict=True)),
    )


def _whole(params: dict) -> dict:
    return params | {"block_start": UNPRUNED.start, "block_size": UNPRUNED.size}


def _file(params: dict) -> Path:
    return cache.location("option_ends", params).with_suffix(".npz")


def _keep(of_cuts: Iterable[dict]) -> None:
    """Write the states of parameters that differ in their block, where they are not there."""
    missing = {
        Block(*(params[key] for key in BLOCK)): params
        for params in of_cuts
        if not _file(params).exists()
    }
    if not missing:
        return
    params = next(iter(missing.values()))
    model, tokenizer = fetching.loaded(params)
    task = with_four_options(load_task(params))
    for block, arrays in read(model, tokenizer, task, missing, params["batch_tokens"]).items():
        write(arrays, _file(missing[block]))


def write(arrays: dict[str, np.ndarray], file: Path) -> None:
    """Write arrays into an .npz file, whole or not at all."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    storage.atomic_write(file, content.getvalue())


# ---- of the whole model at the last token --------------------------------------------------------


def last_of_whole(params: dict, own: Collection[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return `read_last` of a result's parameters, from `last_file` if it is there, else kept
    there."""
    file = last_file(params, own)
    if not file.exists():
        model, tokenizer = fetching.loaded(params)
        task = with_four_options(load_task(params))
        states, letters = read_last(model, tokenizer, task, params["batch_tokens"])
        write({"states": states, "letters": letters}, file)
    with np.load(file) as arrays:
        return arrays["states"], arrays["letters"]


def last_file(params: dict, own: Collection[str]) -> Path:
    """Return where the states are kept: by the parameters of the whole model's score.

    own: those that a kind of result adds to a score's. No version is among the others that
    `read_last` could raise: if it gives other numbers, the folder gets another name.
    """
    of_score = {name: value for name, value in _whole(params).items() if name not in own}
    return cache.location("last_states", of_score).with_suffix(".npz")


def read_last(model, tokenizer, task: Task, batch_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the whole model's states of each last token, (n, L + 1, D; fp32, before the norm), and
    the log-likelihoods of the letters, (n, LETTERS)."""
    from lib.models.decoder import residual_stream  # here, since the plan loads no torch
    from lib.sweep import scored, target_logprobs

    seen = {}

    def of_last(model, final, batch) -> list[tuple[np.ndarray, np.ndarray]]:
        rows = batch.row.to(final.device)
        last = batch.position.to(final.device)
        states = []
        for depth in sorted(seen):
            states.append(seen[depth][rows, last].float().cpu().numpy())
        by_question = np.stack(states, axis=1)
        return list(zip(by_question, scored(model, final, batch), strict=True))

    rows = [row for (row,) in task.rows(tokenizer)]
    with residual_stream(model, seen.__setitem__):
        outputs = target_logprobs(model, [UNPRUNED], rows, batch_tokens, task.name, of_last)
    states, letters = zip(*outputs[UNPRUNED], strict=True)
    return np.stack(states), np.stack(letters)


# ---- of every cut, also at the option ends -------------------------------------------------------


def read(
    model, tokenizer, task: Task, blocks: Iterable[Block], batch_tokens: int
) -> dict[Block, dict[str, np.ndarray]]:
    """Return of each block depths (K,), states (K, n, LETTERS + 1, D; fp16, after the final norm;
    the option ends, then the last token) and letters (K, n, LETTERS; log-likelihoods).

    Of the whole model from depth 1 on, of a cut one from the cut on.
    """
    import torch  # here, since the plan loads no torch

    from lib.models.decoder import decoder_layers, residual_stream, run_decoder
    from lib.models.layers import run_after_block
    from lib.sweep import scored, target_logprobs

    blocks = [UNPRUNED, *(block for block in blocks if block.size)]
    rows = [row for (row,) in task.rows(tokenizer)]
    before_last = [tokens_before_last(example, tokenizer) for example in task.examples]
    layers, seen, widths = decoder_layers(model), {}, []

    def note_width(module, args, output):
        widths[:] = [len(output) if isinstance(output, tuple) else 0]

    def at_each_depth(model, final, batch) -> list[tuple[np.ndarray, np.ndarray]]:
        """(depths, LETTERS + 1, D) and (depths, LETTERS) of each row of a batch."""
        by_depth = {depth: state for depth, state in sorted(seen.items()) if depth}
        seen.clear()  # the next cut fills it from its own depth on
        offsets = torch.tensor([[*before_last[place], 0] for place in batch.places])
        rows = batch.row[:, None].to(final.device)
        positions = (batch.position[:, None] - offsets).to(final.device)
        of_picked = replace(batch, position=torch.full_like(batch.position, LETTERS))
        states, letters = [], []
        for depth, state in by_depth.items():
            picked = state[rows, positions]
            # no layer runs here: the model's own forward, from an exit at this depth on
            with run_after_block(model, Block(depth, len(layers) - depth), picked, *widths):
                ids = torch.zeros(picked.shape[:2], dtype=torch.long, device=picked.device)
                normed = run_decoder(model, ids)
            seen.clear()
            states.append(normed.float().cpu().numpy().astype(np.float16))
            letters.append(scored(model, normed, of_picked))
        return [
            (
                np.array([of_depth[i] for of_depth in states]),
                np.array([of_depth[i] for of_depth in letters]),
            )
            for i in range(len(batch.places))
        ]

    with (
        residual_stream(model, seen.__setitem__),
        layers[-1].register_forward_hook(note_width),
    ):
        outputs = target_logprobs(model, blocks, rows, batch_tokens, task.name, at_each_depth)
    of_cuts = {}
    for block, of_rows in outputs.items():
        depths = np.arange(max(1, block.stop), len(layers) + 1)
        # where the last layer is dropped, its first state is also the final one
        both = (np.stack(parts, axis=1) for parts in zip(*of_rows, strict=True))
        states, letters = (part[-len(depths) :] for part in both)
        of_cuts[block] = {"depths": depths, "states": states, "letters": letters}
    return of_cuts


def tokens_before_last(example: dict, tokenizer) -> list[int]:
    """Return how many tokens before the last one of its prompt each option's line ends."""
    prompt, _ = prompt_within_limit(example, tokenizer)
    offsets = tokenizer(prompt, return_offsets_mapping=True).offset_mapping
    holding = [
        max(place for place, (start, stop) in enumerate(offsets) if start <= end < stop)
        for end in option_ends(prompt, example["choices"])
    ]
    return [len(offsets) - 1 - place for place in holding]
