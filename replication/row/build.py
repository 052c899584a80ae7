"""The numbers of a row, of the tables of a run (`experiments`) or of the recorded one.

Runs no model. What is not there is null, and `missing` says why. An estimate is {value, low, high},
95 %, or {value, standard_error}; an end or a value that is null lies beyond what was measured.
"""

import json
from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd

from lib.data.prompts import LETTERS as NAMES
from lib.evaluation import SIGNAL, question_set, weighted_mean
from lib.models import registry
from replication import tables
from replication.analysis import curves, islands, statistics
from replication.analysis.bootstrap import ci95, resampled
from replication.beyond.letters import biases, option_ends
from replication.beyond.letters.biases import ACCURACY, CHANCE, LETTERS, UNBIASED
from replication.profiles.strategies import WITH_EXIT
from replication.row import experiments

DIGITS = 4
SCHEMA = 1  # of a row
ARC_EASY_BY_LETTER = experiments.BY_LETTER[0]
TASKS = (ARC_EASY_BY_LETTER, "arc_easy", "mmlu")  # by letter, by content, by letter
PAPERS_CUT_AND_EXIT = ("similarity", "early exit")
READ = {"options": option_ends.OPTIONS, "last_token": option_ends.LAST}  # by a probe
NOT_ASKED = "not measured"
VERSIONS = ("torch", "transformers")
FEW_SIZES = "not measured at so many sizes"
Tables = Mapping[str, pd.DataFrame]


def row_of(model: str, of_run: Tables, commit: str | None, reasons: Mapping[str, str]) -> dict:
    """Return the row of a model.

    of_run: tables by the names of their experiments, without those that are not there. commit: of
    the code. reasons: why parts are missing, by their path, where the tables do not say it.
    """
    own = {name: table[table.model == model] for name, table in of_run.items()}
    own = {name: table for name, table in own.items() if len(table)}
    distances = tables.distances_of(own["similarity"])
    scores = {task: scores_of(task, own) for task in TASKS}
    missing = _Missing(reasons)
    numbers = {
        "whole": {task: missing.at(f"whole.{task}", whole_of, scores[task]) for task in TASKS},
        "half_lost": {
            task: {
                strategy: missing.at(
                    f"half_lost.{task}.{strategy}", half_lost, scores[task], strategy
                )
                for strategy in WITH_EXIT
            }
            for task in TASKS
        },
        "exit_later": {
            task: missing.at(f"exit_later.{task}", later, scores[task]) for task in TASKS
        },
        "exit": {
            task: missing.at(f"exit.{task}", exit_answers, task, own, scores, missing)
            for task in experiments.BY_LETTER
        },
        "depth": missing.at("depth", depths, own.get("option_ends"), scores[ARC_EASY_BY_LETTER]),
        "islands": islands_of(model, distances),
        "loss": loss(own.get("unhealed"), distances.num_layers, missing),
    }
    answered = [task for task, of in numbers["whole"].items() if of and of["gap"] >= SIGNAL]
    about = origin(model, own, commit, distances.num_layers) | {"can_answer": answered}
    return about | numbers | {"missing": missing.why}


class Missing(Exception):
    """A number cannot be had of these tables; the message says why."""


class _Missing:
    """Which parts of a row are null, and why, by their path."""

    def __init__(self, reasons: Mapping[str, str]):
        self.reasons, self.why = reasons, {}

    def at(self, path: str, number, *args):
        """Return what `number` returns of `args`; null, and why, where it raises Missing."""
        try:
            return number(*args)
        except Missing as error:
            known = [why for start, why in self.reasons.items() if path.startswith(start)]
            self.why[path] = known[0] if known and str(error) == NOT_ASKED else str(error)
            return None


def origin(model: str, own: Tables, commit: str | None, num_layers: int) -> dict:
    """Return which weights, how they were held, by which code and on what they were measured."""
    rows = own["similarity"].iloc[0]
    texts = {text for table in own.values() for text in table.environment}
    made_on = [of for of in map(json.loads, texts) if of]
    is_local = registry.resolve(model).kind in ("folder", "gguf")
    return {
        "schema": SCHEMA,
        "model": registry.label(model) if is_local else model,
        "source": registry.hub_id(model) or registry.resolve(model).kind,
        "revision": rows["revision"],
        "dtype": rows["dtype"],
        "quantization": rows["quantization"],
        "layers": num_layers,
        "profile": rows["profile"],
        "commit": commit,
        "measured_on": sorted({of["card"] or of["processor"] for of in made_on}),
        "versions": sorted({f"{name} {of[name]}" for of in made_on for name in VERSIONS}),
    }


# ---- scores ----------------------------------------------------------------------------------


def scores_of(task: str, own: Tables) -> pd.DataFrame:
    """Return the scores of a task, whole and unhealed, of the first table that has cuts of it; else
    of the first that has the whole model."""
    order = ("forms", "second_model", "exits", "unhealed", "whole")
    if task == "mmlu":
        order = ("exits", "unhealed", "letter_biases", "whole")
    measured = [unhealed_scores(own[name], task) for name in order if name in own]
    measured = [scores for scores in measured if len(scores)]
    if not measured:
        return pd.DataFrame(columns=["block_size", "value"])
    with_cuts = (scores for scores in measured if (scores.block_size > 0).any())
    return next(with_cuts, measured[0])


