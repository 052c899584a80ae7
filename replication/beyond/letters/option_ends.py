"""Where in the question is the answer? At the ends of the options, and at the last token.

Notebook 10. ARC-Easy by letter (A to D, P to S), whole and after cuts of equal sizes. Two probes
read states after every layer (`states`), each cross-fitted by question with folds that hold each
right place alike:

- OPTIONS: which option is right, from the last token of each option's line (`probes`);
- LAST: the place of the right option, from the last token of the prompt (as in `depth_probe`).

Controls of the first: its strength times 0.1 and 10, random numbers in place of states (GAUSSIAN),
and how long an option is and which words it shares with its question (WORDS).
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.blocks import UNPRUNED
from lib.evaluation import Task
from replication.beyond.letters import depth_probe, probes, readings, states
from replication.beyond.letters.biases import FOLDS
from replication.beyond.letters.depth_probe import SHUFFLES
from replication.beyond.letters.option_lines import lines_of
from replication.figures import panels
from replication.figures.style import colour, nothing_measured
from replication.measure import fetching
from replication.measure.experiments import at_sizes
from replication.measure.question import Question
from replication.measure.request import Request
from replication.profiles import Profile

VERSION = 1  # bumped by hand when the numbers change
TASKS = "arc_easy_letters", "arc_easy_symbols"
CUTS = {"similarity": (3, 5, 6), "simple": (3, 5, 6)}  # layers dropped
DRAWN_CUTS = ("similarity", 3), ("similarity", 6), ("simple", 6)
AS_LETTERS, LAST, OPTIONS = "letters", "at the last token", "at the options"
CONTROLS = {"at the options, strength x 0.1": 0.1, "at the options, strength x 10": 10.0}
GAUSSIAN, WORDS = "at the options, random numbers", "at the options, lengths and words"
LOOKS = {  # of each reading
    OPTIONS: {"color": colour("content"), "marker": "s", "ms": 3, "label": "the options' ends"},
    LAST: {"color": colour("letters"), "marker": "o", "ms": 3, "label": "the last token"},
    AS_LETTERS: {"color": "black", "marker": "", "ls": ":", "label": "as answered"},
}


def option_ends(name: str, distances, profile: Profile) -> list[Request]:
    """Return each task whole and after CUTS, of the profile's `question_models`; of each of
    `other_models` ARC-Easy by A to D, whether its answers as given have a signal or not."""
    if name in profile.question_models:
        requested = at_sizes(name, distances, profile, TASKS, CUTS)
    elif name in profile.other_models:
        requested = at_sizes(name, distances, profile, TASKS[:1], CUTS, asked_anyway=True)
    else:
        return []
    return [one.of_kind("option_ends", option_ends_version=VERSION) for one in requested]


# a row a cut, depth and reading: as of `readings.table`, with `chosen`, `null` and `strength`
def _measured(params: dict) -> list[dict]:
    """Return the rows of one cut."""
    task = readings.load_four_options(params)
    answers, weights = readings.answers_of(task)
    stored = states.at_option_ends(params)
    rows = [] if params["block_size"] != UNPRUNED.size else _controls(task, stored)
    for depth in stored.depths:
        by_letter = stored.letters[depth]
        rows.append(readings.row_of_letters(depth, AS_LETTERS, by_letter, answers, weights))
        if len(answers) < FOLDS:
            continue
        last = stored.last[depth]
        folds_of = probes.stratified
        choices = probes.cross_fitted_places(last, last, answers, SHUFFLES, folds_of)
        rows.append(readings.row_of_probe(depth, LAST, choices, answers, weights))
        options, factors = stored.options[depth], list(CONTROLS.values())
        by_strength = probes.cross_fitted_options(options, answers, SHUFFLES, factors)
        for reading, choices in zip([OPTIONS, *CONTROLS], by_strength, strict=True):
            rows.append(readings.row_of_probe(depth, reading, choices, answers, weights))
    return rows


def _controls(task: Task, stored: states.States) -> list[dict]:
    """Return what the probe of options reads where no state is."""
    answers, weights = readings.answers_of(task)
    if len(answers) < FOLDS:
        return []
    draw = np.random.default_rng(0)
    gaussian = draw.normal(size=next(iter(stored.options.values())).shape)
    words = lengths_and_words(task)
    rows = []
    for reading, inputs in ((GAUSSIAN, gaussian), (WORDS, words)):
        choices, *_ = probes.cross_fitted_options(inputs, answers, SHUFFLES)
        rows.append(readings.row_of_probe(None, reading, choices, answers, weights))
    return rows


def lengths_and_words(task: Task) -> np.ndarray:
    """Return of each option its length in characters and words, and how many words of it its
    question has, too, as a count and as a share: (n, options, 4)."""
    inputs = []
    for example in task.examples:
        question, options = lines_of(example)
        known = set(question.lower().split())
        rows = []
        for option in options:
            words = option.lower().split()
            shared = sum(word in known for word in words)
            rows.append([len(option), len(words), shared, shared / max(1, len(words))])
        inputs.append(rows)
    inputs = np.array(inputs, float)
    return (inputs - inputs.mean(axis=(0, 1))) / inputs.std(axis=(0, 1)).clip(1e-9)


def figure_options(scores: pd.DataFrame) -> Figure:
    """Draw accuracy against depth: at the options' ends, at the last token, and as an exit at that
    depth answers. A row is a model, a column the whole model or a cut of DRAWN_CUTS.

    Drawn are ARC-Easy by A to D and the models that are asked it with a signal, or all if there are
    none. The figure's table has all models and questions. scores: of `readings.table`.
    """
    if scores.value.isna().all():
        return nothing_measured(scores)
    shown = scores[scores.reading.isin(LOOKS) & scores.value.notna()]
    task = shown.task.iloc[0]
    drawn = shown[shown.task == task]
    has_signal = drawn.get("asked_anyway", pd.Series(index=drawn.index)).isna()
    drawn = drawn[has_signal | ~has_signal.any()]
    places = readings.by_panel(drawn, depth_probe.TASKS[task], DRAWN_CUTS)
    legend = f"n = {drawn.n.max():.0f} questions; bars: 95 %"
    return panels.depth_panels(places, LOOKS, OPTIONS, shown, legend)


# ---- the question ----------------------------------------------------------------------------

QUESTION = Question(
    "10_letters_and_content",
    experiments=(option_ends,),
    kinds={"option_ends": states.together(fetching.each(_measured))},
    tables={"option_ends": readings.table},
    figures={
        "figure_options": "where the answer is: at the ends of the options, at the last token, "
        "as a letter"
    },
)
