"""Eight silent errors beside the right way: nothing is raised, and the figure changes.

The wrong ways live only here, for exercises/pitfall_lab.ipynb. The right way is the library's.
"""

import inspect
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import HTML, Image
from matplotlib.figure import Figure
from torch import nn
from transformers import AutoModelForCausalLM

from lib.blocks import Block
from lib.data import sets
from lib.evaluation import Task
from lib.models import files
from lib.models.decoder import decoder_layers, layers_attribute, residual_stream
from lib.pruning import dropped
from lib.similarity import block_distances, calibration_batches, last_token_states
from lib.sweep import sweep
from replication.beyond import QUESTIONS
from replication.figures import style
from replication.figures.style import STYLE
from replication.measure.question import register
from replication.profiles import Profile

register(QUESTIONS)  # ARC-Easy by letter is theirs


TEXTS = 24
RIGHT = "right"


def source(*functions: Callable) -> HTML:
    """Return the code of functions, each folded under its name."""
    folded = "<details><summary><code>{}</code></summary><pre>{}</pre></details>"
    codes = [(function.__name__, escape(inspect.getsource(function))) for function in functions]
    return HTML("".join(folded.format(*code) for code in codes))


@dataclass(frozen=True)
class Pair:
    """The right and the wrong way of one pitfall: `table` has columns x, way and value.

    x, y: what its columns x and value are. way: "right", or what is done instead.
    """

    title: str
    x: str
    y: str
    table: pd.DataFrame

    @property
    def beside(self) -> pd.DataFrame:
        """A row per way, a column per x."""
        return self.table.pivot(index="way", columns="x", values="value").rename_axis(
            columns=self.x
        )


def texts_of_unequal_length(name: str, profile: Profile) -> dict:
    """One right-padded batch of C4 texts: `input_ids` and `attention_mask`, (TEXTS, T)."""
    texts = sets.c4("validation", profile.source, TEXTS)
    cut = [text[: 40 + 20 * i] for i, text in enumerate(texts)]
    limit = profile.similarity_tokens
    return next(calibration_batches(cut, files.tokenizer(name), limit, limit * len(cut)))


# ---- distances ----------------------------------------------------------------------------


@torch.inference_mode()
def final_norm(model, batch: dict) -> Pair:
    """hidden_states[-1] of HF is the output of the final norm, not of the last layer."""
    right = block_distances(model, [batch]).matrix[:-1, -1][::-1]
    batch = _on(model, batch)
    rows, last = range(len(batch["input_ids"])), batch["attention_mask"].sum(1) - 1
    hidden = model.get_decoder()(**batch, use_cache=False, output_hidden_states=True).hidden_states
    states = [x[rows, last] for x in hidden]
    to_last = [_angle(x, states[-1]).mean() for x in states[:-1]]
    wrong = to_last[::-1]
    ways = {RIGHT: right, "hidden_states[-1] as x^(L)": wrong}
    return _pair("After the final norm", "n", "d(x^(L-n), x^(L))", ways, first=1)


def half_precision(model, batch: dict) -> Pair:
    """Near one, bfloat16 has steps of 0.004: the arccos of a cosine then moves in leaps."""
    states = last_token_states(model, batch).bfloat16()
    unit = nn.functional.normalize(states, dim=-1)
    cosines = (unit[:, :-1] * unit[:, 1:]).sum(-1)
    angles = torch.arccos(cosines.clamp(-1, 1)).float()
    wrong = (angles.mean(0) / torch.pi).numpy(force=True)
    return _neighbours(model, batch, "Half precision", {"cosines in bfloat16": wrong})


@torch.inference_mode()
def last_token(model, batch: dict) -> Pair:
    """Position -1 of a right-padded batch is padding, for all but the longest text."""
    states = []
    with residual_stream(model, lambda l, x: states.append(x[:, -1])):
        model.get_decoder()(**_on(model, batch), use_cache=False)
    wrong = _steps(states)
    return _neighbours(model, batch, "The last token", {"position -1": wrong})


@torch.inference_mode()
def averages(model, batch: dict) -> Pair:
    """The paper averages angles, of the last tokens: not cosines, and not over all tokens."""
    batch = _on(model, batch)
    states, mask = [], batch["attention_mask"].bool()
    with residual_stream(model, lambda l, x: states.append(x)):
        model.get_decoder()(**batch, use_cache=False)
    last = last_token_states(model, batch).double().unbind(1)
    similar = [nn.functional.cosine_similarity(*pair, dim=-1).mean() for pair in _pairs(last)]
    ways = {
        "arccos of the mean cosine": [float(torch.arccos(mean)) / np.pi for mean in similar],
        "mean over all tokens": _steps([x[mask] for x in states]),
    }
    return _neighbours(model, batch, "What is averaged", ways)


def _on(model, batch: dict) -> dict:
    """The batch where the model is."""
    return {name: tensor.to(model.device) for name, tensor in batch.items()}


def _neighbours(model, batch: dict, title: str, wrong: dict) -> Pair:
    """The distances across one layer each, the right ones and those of the wrong ways."""
    right = block_distances(model, [batch]).row(1)
    return _pair(title, "l", "d(x^(l), x^(l+1))", {RIGHT: right} | wrong)


