"""What decides the letter? States are moved from one run into another, and ways are closed.

Notebook 10. A probe says what can be read from a state, not what the model does with it. So here
one thing is changed in the last tokens of a question, and the letters are read again. All tokens
before them stay as they are.

- WHOLE_STATE: the last token's state of the whole model is put into a cut model, at one depth after
  the cut. Do the right letters come back?
- OTHER_STATE: that of *another* question, which got another letter, is put into the whole model.
  From which depth on is the answer the other question's?
- NO_OPTIONS: the tokens after the options no longer attend to the options' lines, in some layers.
  NO_QUESTION, a control: to the question's own text.

The tokens before the last ones are read once, and their keys and values kept; every variant of a
question is a row of one batch of a token or two (`letters_of_variants`).
"""

from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.blocks import Block
from lib.evaluation import Task
from replication.beyond.letters import readings
from replication.beyond.letters.option_lines import line_ends, line_starts, token_at
from replication.beyond.letters.states import last_of_whole
from replication.figures import panels
from replication.figures.style import (
    STYLE,
    WIDTH,
    colour,
    finished,
    label,
    note_above,
    nothing_measured,
    only_recorded,
)
from replication.measure import fetching
from replication.measure.experiments import at_sizes
from replication.measure.question import Question
from replication.measure.request import Request, block_of
from replication.profiles import Profile

VERSION = 1  # bumped by hand when the numbers change
TASK = "arc_easy_letters"
CUTS = {"similarity": (3, 6), "simple": (3,)}  # layers dropped
AS_IT_IS = "as it is"
WHOLE_STATE, OTHER_STATE = "the whole model's state", "another question's state"
NO_OPTIONS, NO_QUESTION = "no attention to the options", "no attention to the question"
FIRST = 0.5  # of the depth: OTHER_STATE is put in from here on
WINDOWS = {"early": (0.36, 0.58), "middle": (0.58, 0.79), "late": (0.79, 1.0)}  # of the layers
CUT = ["strategy", "block_size"]
MARKERS_OF_SIZE = {3: "^", 6: "o"}
TITLES = {  # of the panels, with what stands below their axes
    "cut models,\nwith the whole one's state": "put in at depth",
    "the whole model, with\nanother question's state": "put in at depth",
    "the whole model, where\nlayers do not see a part": "layers",
}
LOOKS = {
    NO_OPTIONS: {"color": colour("letters"), "marker": "o"},
    NO_QUESTION: {"color": "0.6", "marker": "x"},
}


@dataclass(frozen=True)
class Variant:
    """One change: a state put in at a depth, or keys that some layers do not see."""

    reading: str
    depth: int | None = None
    layers: tuple[int, int] | None = None  # first, and the one after the last


def transplants(name: str, distances, profile: Profile) -> list[Request]:
    """Return ARC-Easy by letter with every change, whole and after CUTS, of the profile's
    `question_models`."""
    if name not in profile.question_models:
        return []
    requested = at_sizes(name, distances, profile, [TASK], CUTS)
    return [one.of_kind("transplants", transplants_version=VERSION) for one in requested]


def _measured(params: dict) -> list[dict]:
    """Return the rows of one cut, a row a variant: reading, depth, layers (as "16 to 21"), choices
    (n, 4).

    value: the accuracy; of OTHER_STATE how often the answer is the letter that the other question
    got. `donors`: which question that is.
    """
    model, tokenizer = fetching.loaded(params)
    task = readings.load_four_options(params)
    answers, weights = readings.answers_of(task)
    of_whole, letters = last_of_whole(params, ["transplants_version"])
    block = block_of(params)
    variants = _variants(block, of_whole.shape[1] - 1)
    given_letters = letters.argmax(axis=1)
    donors = np.arange(len(answers)) if block.size else others(given_letters)
    choices = letters_of_variants(model, tokenizer, task, block, variants, of_whole[donors])
    rows = []
    for variant, of_variant in zip(variants, choices, strict=True):
        place = variant.depth, variant.reading
        row = readings.row_of_letters(*place, of_variant, answers, weights)
        if variant.reading == OTHER_STATE:
            of_donors = given_letters[donors]
            row |= readings.row_of(*place, of_variant.argmax(axis=1), of_donors, weights)
            row |= {"answers": answers, "donors": donors}
        first, stop = variant.layers or (None, None)
        row["layers"] = variant.layers and f"{first} to {stop - 1}"
        rows.append(row)
    return rows


def _variants(block: Block, num_layers: int) -> list[Variant]:
    """Return what is changed after a cut, or in the whole model; first, nothing."""
    variants = [Variant(AS_IT_IS)]
    if block.size:
        return variants + [Variant(WHOLE_STATE, depth) for depth in range(block.stop, num_layers)]
    depths = range(round(FIRST * num_layers), num_layers)
    variants += [Variant(OTHER_STATE, depth) for depth in depths]
    for first, stop in WINDOWS.values():
        window = round(first * num_layers), round(stop * num_layers)
        variants += [Variant(NO_OPTIONS, layers=window), Variant(NO_QUESTION, layers=window)]
    return variants


