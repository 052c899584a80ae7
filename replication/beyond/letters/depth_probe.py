"""At which depth is the answer in the state, and at which is it a letter?

Notebook 10. Questions by letter, whole and after some cuts: the state at the last token of each
question after every layer, as the final norm hands it to lm_head. Read from it are

- the letters: the log-likelihoods that an exit at this depth gives them, and
- a probe: ridge regression from the state to the *place* of the right option, of questions with
  four. It is cross-fitted by question: no question has a part in the probe that reads it, nor in
  the choice of that probe's strength. Its null: fitted to shuffled answers, and judged by them. The
  whole model's probe of a depth is also used on the cut model's states there: does the cut move the
  code?

Depths are those of the whole model: after a block of n layers from layer s on, the state that goes
into layer s + n stands at depth s + n, and is that of depth s.
"""

from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure

from replication.beyond.letters import probes, readings, states
from replication.beyond.letters.biases import (
    ACCURACY,
    FOLDS,
    UNBIASED,
    letter_measures,
    readouts,
)
from replication.figures import panels
from replication.figures.style import colour, nothing_measured
from replication.measure import fetching
from replication.measure.experiments import at_sizes
from replication.measure.question import Question
from replication.measure.request import BLOCK, Request, of_whole_model
from replication.profiles import Profile

VERSION = 1  # bumped by hand when the numbers change
TASKS = {  # the panels' rows, by what is most worth knowing
    "arc_easy_letters": "ARC-Easy, A to D",
    "arc_easy_symbols": "ARC-Easy, P to S",
    "mmlu": "MMLU, A to D",
}
CROSSED = ("arc_easy_letters", "mmlu")  # each read out by the other's answers
CUTS = {"similarity": (3, 5, 6), "simple": (3,)}  # layers dropped
SHUFFLES = 100  # of the answers
PROBED = 2000  # questions of MMLU, at most: all 14,042 would take days of a CPU beside an idle GPU
AS_LETTERS, PROBE, WHOLE_PROBE = "letters", "in the state", "the whole model's probe"
READ_OUT = "read out, from other questions"
LOOKS = {  # of each reading that is drawn; the table has all
    PROBE: {"color": colour("letters"), "marker": "o", "ms": 3, "label": PROBE},
    UNBIASED: {"color": "black", "marker": "D", "ms": 3, "mfc": "white"},
    ACCURACY: {"color": "black", "marker": "", "ls": ":", "label": "as answered"},
}
LOOKS[UNBIASED]["label"] = "as letters, biases removed"
DRAWN_CUTS = ("similarity", 3), ("simple", 3)  # the same number of layers


def depths(name: str, distances, profile: Profile) -> list[Request]:
    """Return each task whole and after CUTS, of the profile's `question_models`, on PROBED
    questions at most."""
    if name not in profile.question_models:
        return []
    of_a_subject = min(profile.mmlu_questions, PROBED // profile.mmlu_subjects)
    fewer = replace(profile, mmlu_questions=of_a_subject)
    requested = at_sizes(name, distances, fewer, list(TASKS), CUTS)
    return [one.of_kind("depths", depths_version=VERSION) for one in requested]


# ---- measuring ------------------------------------------------------------------------------


def _measured(params: dict) -> list[dict]:
    """Return the rows of a task after one cut."""
    task = readings.load_four_options(params)
    answers, weights = readings.answers_of(task)
    of_cut, letters = states.last_of_cut(params, task)
    of_whole = {}
    if params["block_size"]:
        of_whole, _ = states.last_of_cut(of_whole_model(params), task)
    rows = []
    for depth, of_depth in of_cut.items():
        by_letter = letters[depth]
        rows.append(readings.row_of_letters(depth, AS_LETTERS, by_letter, answers, weights))
        if len(answers) < FOLDS:
            continue
        choices = probes.cross_fitted_places(of_depth, of_depth, answers, SHUFFLES)
        rows.append(readings.row_of_probe(depth, PROBE, choices, answers, weights))
        if depth in of_whole:
            choices = probes.cross_fitted_places(of_whole[depth], of_depth, answers)
            rows.append(readings.row_of_probe(depth, WHOLE_PROBE, choices, answers, weights))
    return rows


# ---- the figure -----------------------------------------------------------------------------


def by_depth(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy of every reading, a row a cut, depth and reading.

    scores: of `readings.table`. The letters become two, as answered and with biases removed, and
    where both sets of CROSSED were asked a third, read out by the other's answers.
    """
    measured = scores[scores.value.notna()]
    letters = measured[measured.reading == AS_LETTERS]
    accuracies = letter_measures(letters)
    cut = ["model", "strategy", *BLOCK, "depth"]
    crossed = letters[letters.task.isin(CROSSED)]
    read = readouts(crossed.assign(questions=crossed.task), cut)
    read = read.assign(task=read.judged_on, reading=READ_OUT)
    rows = [
        measured[measured.reading != AS_LETTERS],
        accuracies.assign(reading=accuracies.measure),
        read,
    ]
    columns = [*cut, "task", "reading", "value", "standard_error", "null", "n", "strength"]
    return pd.concat(rows, ignore_index=True).reindex(columns=columns)


def figure_depth(scores: pd.DataFrame) -> Figure:
    """Draw accuracy against depth on ARC-Easy by letter: in the state, as letters, as answered.

    A panel is the whole model or a cut of DRAWN_CUTS. The figure's table has all tasks, cuts and
    readings.

    scores: of `readings.table`.
    """
    if scores.value.isna().all():
        return nothing_measured(scores)
    accuracies = by_depth(scores)
    first_task = next(task for task in TASKS if task in set(accuracies.task))
    drawn = accuracies[accuracies.task == first_task]
    places = readings.by_panel(drawn, TASKS[first_task], DRAWN_CUTS)
    legend = f"n = {drawn.n.max():.0f} questions; bars: 95 %"
    return panels.depth_panels(places, LOOKS, PROBE, accuracies, legend)


def at_the_end(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Return what every reading scores at the last depth, a row a task and cut; of a table of
    `by_depth`."""
    deepest = accuracies.groupby("model").depth.transform("max")
    last = accuracies[accuracies.depth == deepest]
    cut = ["model", "task", "strategy", "block_size"]
    return last.pivot_table("value", cut, "reading", sort=False)


# ---- the question ----------------------------------------------------------------------------

QUESTION = Question(
    "10_letters_and_content",
    experiments=(depths,),
    kinds={"depths": fetching.each(_measured)},
    tables={"depths": readings.table},
    figures={
        "figure_depth": "the answer at each depth: in the state, as letters, as answered; whole, "
        "and after 3 layers"
    },
)