def _angle(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """Angular distances of the rows of x and y."""
    cosines = nn.functional.cosine_similarity(x.double(), y.double(), dim=-1)
    return (torch.arccos(cosines.clamp(-1, 1)) / torch.pi).numpy(force=True)


def _steps(states: Sequence[torch.Tensor]) -> list[float]:
    """The mean angular distance from each state to the next."""
    return [_angle(*pair).mean() for pair in _pairs(states)]


def _pairs(states: Sequence) -> zip:
    return zip(states[:-1], states[1:], strict=True)


# ---- scores -------------------------------------------------------------------------------


def stale_configuration(model, tokenizer, blocks: Sequence[Block], task: Task) -> Pair:
    """Layers removed, configuration kept: it loads at full depth, the missing layers random."""
    losses = [_loss(model, tokenizer, task)]
    for block in blocks:
        with tempfile.TemporaryDirectory() as folder:
            losses.append(
                _loss(_saved_without_configuration(model, block, folder), tokenizer, task)
            )
    wrong = {"config.json left as it was": losses}
    return _losses(model, tokenizer, blocks, task, "A configuration that does not follow", wrong)


def _saved_without_configuration(model, block: Block, folder: str):
    decoder, name, layers = model.get_decoder(), layers_attribute(model), decoder_layers(model)
    kept = block.kept(len(layers))
    setattr(decoder, name, nn.ModuleList(layers[l] for l in kept))
    try:
        model.save_pretrained(folder)
    finally:
        setattr(decoder, name, layers)
    torch.manual_seed(0)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype)
    return loaded.to(model.device).eval()


def unkeyed_cache(model, tokenizer, blocks: Sequence[Block], task: Task) -> Pair:
    """A store of scores by model and task: every pruned model is given the unpruned score."""
    store = {}

    def score():
        key = (model.name_or_path, task.name)
        if key not in store:
            store[key] = _loss(model, tokenizer, task)
        return store[key]

    losses = [score()]
    for block in blocks:
        with dropped(model, block):
            losses.append(score())
    wrong = {"stored by model and task": losses}
    return _losses(model, tokenizer, blocks, task, "A cache without the block in its key", wrong)


def inclusive_end(model, tokenizer, blocks: Sequence[Block], task: Task) -> Pair:
    """The end of a block is the first layer that stays: it is dropped, too, if read as the last."""
    most = len(decoder_layers(model))
    longer = [Block(block.start, min(block.size + 1, most - block.start)) for block in blocks]
    losses = sweep(model, tokenizer, longer, [task]).value
    wrong = {"layers start to stop": losses}
    return _losses(model, tokenizer, blocks, task, "An inclusive end", wrong)


def bare_letter(model, tokenizer, blocks: Sequence[Block], task: Task) -> Pair:
    """After "Answer:" the model writes " A", a token that begins with a space: "A" is another."""
    bare = []
    for example in task.examples:
        bare.append(example | {"choices": [choice.strip() for choice in example["choices"]]})
    ways = {RIGHT: task, 'the token "A"': replace(task, examples=tuple(bare))}
    for way, task_of_way in ways.items():
        scores = sweep(model, tokenizer, blocks, [task_of_way])
        ways[way] = [np.exp(np.stack(choices)).sum(1).mean() for choices in scores.choices]
    label = "probability of all letters"
    return _pair("A letter without its space", "layers dropped", label, ways, x=scores.block_size)


def _loss(model, tokenizer, task: Task) -> float:
    """The model's C4 loss as it stands."""
    return float(sweep(model, tokenizer, [], [task]).value[0])


def _losses(model, tokenizer, blocks, task: Task, title: str, wrong: dict) -> Pair:
    right = sweep(model, tokenizer, blocks, [task])
    ways = {RIGHT: right.value} | wrong
    return _pair(title, "layers dropped", "C4 loss (nats)", ways, x=right.block_size)


# ---- what comes out -----------------------------------------------------------------------


def _pair(title: str, x_label: str, y_label: str, ways: dict, first: int = 0, x=None) -> Pair:
    parts = []
    for way, values in ways.items():
        places = np.arange(first, first + len(values)) if x is None else x
        part = pd.DataFrame({"x": places, "way": way})
        parts.append(part.assign(value=np.asarray(values, dtype=float)))
    return Pair(title, x_label, y_label, pd.concat(parts, ignore_index=True))


def draw(pairs: Sequence[Pair]) -> Figure:
    """A panel per pitfall: the right way solid, wrong ones dashed."""
    across = min(4, len(pairs))
    down = -(-len(pairs) // across)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(down, across, figsize=(4.4 * across, 3.2 * down), squeeze=False)
        for axis, pair in zip(axes.flat, pairs, strict=False):
            for way, line in pair.table.groupby("way", sort=False):
                style = "-" if way == RIGHT else "--"
                axis.plot(line.x, line.value, style, marker=".", label=way)
            axis.set(title=pair.title, xlabel=pair.x, ylabel=pair.y)
            axis.legend()
        plt.close(figure)
    return figure


def save(pairs: Sequence[Pair], profile: Profile) -> Image:
    """All panels in one picture, figures/<profile>/pitfalls.png, and its .csv."""
    table = pd.concat([pair.table.assign(pitfall=pair.title) for pair in pairs])
    return style.save(style.finished(draw(pairs), table), "pitfalls", profile)