def figure_transplants(scores: pd.DataFrame) -> Figure:
    """Draw the answers after one change, a panel each: the whole model's state in cut models, by
    the depth where it is put in; another question's state in the whole model; layers without
    attention from the last tokens to the options' lines, or to the question's.

    scores: of `readings.table`.
    """
    if scores.value.isna().all():
        return nothing_measured(scores)
    models = list(scores.model.unique())
    with plt.rc_context(STYLE):
        size = WIDTH, 0.8 + 2.1 * len(models)
        shape = {"figsize": size, "sharey": True, "squeeze": False}
        figure, axes = plt.subplots(len(models), len(TITLES), **shape)
        for of_row, model in zip(axes, models, strict=True):
            _draw_model(of_row, scores[scores.model == model])
            of_row[0].set_ylabel("share of questions" + f"\n{label(model)}" * (len(models) > 1))
        names = ", ".join(map(label, models))
        note_above(figure, only_recorded({(names, ""): scores}))
        legend = f"{names}, n = {scores.n.max():.0f} questions of ARC-Easy; bars: 95 %"
        return finished(figure, scores, legend=legend)


def _draw_model(axes, scores: pd.DataFrame) -> None:
    """Draw the three panels of one model."""
    into_cuts, into_whole, closed = axes
    whole = scores[scores.block_size == 0]
    _draw_cuts(into_cuts, scores[scores.block_size > 0])
    as_it_is = whole[whole.reading == AS_IT_IS].value.max()
    as_given = "right, unchanged (cuts: hollow)"
    into_cuts.axhline(as_it_is, color="black", ls=":", lw=1, label=as_given)
    other = whole[whole.reading == OTHER_STATE]
    panels.line(into_whole, other, "depth", "the other question's letter", color="black")
    into_whole.axhline(0.5, color="grey", lw=1, label="one half")
    for reading, look in LOOKS.items():
        rows = whole[whole.reading == reading].assign(x=range(len(WINDOWS)))
        panels.line(closed, rows, "x", reading, ls="", ms=5, **look)
        closed.set_xticks(rows.x, rows.layers)
    closed.axhline(as_it_is, color="black", ls=":", lw=1)
    closed.set_xlim(-0.5, len(WINDOWS) - 0.5)
    for axis, (title, xlabel) in zip(axes, TITLES.items(), strict=True):
        axis.set(ylim=(0, 1), xlabel=xlabel)
        axis.set_title(title, loc="left")


def _draw_cuts(axis, scores: pd.DataFrame) -> None:
    """Draw of each cut what it answers with the whole model's state, and dotted as it is."""
    for (strategy, size), of_cut in scores.groupby(CUT, sort=False):
        look = {"color": colour(strategy), "marker": MARKERS_OF_SIZE.get(size, "s"), "ms": 4}
        name = f"{size} layers dropped ({strategy})"
        given = of_cut[of_cut.reading == WHOLE_STATE]
        panels.line(axis, given, "depth", name, **look)
        before = of_cut[of_cut.reading == AS_IT_IS].value.max()
        axis.axhline(before, color=colour(strategy), ls=":", lw=1)
        # at the edge the cut's own mark says which cut the dotted line is of
        look |= {"mfc": "white", "clip_on": False}
        axis.plot([1], [before], transform=axis.get_yaxis_transform(), **look)


def others(letters: np.ndarray) -> np.ndarray:
    """Return for each question the next one that got another letter, (n,); itself if there is
    none."""
    n = len(letters)
    donors = np.arange(n)
    for i in range(n):
        after = (i + np.arange(1, n)) % n
        differing = after[letters[after] != letters[i]]
        donors[i] = differing[0] if len(differing) else i
    return donors


def letters_of_variants(
    model,
    tokenizer,
    task: Task,
    block: Block,
    variants: Sequence[Variant],
    states: np.ndarray,
) -> np.ndarray:
    """Return the letters' log-likelihoods of every variant, (variants, n, LETTERS).

    states: (n, L + 1, D), what is put into each question, by its depth in the whole model.
    """
    import torch
    from tqdm.auto import tqdm

    from lib.models.decoder import decoder_layers, fp32_target_logits, run_decoder
    from lib.pruning import dropped

    rows = [row for (row,) in task.rows(tokenizer)]
    places = [_places(example, tokenizer) for example in task.examples]
    stops = [of_row.options.stop for of_row in places]  # after it the last tokens begin
    choices = []
    with torch.inference_mode(), dropped(model, block):
        # a token of each question is left to read before its last ones
        starts = [row.tokens[: stop - 1] for row, stop in zip(rows, stops, strict=True)]
        shared = _SharedStart(model, starts)
        kept = block.kept(states.shape[1] - 1)
        layers = dict(zip(kept, decoder_layers(model), strict=True))
        questions = zip(tqdm(rows, desc="transplants"), places, stops, states, strict=True)
        for row, of_row, stop, given in questions:
            cache = shared.up_to(row.tokens[:stop], len(variants))
            ids = torch.tensor([row.tokens[stop:]] * len(variants), device=model.device)
            given = torch.from_numpy(given)
            with _changed(layers, variants, given, of_row, ids, len(row.tokens)):
                last = run_decoder(model, ids, cache)[:, -1]
            targets = torch.tensor(row.target_ids, device=model.device)
            targets = targets.expand(len(last), -1)
            logits = fp32_target_logits(model, last, targets)
            logprobs = logits.log_softmax(-1).gather(1, targets)
            choices.append(logprobs.cpu().numpy())
    return np.stack(choices, axis=1).astype(float)


