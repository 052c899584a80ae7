"""Letters or content: is the cliff the model's, or the question's?

Notebook 10. The same questions asked by letter, as the paper asks them, and by content: by the
likelihood of each answer's text; along three kinds of cut, and by four measures.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.blocks import WITH_EXIT
from lib.evaluation import weighted_mean
from lib.models import registry
from replication.analysis.bootstrap import ci_columns, resampled
from replication.figures.curves import TASKS, grid
from replication.measure.experiments import QA, cuts, healed, unhealed, unpruned
from replication.measure.request import Request
from replication.profiles import Profile

FORMS = {  # a question set, and the tasks that ask it by letter and by content
    "mmlu": {"letters": "mmlu", "content": "mmlu_content"},
    "arc_easy": {"letters": "arc_easy_letters", "content": "arc_easy"},
}
MEASURES = ("accuracy", "margin (nats)", "share of the commonest answer", "bits per byte")
RISING = ("share of the commonest answer", "bits per byte")  # of MEASURES, as answers get worse
LINE = ["model", "task", "strategy", "treatment"]


def forms(name: str, distances, profile: Profile) -> list[Request]:
    """The same questions asked both ways, after as many solved examples, of the models to study.

    At every second size, also with an early exit; at every second depth where the profile heals,
    there healed, too. Columns questions and form.
    """
    if name not in profile.study_models:
        return []
    profile, layers = profile.with_prompt(profile.mmlu_shots), distances.num_layers
    depths = healed_depths(profile, layers, name)
    sizes = sorted({*profile.block_sizes(layers)[::2], *depths})
    wanted = []
    for questions, tasks in FORMS.items():
        for form, task in tasks.items():
            labels = {"questions": questions, "form": form}
            wanted += unpruned(name, profile, [task], **labels)
            wanted += cuts(name, distances, profile, [task], WITH_EXIT, sizes, **labels)
            wanted += healed(name, distances, profile, [task], sizes=depths, labels=labels)
    return wanted


def healed_depths(profile: Profile, layers: int, name: str) -> list[int]:
    """Every second number of layers dropped at which the profile heals; at most two: all."""
    depths = profile.healed_sizes(layers, name)
    return depths[1::2] if len(depths) > 2 else depths


def exits(name: str, distances, profile: Profile) -> list[Request]:
    """MMLU and ARC-Easy at every size, also with an early exit, of the models to study."""
    if name not in profile.study_models:
        return []
    return unhealed(name, distances, profile, QA[::2], WITH_EXIT)


# ---- the statistics -------------------------------------------------------------------------


def measures(scores: pd.DataFrame) -> pd.DataFrame:
    """The same answers by four measures, one row a score and measure, from stored log-likelihoods.

    accuracy: the threshold that the paper looks at. margin: log-likelihood of the right choice
    minus that of the best wrong one, mean. share of the commonest answer: how often the place is
    chosen that is chosen most. bits per byte: of the right choice. Columns value, standard_error
    and examples are those of the measure; a score that is missing is missing by every measure.
    """
    rows = []
    for score in scores[scores.choices.notna() | scores.value.isna()].to_dict("records"):
        by_measure = _by_measure(score) if pd.notna(score["value"]) else {}
        for measure in MEASURES:
            row = score | {"measure": measure}
            if by_measure:
                examples = by_measure[measure]
                value, error = weighted_mean(examples, np.asarray(score["weights"], float))
                row |= {"value": value, "standard_error": error, "examples": examples}
            if measure != "accuracy":  # chance and floor are accuracies
                row |= dict.fromkeys(("chance", "majority", "floor"), np.nan)
            rows.append(row)
    return pd.DataFrame(rows)


def _by_measure(score: dict) -> dict[str, np.ndarray]:
    """The value of each question of a score by each of MEASURES."""
    chosen, margins, right = [], [], []
    for loglikelihoods, answer in zip(score["choices"], score["answers"], strict=True):
        chosen.append(int(loglikelihoods.argmax()))
        margins.append(loglikelihoods[answer] - np.delete(loglikelihoods, answer).max())
        right.append(loglikelihoods[answer])
    weights = np.asarray(score["weights"], float)
    bits = -np.array(right) / np.log(2)
    commonest = np.bincount(chosen, weights).argmax()
    of_a_byte = score["bits_per_byte"] / (bits @ weights / weights.sum())
    values = (
        np.asarray(score["examples"], float),
        np.array(margins),
        (np.array(chosen) == commonest) * 1.0,
        bits * of_a_byte,
    )
    return dict(zip(MEASURES, values, strict=True))


def largest_step(measured: pd.DataFrame) -> pd.DataFrame:
    """Is the fall a cliff? The share of it that the one worst step between two depths takes.

    measured: of `measures`. A row a line and measure: largest_step with its 95 % interval over
    resampled questions, of the whole way between the best and the worst value of the line; even:
    what it would be if all steps were equal. depths: how many.
    """
    measured = measured[measured.value.notna()]
    unpruned = measured[measured.treatment == "unpruned"]
    pruned = measured[measured.block_size > 0]
    rows = []
    for (measure, *key), points in pruned.groupby(["measure", *LINE]):
        model, task, *_ = key
        same = (unpruned.model == model) & (unpruned.task == task)
        start = unpruned[same & (unpruned.measure == measure)]
        line = pd.concat([start.head(1), points.sort_values("fraction")])
        weights = np.asarray(line.weights.iloc[0], float)
        values = resampled(np.stack(line.examples), weights)
        falls = np.diff(values) * (1 if measure in RISING else -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = falls.max(1) / np.ptp(values, axis=1)
        row = {"measure": measure} | dict(zip(LINE, key, strict=True))
        row |= ci_columns(share, "largest_step")
        depths = len(points)
        rows.append(row | {"even": 1 / depths, "depths": depths, "n": line.n.iloc[0]})
    return pd.DataFrame(rows)


# ---- the figures ----------------------------------------------------------------------------


def figure_measures(measured: pd.DataFrame, profile: Profile) -> Figure:
    """The same answers by four measures, a row a model and task; measured: of `measures`."""
    tasks = measured.task.map(TASKS).str.removesuffix(" accuracy")
    panels = measured.model.map(registry.label) + "\n" + tasks
    table = measured.assign(panel=panels)
    titles = measured.measure.replace("share of the commonest answer", "commonest")
    return grid(table, titles, "strategy", "figure_measures", profile, of="panel", sharey="none")


def figure_letters(scores: pd.DataFrame, profile: Profile) -> Figure:
    """The same questions by letter and by content, a row a model and question set."""
    panels = scores.model.map(registry.label) + "\n" + scores.questions.map(TASKS)
    table = scores.assign(variant=scores.form, panel=panels)
    return grid(table, table.strategy, "variant", "figure_letters", profile, of="panel")


def figure_cuts(scores: pd.DataFrame, profile: Profile) -> Figure:
    """MMLU and ARC-Easy, unhealed, with three kinds of cut; a column a model."""
    titles, tasks = scores.model.map(registry.label), QA[::2]
    return grid(scores, titles, "strategy", "figure_cuts", profile, tasks)
