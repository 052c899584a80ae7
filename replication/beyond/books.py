"""Open or closed book: does a model lose what it knows, or how it reads?

Notebook 11. The same questions with and without the passage that answers them, unhealed, along the
similarity-informed cut. And stories and sums, also with an early exit.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.data import encoding, prompts, sets
from lib.evaluation import KINDS, QUESTIONS, Kind, bits_per_byte, register, weighted_mean
from replication.beyond import last_layers
from replication.beyond.panels import cut_panels
from replication.figures.curves import TASKS, grid
from replication.figures.style import colour, label
from replication.measure.experiments import cuts, unpruned
from replication.measure.request import Request
from replication.profiles import Profile

CLOSED = {"sciq": "sciq_closed", "boolq": "boolq_closed", "squad": "squad_closed"}


def sciq(source: str, questions: int) -> list[dict]:
    """Return school questions in science, each after the passage that tells the answer."""
    examples = []
    rows = [row for row in sets.questions("sciq", source) if row["support"].strip()]
    for i, row in enumerate(sets.spread(rows, questions)):
        choices = [row["distractor1"], row["distractor2"], row["distractor3"]]
        choices.insert(i % 4, row["correct_answer"])  # the file names it last
        prompt, choices = prompts.by_content(row["question"], choices)
        prompt = f"{row['support'].strip()}\n{prompt}"
        examples.append(prompts.example(prompt, choices, i % 4, i))
    return examples


def squad(source: str, questions: int) -> list[dict]:
    """Return questions whose answer is a piece of the passage before them."""
    rows = sets.spread(sets.requests("squad"), questions)
    return [prompts.example(row["query"], [f" {row['choices'][0]}"], None, None) for row in rows]


def without_passage(build: Callable, source: str, questions: int) -> list[dict]:
    """Return the examples of `build`, each from its last "Question:" on."""
    examples = []
    for example in build(source, questions):
        prompt = example["prompt"]
        examples.append(example | {"prompt": prompt[prompt.rindex("Question:") :]})
    return examples


register("sciq", Kind(sciq, QUESTIONS, encoding.completions, "accuracy"))
register("squad", Kind(squad, QUESTIONS, encoding.completions, "bits per byte", bits_per_byte))
for task, closed in CLOSED.items():
    opened = KINDS[task]
    register(closed, replace(opened, build=partial(without_passage, opened.build)))

STORIES = ("mmlu", "hellaswag", "gsm8k_bpb")  # of the profile's main model
CUTS = {"similarity": "o", "early exit": "^"}  # and their markers


def books(name: str, distances, profile: Profile) -> list[Request]:
    """Return the questions of both books at every second size; columns questions and book."""
    sizes, requested = profile.block_sizes(distances.num_layers)[::2], []
    for questions, closed in CLOSED.items():
        for book, task in {"open": questions, "closed": closed}.items():
            labels = {"questions": questions, "book": book}
            requested += unpruned(name, profile, [task], **labels)
            requested += cuts(name, distances, profile, [task], ["similarity"], sizes, **labels)
    return requested


def stories(name: str, distances, profile: Profile) -> list[Request]:
    """Return MMLU by letter, HellaSwag and GSM8K's gold solutions, with similarity and an early
    exit.

    Of the profile's main model, at the sizes of `last_layers`; MMLU as in notebook 02, of HellaSwag
    as many questions as `letters.forms` asks.
    """
    if name != profile.main_model:
        return []
    few = min(profile.hellaswag_questions, profile.ablation_questions)
    fewer = replace(profile, hellaswag_questions=few)
    sizes = last_layers.sizes(distances.num_layers, profile)
    requested = unpruned(name, fewer, STORIES)
    return requested + cuts(name, distances, fewer, STORIES, CUTS, sizes)


def changes(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of cuts minus those of the whole model, paired on the questions."""
    there = scores[scores.value.notna()]
    whole = there[there.block_size == 0].set_index(["model", "task"]).examples
    rows = []
    for row in there[there.block_size > 0].to_dict("records"):
        examples = np.subtract(row["examples"], whole[row["model"], row["task"]])
        value, error = weighted_mean(examples, np.asarray(row["weights"], float))
        rows.append(row | {"examples": examples, "value": value, "standard_error": error})
    return pd.DataFrame(rows) if rows else scores


def figure_stories(scores: pd.DataFrame) -> Figure:
    """Draw what each of two cuts changes in letters, in stories and in sums of one model, paired
    with the whole one."""
    table = changes(scores)
    names = "change of\n" + table.model.map(label)
    drawn = table.assign(
        row=names, column=table.task.map(TASKS).str.replace(", ", ",\n"), line=table.strategy
    )
    looks = {name: {"color": colour(name), "marker": marker} for name, marker in CUTS.items()}
    figure = cut_panels(drawn, looks, table, sharey=False)
    accuracies = [axis for axis in figure.axes if "accuracy" in axis.get_title("left")]
    for axis in figure.axes:
        axis.axhline(0, color="grey", lw=1)
    for axis in accuracies[1:]:
        axis.sharey(accuracies[0])
    return figure


def figure_books(scores: pd.DataFrame) -> Figure:
    """Draw the same questions with and without the passage that answers them, a column a model: of
    those of which both were asked."""
    pruned = scores[(scores.block_size > 0) & scores.value.notna()]
    forms = pruned.groupby(["model", "questions"]).book.nunique()
    both = forms.index[forms == 2]
    table = scores[pd.MultiIndex.from_frame(scores[["model", "questions"]]).isin(both)]
    table = (scores if table.empty else table).assign(variant=lambda rows: rows.book)
    titles = table.model.map(label)
    return grid(table, titles, "variant", row="questions")
