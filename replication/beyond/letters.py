"""Letters or content: is the cliff the model's, or the question's?

Notebook 10. The same questions asked by letter, as the paper asks them, and by content: by the
likelihood of each answer's text. Between both: the options are listed, and their text counts. Along
three kinds of cut, and by four measures.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.blocks import WITH_EXIT
from lib.data import encoding, prompts
from lib.evaluation import KINDS, weighted_mean
from lib.models import registry
from replication.analysis import curves
from replication.analysis.bootstrap import ci_columns, resampled
from replication.figures.curves import CONSTANT, TASKS, grid
from replication.figures.style import NORMAL, finding
from replication.measure.experiments import QA, cuts, healed, unhealed, unpruned
from replication.measure.request import TASK_VERSIONS, Request
from replication.profiles import Profile

FORMS = {  # a question set, and the tasks that ask it by letter, by content and between
    "mmlu": {"letters": "mmlu", "content": "mmlu_content"},
    "arc_easy": {
        "letters": "arc_easy_letters",
        "content": "arc_easy",
        "listed text": "arc_easy_listed",
    },
}
ABOUT = "The following are questions (with answers) about {}.\n\n"


def mmlu_content(*args, **counts) -> list[dict]:
    """Return MMLU with each option's text as a choice that the question does not show.

    A prompt has as many solved examples as by letter (`other_parts`): the longer of both fits.
    """
    content = prompts.mmlu(*args, **counts, form=prompts.by_content, about=ABOUT)
    by_letter = prompts.mmlu(*args, **counts)
    pairs = zip(content, by_letter, strict=True)
    return [one | {"other_parts": other["parts"]} for one, other in pairs]


def by_listed_text(question: str, texts: list[str]) -> tuple[str, list[str]]:
    """Return a prompt that lists the options, and their texts as its choices."""
    prompt, _ = prompts.by_letter(question, texts)
    return prompt, [f" {text}" for text in texts]


ARC_EASY = KINDS["arc_easy"]
KINDS["mmlu_content"] = replace(KINDS["mmlu"], build=mmlu_content, rows=encoding.completions)
KINDS["arc_easy_letters"] = replace(
    ARC_EASY,
    build=partial(prompts.arc_easy, form=prompts.by_letter),
    rows=encoding.one_token_choices,
)
KINDS["arc_easy_listed"] = replace(ARC_EASY, build=partial(prompts.arc_easy, form=by_listed_text))
TASK_VERSIONS["mmlu_content"] = 1  # its blind prompt, too

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
    requested = []
    for questions, tasks in FORMS.items():
        for form, task in tasks.items():
            labels = {"questions": questions, "form": form}
            requested += unpruned(name, profile, [task], **labels)
            requested += cuts(name, distances, profile, [task], WITH_EXIT, sizes, **labels)
            requested += healed(name, distances, profile, [task], sizes=depths, labels=labels)
    return requested


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

FORMS_OF_CUTS = {"mmlu": "MMLU by letter", "arc_easy": "ARC-Easy by content"}


def clearest(scores: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The scores of the model (or other group) that has most to lose by all its unpruned scores:
    the lowest of them is the most standard errors above its floor."""
    pruned = scores[(scores.block_size > 0) & scores.value.notna()]
    measured = pd.MultiIndex.from_frame(pruned[by])
    groups = pd.MultiIndex.from_frame(scores[by])
    unpruned = scores[(scores.block_size == 0) & groups.isin(measured)]
    gaps = unpruned.assign(gap=[curves.gap(row) for row in unpruned.itertuples()])
    lowest = gaps.groupby(by, sort=False).gap.min()
    if lowest.empty:
        return scores
    best = lowest.idxmax()
    return scores[groups == (best if len(by) > 1 else (best,))]


def figure_measures(measured: pd.DataFrame) -> Figure:
    """The same answers of one model by four measures, a row a task; measured: of `measures`."""
    accuracies = measured[measured.measure == "accuracy"]
    (name, *_) = clearest(accuracies, ["model"]).model
    table = measured[measured.model == name]
    tasks = table.task.map(TASKS).str.removesuffix(" accuracy")
    table = table.assign(panel=f"{registry.label(name)}\n" + tasks)
    titles = table.measure.replace("share of the commonest answer", "commonest")
    return grid(table, titles, "strategy", row="panel", sharey=False)


