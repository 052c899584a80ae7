"""The table of sizes: what each number of dropped layers saves and costs, and the choice by it.

One sweep a task scores the whole model and each size. What is measured is kept: a call that was
interrupted goes on with the next task, and a later call with a budget reads the table.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from .. import storage
from ..blocks import UNPRUNED, Block
from ..evaluation import Task
from ..models.decoder import decoder_layers
from ..models.latency import latencies
from ..pruning import dropped
from . import card, steps
from .options import FITTED, Options

PROMPT, NEW_TOKENS, TURNS = 64, 16, 3  # of a latency: tokens, and the fastest of so many turns
MAP_MEMORY = 4e9  # bytes of the sums from which maps are solved
FILES = ("sizes.csv", "sizes.png")  # in the folder of the table; they go with the weights


def measure(work: steps.Work, checkpoint) -> list[dict]:
    """Return the rows of the table: the whole model's, then one for each size, the smallest first.

    A row has dropped, start, layers, parameters, GB, tokens_per_second (written, one at a time),
    speed (over the whole model's), and of each task and version ("cut", and "mapped" with
    REPAIR=map) the value, its error, and the paired difference to the whole model with its error.
    """
    measured = storage.kept(work.folder / "measured.json", lambda: _measure(work))
    work.results["unasked"] = measured["unasked"]
    rows = _rows(measured["scores"], measured["times"], checkpoint.bytes_per_weight)
    write(rows, work.folder)
    return rows


def _measure(work: steps.Work) -> dict:
    """Return the scores, the times, and what is not asked. Each task has a file of its own, too."""
    options, folder = work.options, work.folder
    model, tokenizer = work.load(options.model)
    steps.check_reading(work, model, tokenizer)
    work.ask_whole(model, tokenizer)
    sizes = range(1, len(decoder_layers(model)))
    chosen = steps.choose_each(options, model, tokenizer, sizes)
    blocks = {size: block for size, (block,) in chosen.items()}
    versions = {"whole": UNPRUNED} | {f"cut {size}": block for size, block in blocks.items()}
    if options.repair:
        texts = options.train_texts(FITTED)
        maps = _maps(model, tokenizer, list(blocks.values()), texts)
        versions |= {f"mapped {block.size}": block for block in maps}

    def scored(task: Task) -> list[dict]:
        part = steps.Work(options, [task], folder)
        part.score(model, tokenizer, versions)
        rows = part.results["versions"]
        pairs = zip(rows, versions.values(), strict=True)
        return [card.compared(row, rows[0]) | {"start": block.start} for row, block in pairs]

    scores = {}
    for task in work.tasks:
        scores[task.name] = storage.kept(folder / f"{task.name}.json", partial(scored, task))
    smallest = list(blocks.values())[-1]
    times = storage.kept(folder / "times.json", lambda: _times(model, smallest))
    return {"scores": scores, "times": times, "unasked": work.results["unasked"]}


def _maps(model, tokenizer, blocks: list[Block], texts: list) -> list[Block]:
    """Return each block with its map, some at a time: their sums are four matrices (D, D) each."""
    width = model.get_input_embeddings().weight.shape[-1]
    at_once = max(1, int(MAP_MEMORY / (4 * 8 * width**2)))
    mapped = []
    for first in range(0, len(blocks), at_once):
        part = blocks[first : first + at_once]
        mapped += steps.fitted_maps(model, tokenizer, part, texts)
    return mapped


def _times(model, block: Block) -> dict:
    """Return the seconds that a token takes of the whole model and of the smallest one.

    Of several turns the fastest counts: other programs only slow a turn down.
    """
    prompt = torch.arange(PROMPT)[None] % model.get_input_embeddings().num_embeddings
    fastest = {}
    for name, version in {"whole": UNPRUNED, "smallest": block}.items():
        with dropped(model, version):
            turns = [latencies(model, prompt, NEW_TOKENS)[1] for _ in range(TURNS)]
        fastest[name] = min(turns)
    return fastest | {"dropped": block.size}


def _rows(scores: dict[str, list[dict]], times: dict, bytes_per_weight: int) -> list[dict]:
    """Return the table from what was measured. scores: of each task the versions in order."""
    layer = (times["whole"] - times["smallest"]) / times["dropped"]
    rows = {}
    for task, versions in scores.items():
        for version in versions:
            name, _, size = version["version"].partition(" ")
            dropped = int(size or 0)
            seconds = times["whole"] - layer * dropped  # between the two that were measured
            row = rows.setdefault(
                dropped,
                {
                    "dropped": dropped,
                    "start": version["start"] if dropped else None,
                    "layers": version["layers"],
                    "parameters": version["parameters"],
                    "gb": version["parameters"] * bytes_per_weight / 1e9,
                    "tokens_per_second": 1 / seconds,
                    "speed": times["whole"] / seconds,
                },
            )
            columns = [f"{name}_{task}{end}" for end in ("", "_error", "_rise", "_rise_error")]
            values = [*version["scores"][task], *version["to_whole"][task]]
            row |= dict(zip(columns, values, strict=True))
    return [rows[dropped] for dropped in sorted(rows)]


# ---- the choice ----------------------------------------------------------------------------


def choose(options: Options, rows: list[dict]) -> int:
    """Return how many layers to drop: of GB and SPEED the fewest that will do, of LOSS the most.

    With REPAIR=map the loss after the map counts, before any healing. Raises ValueError if no size
    will do, or if none is needed.
    """
    whole, *cuts = rows
    version = "mapped" if options.repair else "cut"
    budget, fits, has = _budget(options, f"{version}_c4_rise")
    if options.loss is None and fits(whole):
        had = has.format(**whole)
        raise ValueError(f"{budget}: the whole model has {had}, so nothing has to go.")
    fitting = [row for row in cuts if fits(row)]
    if not fitting:
        nearest = cuts[0] if options.loss is not None else cuts[-1]
        raise ValueError(
            f"No size fits {budget}: after dropping {nearest['dropped']} of {whole['layers']} "
            f"layers it has {has.format(**nearest)}. SIZES=table shows all sizes."
        )
    return fitting[-1 if options.loss is not None else 0]["dropped"]


def _budget(options: Options, rise: str) -> tuple[str, Callable[[dict], bool], str]:
    """Return how a budget is written, whether a row keeps it, and what to say that a row has."""
    gb, speed, loss = options.gb, options.speed, options.loss
    if gb is not None:
        return f"GB={gb:g}", lambda row: row["gb"] <= gb, "{gb:.3g} GB of weights"
    if speed is not None:
        has = "{speed:.2f} times the whole model's speed"
        return f"SPEED={speed:g}", lambda row: row["speed"] >= speed, has
    has = f"a loss of {{{rise}:+.3f}} nats over the whole model's"
    return f"LOSS={loss:+g}", lambda row: row[rise] <= loss, has


# ---- the table to read ---------------------------------------------------------------------


def write(rows: list[dict], folder: Path) -> None:
    """Write the table, and its picture: what the loss rises by over the layers dropped."""
    from matplotlib.figure import Figure

    table = pd.DataFrame(rows)
    storage.atomic_write(folder / FILES[0], table.to_csv(index=False).encode())
    figure = Figure(figsize=(7.3, 4), layout="constrained")
    axis = figure.subplots()
    for version, label in {"cut": "no repair", "mapped": "a linear map in their place"}.items():
        if f"{version}_c4" in table:
            rise, error = (table[f"{version}_c4_rise{end}"] for end in ("", "_error"))
            axis.errorbar(table.dropped, rise, error, marker=".", label=label)
    axis.set(
        xlabel=f"layers dropped (of {table.layers[0]})",
        ylabel="loss over the whole model's (nats per token)",
    )
    axis.set_yscale("symlog", linthresh=1)  # small rises are told apart beside 50 nats
    axis.yaxis.set_major_formatter("{x:g}")
    axis.legend()
    gb_per_layer = (table.gb.iloc[0] - table.gb.iloc[-1]) / table.dropped.iloc[-1]
    axis.secondary_xaxis(
        "top",
        functions=(
            lambda layers: table.gb.iloc[0] - gb_per_layer * layers,
            lambda gb: (table.gb.iloc[0] - gb) / gb_per_layer,
        ),
    ).set_xlabel("GB of weights")
    part = folder / f"part-{FILES[1]}"
    figure.savefig(part, dpi=150)
    part.replace(folder / FILES[1])