@contextmanager
def _changed(layers: dict, variants: Sequence[Variant], given, places, ids, length: int):
    """Change what each row of a batch computes as its variant says.

    layers: by their number in the whole model. given: (L + 1, D), the states to put in. length: of
    the prompt, whose last tokens are `ids`, (variants, tail).
    """
    unseen = {NO_OPTIONS: places.options, NO_QUESTION: places.question}
    with ExitStack() as hooks:
        for row, variant in enumerate(variants):
            if variant.depth is not None:
                hook = _putting_in(given[variant.depth], row)
                layer = layers[variant.depth]
                hooks.enter_context(layer.register_forward_pre_hook(hook, with_kwargs=True))
        for number, layer in layers.items():
            closed = {
                row: unseen[variant.reading]
                for row, variant in enumerate(variants)
                if variant.layers and number in range(*variant.layers)
            }
            if closed:
                # a weight in 4 bits is a row of bytes
                like = next(p for p in layer.parameters() if p.is_floating_point())
                hook = _with_mask(_mask(ids.shape, length, closed, like))
                attention = next(of for name, of in layer.named_children() if "attn" in name)
                hooks.enter_context(attention.register_forward_pre_hook(hook, with_kwargs=True))
        yield


class _SharedStart:
    """The keys and values of what all questions begin with: their solved examples."""

    def __init__(self, model, tokens: Sequence[Sequence[int]]):
        import os

        import torch
        from transformers import DynamicCache

        from lib.models.decoder import decoder_config, run_decoder

        self.model, self.start = model, os.path.commonprefix(list(tokens))
        self.cache = DynamicCache(config=decoder_config(model))
        if self.start:
            ids = torch.tensor([self.start], device=model.device)
            run_decoder(model, ids, self.cache)

    def up_to(self, tokens: Sequence[int], rows: int):
        """Return the cache of so many equal rows of these tokens."""
        import torch

        from lib.models.decoder import run_decoder
        from lib.sweep import repeated

        cache = repeated(self.cache, 1)
        ids = torch.tensor([tokens[len(self.start) :]], device=self.model.device)
        run_decoder(self.model, ids, cache)
        return repeated(cache, rows)


@dataclass(frozen=True)
class _Places:
    """Which tokens of a prompt are those of its question, and of its options' lines."""

    question: range
    options: range


def _places(example: dict, tokenizer) -> _Places:
    from lib.data.encoding import prompt_within_limit

    prompt, _ = prompt_within_limit(example, tokenizer)
    offsets = tokenizer(prompt, return_offsets_mapping=True).offset_mapping
    begins = line_starts(prompt, example["choices"])[0]
    first = token_at(begins, offsets)
    last = token_at(line_ends(prompt, example["choices"])[-1], offsets)
    before = prompt.rfind("\n\n", 0, begins)
    begin = token_at(before + 1, offsets) + 1 if before >= 0 else 0
    return _Places(range(begin, first), range(first, last + 1))


def _putting_in(state, row: int):
    """Return a hook that puts a state in place of the last token's, in one row."""

    def hook(module, args, kwargs):
        inputs = (args[0] if args else kwargs["hidden_states"]).clone()
        inputs[row, -1] = state.to(inputs)
        if args:
            return (inputs, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": inputs}

    return hook


def _mask(shape, length: int, closed: dict[int, range], like):
    """Return what each of the last tokens attends to, (rows, 1, tail, length): 0, or -inf where it
    does not: what comes after it, and in the rows of `closed` those tokens."""
    import torch

    rows, tail = shape
    mask = torch.zeros(rows, 1, tail, length, dtype=like.dtype, device=like.device)
    after = torch.ones(tail, tail, dtype=torch.bool, device=like.device).triu(1)
    mask[..., length - tail :].masked_fill_(after, -torch.inf)
    for row, places in closed.items():
        mask[row, :, :, places.start : places.stop] = -torch.inf
    return mask


def _with_mask(mask):
    return lambda module, args, kwargs: (args, kwargs | {"attention_mask": mask})


# ---- the question ----------------------------------------------------------------------------

QUESTION = Question(
    "10_letters_and_content",
    experiments=(transplants,),
    kinds={"transplants": fetching.each(_measured)},
    tables={"transplants": readings.table},
    figures={
        "figure_transplants": "what decides the letter: the last token's state moved into other "
        "runs, and layers that do not see the options"
    },
)