def figure_letters(scores: pd.DataFrame) -> Figure:
    """The same questions by letter and by content, a column a strategy: of the model and the
    question set that both forms tell most of."""
    table = clearest(scores, ["model", "questions"])
    panels = table.model.map(registry.label) + "\n" + table.questions.map(TASKS)
    table = table.assign(variant=table.form, panel=panels)
    mark = partial(_letters_without_knowledge, table)
    titles = table.strategy.where(table.block_size > 0)
    return grid(table, titles, "variant", row="panel", annotate=mark)


def _letters_without_knowledge(table: pd.DataFrame, axes: dict) -> None:
    """Write where the two forms are furthest apart, if both tell something and that is beyond
    chance."""
    whole = table[(table.block_size == 0) & table.form.isin(["letters", "content"])]
    if any(map(curves.no_signal, whole.itertuples())):
        return
    cuts = table[(table.strategy == "similarity") & (table.treatment == "unhealed")]
    by_form = {form: rows.set_index("block_size") for form, rows in cuts.groupby("form")}
    if len(by_form) < 2:
        return
    letters, content = by_form["letters"], by_form["content"]
    apart = (content.value - letters.value).dropna()
    n = apart.idxmax() if len(apart) else 0
    error = np.hypot(content.standard_error.get(n, 0), letters.standard_error.get(n, 0))
    if n and apart[n] > NORMAL * error:
        by_content, by_letter = content.value[n], letters.value[n]
        text = f"{n} layers dropped:\n{by_content:.2f} by content,\n{by_letter:.2f} by letter"
        (axis,) = [axis for (_, title), axis in axes.items() if title == "similarity"]
        finding(axis, text, (content.fraction[n], by_content), (14, 17))


def figure_cuts(scores: pd.DataFrame) -> Figure:
    """One model that can answer by letter, unhealed, with three kinds of cut: MMLU by letter,
    ARC-Easy by content."""
    table = clearest(scores, ["model"])
    shots = table.shots.map("{:.0f}-shot".format)
    titles = table.task.map(FORMS_OF_CUTS) + ", " + shots
    table = table.assign(panel="accuracy of\n" + table.model.map(registry.label))
    mark = partial(_flat_then_one_letter, table[table.task == "mmlu"])
    return grid(table, titles, "strategy", row="panel", annotate=mark)


def _flat_then_one_letter(table: pd.DataFrame, axes: dict) -> None:
    """Write how far the early exit stays flat, if the model has something to lose and the exit is
    flat further than similarity, and where it begins to give one letter to all questions."""
    if any(map(curves.no_signal, table[table.block_size == 0].itertuples())):
        return
    flat = {strategy: flat_up_to(table, strategy) for strategy in ("early exit", "similarity")}
    panels = [axis for (_, title), axis in axes.items() if title.startswith("MMLU")]
    line = table[table.strategy == "early exit"].set_index("block_size")
    for axis in panels if flat["early exit"] > max(1, flat["similarity"]) else ():
        end = line.loc[flat["early exit"]]
        text = f"flat: {flat['early exit']} layers"
        finding(axis, text, (end.fraction, end.value), (12, 34))
        one_letter = line[(line.commonest > CONSTANT) & (line.index > end.name)]
        for first in one_letter.sort_index().head(1).itertuples():
            finding(axis, "one letter\nfor everything", (first.fraction, first.value), (26, 44))


def flat_up_to(scores: pd.DataFrame, strategy: str) -> int:
    """How many layers may be dropped before a score lies below the unpruned one's 95 % interval."""
    (whole, *_) = scores[scores.block_size == 0].itertuples()
    line = scores[(scores.strategy == strategy) & scores.value.notna()].sort_values("block_size")
    holds = line.value >= whole.value - NORMAL * whole.standard_error
    return int(line.block_size[holds.cummin()].max()) if holds.cummin().any() else 0
