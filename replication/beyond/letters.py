"""Letters or content: is the cliff the model's, or the question's?

Notebook 10. The same questions asked by letter, as the paper asks them, and by content: by the
likelihood of each answer's text. Between both: the options are listed, and their text counts. Along
three kinds of cut.
"""

from dataclasses import replace
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from lib.data import encoding, prompts
from lib.evaluation import KINDS
from replication.analysis import curves
from replication.figures.curves import TASKS, grid, left_out
from replication.figures.style import label
from replication.measure.experiments import QA, WITH_EXIT, cuts, healed, unhealed, unpruned
from replication.measure.request import Request
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


MMLU, ARC_EASY = KINDS["mmlu"], KINDS["arc_easy"]
ARC_EASY_BY_LETTER = replace(
    ARC_EASY,
    build=partial(prompts.arc_easy, form=prompts.by_letter),
    rows=encoding.one_token_choices,
    label="ARC-Easy by letter",
)
OWN_TASKS = {  # which only this question asks
    "mmlu_content": replace(
        MMLU,
        build=mmlu_content,
        rows=encoding.completions,
        label="MMLU by content",
        version=1,  # its blind prompt, too
    ),
    "arc_easy_letters": ARC_EASY_BY_LETTER,
    "arc_easy_listed": replace(
        ARC_EASY,
        build=partial(prompts.arc_easy, form=by_listed_text),
        label="ARC-Easy by listed text",
    ),
}


def forms(name: str, distances, profile: Profile) -> list[Request]:
    """Return the same questions asked both ways, after as many solved examples, of the models to
    study.

    At every second size, also with an early exit; at every second depth where the profile heals,
    there healed, too. Columns questions and form.
    """
    if name not in profile.study_models:
        return []
    profile, layers = profile.with_prompt(profile.mmlu_shots), distances.num_layers
    depths = profile.healed_sizes(layers, name)
    depths = depths[1::2] if len(depths) > 2 else depths
    sizes = sorted({*profile.block_sizes(layers)[::2], *depths})
    requested = []
    for questions, tasks in FORMS.items():
        for form, task in tasks.items():
            labels = {"questions": questions, "form": form}
            requested += unpruned(name, profile, [task], **labels)
            requested += cuts(name, distances, profile, [task], WITH_EXIT, sizes, **labels)
            requested += healed(name, distances, profile, [task], sizes=depths, labels=labels)
    return requested


def exits(name: str, distances, profile: Profile) -> list[Request]:
    """Return MMLU and ARC-Easy at every size, also with an early exit, of the models to study."""
    if name not in profile.study_models:
        return []
    return unhealed(name, distances, profile, QA[::2], WITH_EXIT)


# ---- the figures ----------------------------------------------------------------------------

FORMS_OF_CUTS = {  # of a task: the panel
    "arc_easy_letters": "ARC-Easy\nby letter",
    "arc_easy": "ARC-Easy\nby content",
    "mmlu": "MMLU\nby letter",
}


def clearest(scores: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return the scores of the model (or other group) that has most to lose by all its unpruned
    scores: the lowest of them is the most standard errors above its floor."""
    groups = scores.set_index(by).index
    pruned = (scores.block_size > 0) & scores.value.notna()
    unpruned = scores[(scores.block_size == 0) & groups.isin(groups[pruned])]
    gaps = unpruned.assign(gap=[curves.gap(row) for row in unpruned.itertuples()])
    lowest = gaps.groupby(by, sort=False).gap.min()
    return scores if lowest.empty else scores[groups == lowest.idxmax()]


def figure_letters(scores: pd.DataFrame) -> Figure:
    """Draw the same questions by letter and by content, a column a strategy: of the model and the
    question set that both forms tell most of."""
    table = clearest(scores, ["model", "questions"])
    panels = table.model.map(label) + "\n" + table.questions.map(TASKS)
    table = table.assign(variant=table.form, panel=panels)
    titles = table.strategy.where(table.block_size > 0)
    return grid(table, titles, "variant", row="panel", note=left_out(scores))


def figure_cuts(exits: pd.DataFrame, forms: pd.DataFrame) -> Figure:
    """Draw one model that can answer by letter, unhealed, with three kinds of cut: the same
    questions of ARC-Easy by letter and by content, and MMLU by letter.

    exits, forms: scores of these; of the first MMLU, of the second ARC-Easy.
    """
    of_arc = forms.task.isin(FORMS_OF_CUTS) & (forms.questions == "arc_easy")
    scores = pd.concat([forms[of_arc & (forms.treatment != "healed")], exits[exits.task == "mmlu"]])
    table = clearest(scores, ["model"])
    table = table.assign(panel="accuracy of\n" + table.model.map(label))
    titles = table.task.map(FORMS_OF_CUTS)
    return grid(table, titles, "strategy", row="panel", note=left_out(scores))