def unhealed_scores(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return the measured scores of a task that are not healed."""
    of_task = table[table.task == task]
    unhealed = of_task[of_task.treatment != "healed"]
    return unhealed[unhealed.value.notna()]


def whole_of(scores: pd.DataFrame) -> dict:
    """Return what the whole model scores, of how many questions, and its floor."""
    whole = _whole(scores)
    numbers = {"floor": curves.floor(whole), "gap": curves.gap(whole)}
    return _score(whole.value, whole.standard_error) | _rounded(numbers) | _counts(whole)


def half_lost(scores: pd.DataFrame, strategy: str) -> dict:
    """Return the fraction of the layers dropped where half of the lead over the floor is lost."""
    whole = _with_signal(scores)
    line = _line(scores, strategy)
    return _interval(statistics.halfway(line)) | _counts(whole)


def later(scores: pd.DataFrame) -> dict:
    """Return how much later half is lost after an early exit than after the paper's cut, in
    fractions of the layers, paired on the questions."""
    whole = _with_signal(scores)
    lines = [_line(scores, strategy) for strategy in PAPERS_CUT_AND_EXIT]
    return _interval(statistics.later(*lines)) | _counts(whole)


def _whole(scores: pd.DataFrame):
    whole = scores[scores.block_size == 0]
    if whole.empty:
        raise Missing(NOT_ASKED)
    return whole.iloc[0]


def _with_signal(scores: pd.DataFrame):
    """Return the whole model's score. Raises Missing if it says nothing."""
    whole = _whole(scores)
    if not (gap := curves.gap(whole)) >= SIGNAL:
        raise Missing(curves.unclear(gap, whole.n))
    return whole


def _line(scores: pd.DataFrame, strategy: str) -> curves.Curve:
    points = scores[(scores.strategy == strategy) & (scores.block_size > 0)]
    if points.empty:
        raise Missing(NOT_ASKED)
    if len(points) + 1 < curves.FEWEST_DEPTHS:
        raise Missing(FEW_SIZES)
    return curves.curve(_whole(scores), points)


# ---- answers after an exit -------------------------------------------------------------------


def exit_answers(
    task: str, own: Tables, scores: Mapping[str, pd.DataFrame], missing: _Missing
) -> dict:
    """Return the answers after the smallest exit that costs half of the lead: as given, and with
    each letter's mean removed, over other questions of this task and over another task's.

    Of MMLU the exit is chosen on its first questions, and judged on the others where they are
    there. ARC-Easy has one set for both.
    """
    chosen_on, judged = _exit_sets(task, own, scores)
    whole = _with_signal(chosen_on)
    exits = chosen_on[chosen_on.strategy == "early exit"]
    half, *_ = statistics.halfway(_line(chosen_on, "early exit"))
    beyond = exits.block_size[exits.fraction >= half]
    if beyond.empty:
        raise Missing("half is not lost at the exits that are measured")
    dropped = int(beyond.min())
    at_exit = judged[(judged.strategy == "early exit") & (judged.block_size == dropped)]
    if at_exit.empty:
        raise Missing(NOT_ASKED)
    score = at_exit.iloc[0].to_dict()
    loglikelihoods, answers, weights = biases.answers_by_letter(score)
    measures = biases.letter_measures(at_exit).set_index("measure")
    given, unbiased = measures.loc[ACCURACY], measures.loc[UNBIASED]
    gained = np.subtract(unbiased.examples, given.examples)
    shares = np.bincount(loglikelihoods.argmax(axis=1), minlength=LETTERS) / len(answers)
    mean = partial(weighted_mean, weights=weights)

    def without_other_means() -> dict:
        means = _means_of_other(task, own, scores, dropped)
        relative = biases.relative_to_question(loglikelihoods) - means
        return _score(*mean(biases.correct(relative, answers)))

    whole = judged[judged.block_size == 0].iloc[0]
    return {
        "dropped": dropped,
        "whole": _score(whole.value, whole.standard_error),
        "as_given": _score(given.value, given.standard_error),
        "own_means_removed": _score(unbiased.value, unbiased.standard_error),
        "gain": _score(*mean(gained)),
        "other_means_removed": missing.at(f"exit.{task}.other_means_removed", without_other_means),
        "commonest": NAMES[shares.argmax()],
        "share": round(float(shares.max()), DIGITS),
    } | _counts(judged.iloc[0])


def _exit_sets(task: str, own: Tables, scores: Mapping[str, pd.DataFrame]) -> tuple:
    """Return the scores by which an exit is chosen, and those by which it is judged."""
    if task != "mmlu" or "letter_biases" not in own:
        return scores[task], scores[task]
    measured = own["letter_biases"]
    first, other = unhealed_scores(measured, "mmlu"), unhealed_scores(measured, "mmlu_other")
    return first, (other if (other.block_size > 0).any() else first)


def _means_of_other(task: str, own: Tables, scores, dropped: int) -> np.ndarray:
    """Return each letter's mean of the other task by letter after the same exit."""
    (other,) = (name for name in experiments.BY_LETTER if name != task)
    chosen_on, _ = _exit_sets(other, own, scores)
    cut = chosen_on[chosen_on.block_size == dropped]
    same = cut[cut.strategy == "early exit"] if len(cut) else cut
    if same.empty:
        raise Missing(NOT_ASKED)
    loglikelihoods, _, weights = biases.answers_by_letter(same.iloc[0].to_dict())
    return biases.letter_means(loglikelihoods, weights)


# ---- depths, islands, the loss ---------------------------------------------------------------


def depths(ends: pd.DataFrame | None, scores: pd.DataFrame) -> dict:
    """Return the first depth at which the whole model's answer to ARC-Easy by letter can be read at
    the options' ends and at the last token, and at which it is a letter.

    There an accuracy has half of its own largest lead over guessing. Depth d is after d layers.
    scores: of that task.
    """
    _with_signal(scores)
    if ends is None:
        raise Missing(NOT_ASKED)
    whole = ends[(ends.block_size == 0) & (ends.task == ARC_EASY_BY_LETTER) & ends.value.notna()]
    readings = READ | {"letter": option_ends.AS_LETTERS}
    rows = {name: whole[whole.reading == reading] for name, reading in readings.items()}
    if any(of_reading.empty for of_reading in rows.values()):
        raise Missing(NOT_ASKED)
    return {name: _first_depth(of) for name, of in rows.items()} | {"n": int(whole.n.iloc[0])}


def _first_depth(of_reading: pd.DataFrame) -> dict | None:
    of_reading = of_reading.sort_values("depth")
    answers = np.array(of_reading.answers.iloc[0])
    weights = np.array(of_reading.weights.iloc[0], float)
    right = np.array([_right(row, answers) for row in of_reading.itertuples()])
    values = resampled(right, weights, question_set(ARC_EASY_BY_LETTER))
    leads = values - CHANCE
    reached = leads >= leads.max(axis=1, keepdims=True) / 2
    first = of_reading.depth.to_numpy(float)[reached.argmax(axis=1)]
    return _interval(ci95(first))


def _right(row, answers: np.ndarray) -> np.ndarray:
    """Return 1 for each question that a reading at one depth answers rightly."""
    if row.reading == option_ends.AS_LETTERS:
        return biases.correct(np.stack(row.choices), answers)
    return (np.array(row.chosen) == answers).astype(float)


def islands_of(model: str, distances) -> dict:
    """Return the islands of similar layers in a map, and of how many texts it is."""
    table = islands.islands_table({model: distances})
    columns = ["side", "first_layer", "last_layer", "stability", "by_growth"]
    rows = [_plain(row) for row in table[columns].to_dict("records")]
    return {"n": distances.num_sequences, "found": rows}


def loss(unhealed: pd.DataFrame | None, num_layers: int, missing: _Missing) -> dict:
    """Return the loss on C4 in nats a token, whole and after three sizes of each cut."""
    measured = unhealed_scores(unhealed, "c4") if unhealed is not None else pd.DataFrame()

    def at(strategy: str, size: int) -> dict:
        if measured.empty:
            raise Missing(NOT_ASKED)
        same = measured[(measured.strategy == strategy) & (measured.block_size == size)]
        if same.empty:
            raise Missing(NOT_ASKED)
        return _score(same.iloc[0].value, same.iloc[0].standard_error) | _counts(same.iloc[0])

    numbers = {"whole": missing.at("loss.whole", at, "none", 0)}
    for size in experiments.loss_sizes(num_layers):
        numbers[str(size)] = {
            strategy: missing.at(f"loss.{size}.{strategy}", at, strategy, size)
            for strategy in WITH_EXIT
        }
    return numbers


# ---- plain numbers ---------------------------------------------------------------------------


def _counts(score) -> dict:
    """Return the number of questions or texts, and of examples before a question."""
    shots = score.get("shots")
    return {"n": int(score["n"])} | ({"shots": int(shots)} if pd.notna(shots) else {})


def _score(value: float, standard_error: float) -> dict:
    return _rounded({"value": value, "standard_error": standard_error})


def _interval(estimate: tuple[float, float, float]) -> dict:
    """Return a value and its ends. Raises Missing if neither is known."""
    if not np.isfinite(estimate).any():
        raise Missing("not defined: there is too little to lose")
    return _rounded(dict(zip(("value", "low", "high"), estimate, strict=True)))


def _rounded(numbers: Mapping[str, float]) -> dict:
    """Return numbers with DIGITS decimals; null for those that are not finite."""
    return {
        name: round(float(value), DIGITS) if np.isfinite(value) else None
        for name, value in numbers.items()
    }


def _plain(row: dict) -> dict:
    """Return a table's row as JSON has it."""
    values = {name: getattr(value, "item", lambda v=value: v)() for name, value in row.items()}
    numbers = {name: value for name, value in values.items() if isinstance(value, float)}
    return values | _rounded(numbers)
