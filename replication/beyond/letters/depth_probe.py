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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib import storage
from lib.blocks import UNPRUNED, Block
from lib.evaluation import Task, weighted_mean
from replication.beyond.letters.biases import (
    ACCURACY,
    FOLDS,
    LETTERS,
    QUANTILE,
    UNBIASED,
    fold_of,
    letter_measures,
    readouts,
)
from replication.beyond.letters.ridge import STRENGTHS, ridge, unit
from replication.figures import panels
from replication.figures.style import colour, label, nothing_measured
from replication.measure import cache, fetching
from replication.measure.experiments import at_sizes
from replication.measure.question import Question
from replication.measure.request import BLOCK, Request, load_task
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
DRAWN_CUTS = {("none", 0), ("similarity", 3), ("simple", 3)}  # the same number of layers
NO_SCORE = {"depth": np.nan, "reading": None, "value": np.nan, "standard_error": np.nan, "n": 0}
NO_ROWS = ["model", *BLOCK, "task", "status", "choices"]


def depths(name: str, distances, profile: Profile) -> list[Request]:
    """Return each task whole and after CUTS, of the profile's `question_models`, on PROBED
    questions at most."""
    if name not in profile.question_models:
        return []
    of_a_subject = min(profile.mmlu_questions, PROBED // profile.mmlu_subjects)
    fewer = replace(profile, mmlu_questions=of_a_subject)
    requested = at_sizes(name, distances, fewer, list(TASKS), CUTS)
    versioned = {"depths_version": VERSION}
    return [Request("depths", one.params | versioned, one.labels) for one in requested]


# ---- measuring ------------------------------------------------------------------------------


def table(requests: Sequence[Request]) -> pd.DataFrame:
    """Return a row a cut, depth and reading.

    reading: AS_LETTERS has the letters' log-likelihoods (`choices`), and the accuracy as answered;
    PROBE and WHOLE_PROBE what a probe chose (`chosen`), its accuracy, the null and the median
    strength over folds.
    """
    pairs = zip(requests, fetching.fetch(requests), strict=True)
    rows = [NO_SCORE | request.labels | row for request, result in pairs for row in result]
    return pd.DataFrame(rows, columns=None if rows else [*NO_ROWS, *NO_SCORE])


def _measured(params: dict) -> list[dict]:
    """Return the rows of a task after one cut."""
    task = with_four_options(load_task(params))
    answers, weights = answers_of(task)
    states, letters = _read(params, task)
    of_whole = {}
    if params["block_size"]:
        of_whole, _ = _read(params | dict.fromkeys(BLOCK, 0), task)
    probes = {PROBE: states, WHOLE_PROBE: of_whole} if len(answers) >= FOLDS else {}
    rows = []
    for depth, of_depth in states.items():
        rows.append(row_of_letters(depth, AS_LETTERS, letters[depth], answers, weights))
        for reading, fit in probes.items():
            if depth in fit:
                shuffles = SHUFFLES if reading == PROBE else 0
                chosen, labels, strength = cross_fitted(fit[depth], of_depth, answers, shuffles)
                of_probe = {"chosen": chosen[0], "strength": strength, "null": None}
                if shuffles:
                    nulls = np.average(chosen[1:] == labels[1:], axis=1, weights=weights)
                    of_probe["null"] = float(np.quantile(nulls, QUANTILE))
                rows.append(row_of(depth, reading, chosen[0], answers, weights) | of_probe)
    return rows


def answers_of(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of each question's right option, and its weight in the mean: (n,), (n,)."""
    answers = [example["answer"] for example in task.examples]
    weights = [example["weight"] for example in task.examples]
    return np.array(answers), np.array(weights, float)


def row_of(depth: int, reading: str, chosen: np.ndarray, answers, weights) -> dict:
    """Return a row of the table: how often a reading at a depth has chosen rightly."""
    is_right = (chosen == answers).astype(float)
    value, error = weighted_mean(is_right, weights)
    return {
        "depth": depth,
        "reading": reading,
        "value": value,
        "standard_error": error,
        "n": len(answers),
        "answers": answers,
        "weights": weights,
    }


def row_of_letters(depth: int, reading: str, letters: np.ndarray, answers, weights) -> dict:
    """Return that of the likeliest of the letters, (n, letters), and what they score."""
    likeliest = letters.argmax(axis=1)
    row = row_of(depth, reading, likeliest, answers, weights)
    row["choices"] = list(letters.round(3))
    return row


def with_four_options(task: Task) -> Task:
    """Return the task's questions that have as many options as there are LETTERS."""
    four = [example for example in task.examples if len(example["choices"]) == LETTERS]
    return replace(task, examples=tuple(four))


def _read(params: dict, task: Task) -> tuple[dict, dict]:
    """Return what `read` gives by depth, from the folder beside the result if it is there, else
    kept there. A depth's states are in a file of their own, and in memory only when looked at.

    With that the probes can be fitted again without the model.
    """
    folder = cache.location("depths", params).with_suffix(".states")
    if not folder.exists():
        model, tokenizer = fetching.loaded(params)
        block = Block(*(params[key] for key in BLOCK))
        with storage.atomic_folder(folder) as part:
            part.mkdir(parents=True)
            for depth, arrays in read(model, tokenizer, task, block, params["batch_tokens"]):
                for name, array in arrays.items():
                    np.save(part / f"{name}-{depth:03}.npy", array)
    states, letters = {}, {}
    for name, of_name in (("states", states), ("letters", letters)):
        for file in sorted(folder.glob(f"{name}-*.npy")):
            of_name[int(file.stem.rpartition("-")[2])] = np.load(file, mmap_mode="r")
    return states, letters


def read(
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


# ---- the probe ------------------------------------------------------------------------------


def cross_fitted(
    fit: np.ndarray,
    judged: np.ndarray,
    answers: np.ndarray,
    shuffles: int = 0,
    folds_of: Callable[[np.ndarray], np.ndarray] = lambda answers: fold_of(len(answers)),
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the places that probes choose and those they were taught, each (1 + shuffles, n), and
    the median strength of the first.

    fit, judged: states (n, D) of the same questions. A probe is fitted on `fit` of four folds of
    questions, and reads `judged` of the fifth. All but the first are of shuffled answers.
    folds_of: the fold of each question, from the answers; by default by its number.
    """
    draw = np.random.default_rng(0)
    labels = np.array([answers, *(draw.permutation(answers) for _ in range(shuffles))])
    targets = np.eye(LETTERS)[labels].swapaxes(0, 1)  # (n, 1 + shuffles, letters)
    fit, judged = unit(fit), unit(judged)
    folds, strengths = folds_of(answers), []
    chosen = np.empty((len(labels), len(answers)), int)
    for fold in range(FOLDS):
        held, others = folds == fold, folds != fold
        errors = inner_errors(fit[others], targets[others], folds_of(answers[others]))
        best = errors.argmin(axis=0)
        outputs = ridge(fit[others], targets[others], judged[held])
        of_best = outputs[best, :, np.arange(len(labels))]
        chosen[:, held] = of_best.argmax(axis=2)
        strengths.append(STRENGTHS[best[0]])
    return chosen, labels, float(np.median(strengths))


def inner_errors(states: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return the squared errors on inner folds, (strengths, 1 + shuffles)."""
    errors = 0.0
    for fold in range(FOLDS):
        held = folds == fold
        outputs = ridge(states[~held], targets[~held], states[held])
        errors += np.square(outputs - targets[held]).sum(axis=(1, 3))
    return errors


# ---- the figure -----------------------------------------------------------------------------


def by_depth(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy of every reading, a row a cut, depth and reading.

    scores: of `table`. The letters become two, as answered and with biases removed, and where both
    sets of CROSSED were asked a third, read out by the other's answers.
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

    A panel is a cut of DRAWN_CUTS. Before the dropped layers a cut model is the whole one. The
    figure's table has all tasks, cuts and readings.

    scores: of `table`.
    """
    if scores.value.isna().all():
        return nothing_measured(scores)
    accuracies = by_depth(scores)
    first_task = next(task for task in TASKS if task in set(accuracies.task))
    drawn = accuracies[accuracies.task == first_task]
    whole = drawn[drawn.block_size == 0]
    places, several = {}, drawn.model.nunique() > 1
    for (model, strategy, start, size), of_cut in drawn.groupby(["model", "strategy", *BLOCK]):
        if (strategy, size) in DRAWN_CUTS:
            whole_name = "whole" if several else f"{label(model)}\nwhole"
            name = f"{strategy}, {size} layers" if size else whole_name
            before = whole[(whole.model == model) & (whole.depth <= start)]
            row = f"{TASKS[first_task]}\n{label(model)}" if several else TASKS[first_task]
            places[row, name] = pd.concat([before, of_cut]) if size else of_cut
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
    tables={"depths": table},
    figures={
        "figure_depth": "the answer at each depth: in the state, as letters, as answered; whole, "
        "and after 3 layers"
    },
)
