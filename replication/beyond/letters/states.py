"""The states of questions at every depth: at the last token, and at the end of each option's line.

Each is read by `lib.sweep`, and kept in a file, so that probes can be fitted again without the
model:

- `last_of_whole`: the whole model's, before the final norm; several questions share them;
- `last_of_cut`: of one cut, as the final norm hands them on;
- `at_option_ends`: of every cut, in one pass (`together`), at the options' ends, too.
"""

import io
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lib import storage
from lib.blocks import UNPRUNED, Block
from lib.data.encoding import prompt_within_limit
from lib.evaluation import Task
from replication.beyond.letters.biases import LETTERS
from replication.beyond.letters.option_lines import line_ends, token_at
from replication.beyond.letters.readings import load_four_options
from replication.measure import cache, fetching
from replication.measure.request import Request, block_of, of_whole_model
from replication.tables import grouped


def write(arrays: dict[str, np.ndarray], file: Path) -> None:
    """Write arrays into an .npz file, whole or not at all."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    storage.atomic_write(file, content.getvalue())


# ---- of the whole model at the last token --------------------------------------------------------


def last_of_whole(params: dict, own: Collection[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return what `read_last_of_whole` reads, from `last_file`, which keeps it."""
    file = last_file(params, own)
    if not file.exists():
        model, tokenizer = fetching.loaded(params)
        task, budget = load_four_options(params), params["batch_tokens"]
        states, letters = read_last_of_whole(model, tokenizer, task, budget)
        write({"states": states, "letters": letters}, file)
    with np.load(file) as arrays:
        return arrays["states"], arrays["letters"]


def last_file(params: dict, own: Collection[str]) -> Path:
    """Return where the states are kept: by the parameters of the whole model's score.

    own: those that a kind of result adds to a score's. No version is among the others that
    `read_last_of_whole` could raise: if it gives other numbers, the folder gets another name.
    """
    of_score = {name: value for name, value in of_whole_model(params).items() if name not in own}
    return cache.location("last_states", of_score).with_suffix(".npz")


def read_last_of_whole(
    model, tokenizer, task: Task, batch_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
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


# ---- of one cut at the last token ----------------------------------------------------------------


def last_of_cut(params: dict, task: Task) -> tuple[dict, dict]:
    """Return states and letters by depth, as `read_last_of_cut` reads them.

    They are kept in a folder beside the result. A depth has files of its own, and is in memory only
    when looked at: those of MMLU are gigabytes.
    """
    folder = cache.location("depths", params).with_suffix(".states")
    if not folder.exists():
        model, tokenizer = fetching.loaded(params)
        block = block_of(params)
        with storage.atomic_folder(folder) as part:
            part.mkdir(parents=True)
            budget = params["batch_tokens"]
            for depth, arrays in read_last_of_cut(model, tokenizer, task, block, budget):
                for name, array in arrays.items():
                    np.save(part / f"{name}-{depth:03}.npy", array)
    states, letters = {}, {}
    for name, of_name in (("states", states), ("letters", letters)):
        for file in sorted(folder.glob(f"{name}-*.npy")):
            of_name[int(file.stem.rpartition("-")[2])] = np.load(file, mmap_mode="r")
    return states, letters


def read_last_of_cut(
    model, tokenizer, task: Task, block: Block, batch_tokens: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield each depth with its states (n, D; fp16, after the final norm) and letters (n, letters).

    At the last token of each question; of a cut model from the cut on. letters: log-likelihoods.
    """
    from lib.models.decoder import decoder_layers  # here, since the plan loads no torch
    from lib.pruning import dropped
    from lib.sweep import scored, target_logprobs

    def letters_and_state(model, states, batch) -> list[tuple[np.ndarray, np.ndarray]]:
        last = states[batch.row, batch.position]
        last = last.float().cpu().numpy().astype(np.float16)
        letters = scored(model, states, batch)
        return list(zip(letters, last, strict=True))

    rows = [row for of_example in task.rows(tokenizer) for row in of_example]
    with dropped(model, block):
        layers = len(decoder_layers(model))
        first = max(1, block.start)
        exits = {depth: Block(depth, layers - depth) for depth in range(first, layers)}
        exits[layers] = UNPRUNED
        blocks = list(exits.values())
        outputs = target_logprobs(model, blocks, rows, batch_tokens, task.name, letters_and_state)
    for depth, exit_block in exits.items():
        letters, states = zip(*outputs.pop(exit_block), strict=True)
        yield depth + block.size, {"states": np.stack(states), "letters": np.stack(letters)}


# ---- of every cut, also at the option ends -------------------------------------------------------


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
        by_whole = grouped(missing, lambda one: cache.canonical(of_whole_model(one.params)))
        for same_task in by_whole.values():
            _keep([of_whole_model(same_task[0].params), *(one.params for one in same_task)])
            measure(same_task)

    return read_then_measure


def at_option_ends(params: dict) -> States:
    """Return the states of a result's parameters from their file; `together` has written it."""
    with np.load(_file(params)) as arrays:
        depths = arrays["depths"].tolist()
        states, letters = arrays["states"], arrays["letters"]
    return States(
        letters=dict(zip(depths, letters, strict=True)),
        last=dict(zip(depths, states[:, :, LETTERS], strict=True)),
        options=dict(zip(depths, states[:, :, :LETTERS], strict=True)),
    )


def _file(params: dict) -> Path:
    return cache.location("option_ends", params).with_suffix(".npz")


def _keep(of_cuts: Iterable[dict]) -> None:
    """Write the states of parameters that differ in their block, where they are not there."""
    missing = {block_of(params): params for params in of_cuts if not _file(params).exists()}
    if not missing:
        return
    params = next(iter(missing.values()))
    model, tokenizer = fetching.loaded(params)
    task, budget = load_four_options(params), params["batch_tokens"]
    of_cuts = read_at_option_ends(model, tokenizer, task, missing, budget)
    for block, arrays in of_cuts.items():
        write(arrays, _file(missing[block]))


def read_at_option_ends(
    model, tokenizer, task: Task, blocks: Iterable[Block], batch_tokens: int
) -> dict[Block, dict[str, np.ndarray]]:
    """Return of each block depths (K,), states (K, n, LETTERS + 1, D; fp16, after the final norm;
    the option ends, then the last token) and letters (K, n, LETTERS; log-likelihoods).

    Of the whole model from depth 1 on, of a cut one from the cut on.
    """
    import torch  # here, since the plan loads no torch

    from lib.models.decoder import decoder_layers, residual_stream
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
        offsets = torch.tensor([[*before_last[place], 0] for place in batch.places])
        rows = batch.row[:, None].to(final.device)
        positions = (batch.position[:, None] - offsets).to(final.device)
        of_picked = replace(batch, position=torch.full_like(batch.position, LETTERS))
        states, letters = [], []
        for depth, state in by_depth.items():
            exit_block = Block(depth, len(layers) - depth)
            normed = _after_norm(model, exit_block, state[rows, positions], *widths)
            states.append(normed.float().cpu().numpy().astype(np.float16))
            letters.append(scored(model, normed, of_picked))
        seen.clear()  # of these passes, too: the next cut fills it from its own depth on
        by_row = np.stack(states, axis=1), np.stack(letters, axis=1)
        return list(zip(*by_row, strict=True))

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


def _after_norm(model, exit_block: Block, states, *width):
    """Return states before an exit, (B, T, D), as the final norm hands them on."""
    import torch

    from lib.models.decoder import run_decoder
    from lib.models.layers import run_after_block

    # no layer runs here: the model's own forward, from this exit on
    with run_after_block(model, exit_block, states, *width):
        ids = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
        return run_decoder(model, ids)


def tokens_before_last(example: dict, tokenizer) -> list[int]:
    """Return how many tokens before the last one of its prompt each option's line ends."""
    prompt, _ = prompt_within_limit(example, tokenizer)
    offsets = tokenizer(prompt, return_offsets_mapping=True).offset_mapping
    ends = [token_at(end, offsets) for end in line_ends(prompt, example["choices"])]
    return [len(offsets) - 1 - end for end in ends]
