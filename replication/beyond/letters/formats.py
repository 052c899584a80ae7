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
from lib.evaluation import TASK_SPECS
from replication.analysis import curves
from replication.figures.curves import TASKS, grid, left_out
from replication.figures.style import is_recorded, names_of_panels
from replication.measure.experiments import cuts, healed, unhealed, unpruned
from replication.measure.question import Question
from replication.measure.request import Request
from replication.profiles import MULTIPLE_CHOICE, Profile
from replication.profiles.strategies import EXIT_AND_SIMILARITY, WITH_EXIT
from replication.tables import RECORD_PREFIX

LISTED = "listed text"
FORMS = {  # a question set, and the tasks that ask it by letter, by content and between
    "mmlu": {"letters": "mmlu", "content": "mmlu_content"},
    "arc_easy": {
        "letters": "arc_easy_letters",
        "content": "arc_easy",
        LISTED: "arc_easy_listed",
    },
}
FEW_DROPPED = 0.25  # of all layers
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


MMLU, ARC_EASY = TASK_SPECS["mmlu"], TASK_SPECS["arc_easy"]
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
    """Return the same questions asked both ways, after as many solved examples: of the models to
    study whole, and of cuts of the profile's `question_models`.

    At every second size, also with an early exit; ARC-Easy at every second depth where the profile
    heals, there healed, too. By listed text only where few layers are dropped, and not with simple
    pruning: it tells why the letters fall, which is there. Columns questions and form.
    """
    if name not in profile.study_models:
        return []
    is_cut, layers = name in profile.question_models, distances.num_layers
    profile = profile.with_prompt(profile.mmlu_shots)
    depths = profile.healed_sizes(layers, name)
    depths = depths[1::2] if len(depths) > 2 else depths
    sizes = sorted({*profile.block_sizes(layers)[::2], *depths})
    few = [size for size in sizes if size <= FEW_DROPPED * layers]
    requested = []
    for questions, tasks in FORMS.items():
        for form, task in tasks.items():
            of_form = name, distances, profile, [task]
            labels = {"questions": questions, "form": form}
            requested += unpruned(name, profile, [task], **labels)
            if not is_cut:
                continue
            if form == LISTED:
                requested += cuts(*of_form, EXIT_AND_SIMILARITY, few, **labels)
                continue
            requested += cuts(*of_form, WITH_EXIT, sizes, **labels)
            if questions == "arc_easy":
                requested += healed(*of_form, sizes=depths, labels=labels)
    return requested


def exits(name: str, distances, profile: Profile) -> list[Request]:
    """Return MMLU and ARC-Easy at every size, also with an early exit, of the models to study."""
    if name not in profile.study_models:
        return []
    return unhealed(name, distances, profile, MULTIPLE_CHOICE, WITH_EXIT)


# ---- the figures ----------------------------------------------------------------------------

FORMS_OF_CUTS = {  # of a task: the panel
    "arc_easy_letters": "ARC-Easy\nby letter",
    "arc_easy": "ARC-Easy\nby content",
    "mmlu": "MMLU\nby letter",
}


def clearest(scores: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return the scores of each model that has something to lose by all its unpruned scores, of its
    group (of columns `by`) that has most: the lowest of them is the most standard errors above its
    floor. Of the clearest group where none has.

    Of a run's own models, with what is recorded of them; of others only where none of its own can
    answer.
    """
    models = scores.model.str.removeprefix(RECORD_PREFIX)
    groups = scores.assign(model=models).set_index(by).index
    is_own = ~scores.model.map(is_recorded).astype(bool)
    for among in (is_own, is_own | True):
        pruned = among & (scores.block_size > 0) & scores.value.notna()
        whole = among & (scores.block_size == 0) & groups.isin(groups[pruned])
        gaps = [curves.gap(row) for row in scores[whole].itertuples()]
        by_group = pd.Series(gaps, groups[whole]).groupby(level=by, sort=False)
        lowest = by_group.min()
        if lowest.max() >= curves.SIGNAL:
            break
    if lowest.empty:
        return scores
    best = lowest.groupby(level="model", sort=False).idxmax()
    clear = [group for group in best if lowest.loc[group] >= curves.SIGNAL]
    return scores[groups.isin(clear or [lowest.idxmax()])]


def figure_letters(scores: pd.DataFrame) -> Figure:
    """Draw the same questions by letter and by content, a column a strategy: a row a model, of the
    question set that both forms tell most of."""
    table = clearest(scores, ["model", "questions"])
    models = names_of_panels(table.model)
    panels = models + "\n" + table.questions.map(TASKS)
    table = table.assign(variant=table.form, panel=panels)
    titles = table.strategy.where(table.block_size > 0)
    return grid(table, titles, "variant", row="panel", note=left_out(scores))


def figure_cuts(exits: pd.DataFrame, forms: pd.DataFrame) -> Figure:
    """Draw the models that can answer by letter, unhealed, with three kinds of cut: the same
    questions of ARC-Easy by letter and by content, and MMLU by letter.

    exits, forms: scores of these; of the first MMLU, of the second ARC-Easy.
    """
    is_arc = forms.task.isin(FORMS_OF_CUTS) & (forms.questions == "arc_easy")
    of_arc = forms[is_arc & (forms.treatment != "healed")]
    of_mmlu = exits[exits.task == "mmlu"]
    scores = pd.concat([of_arc, of_mmlu])
    table = clearest(scores, ["model"])
    names = names_of_panels(table.model)
    table = table.assign(panel="accuracy of\n" + names)
    titles = table.task.map(FORMS_OF_CUTS)
    return grid(table, titles, "strategy", row="panel", note=left_out(scores))


# ---- the question ----------------------------------------------------------------------------

QUESTION = Question(
    "10_letters_and_content",
    tasks=OWN_TASKS,
    experiments=(forms, exits),
    figures={
        "figure_letters": "the same questions by letter and by content",
        "figure_cuts": "ARC-Easy by letter and by content, and MMLU, with three kinds of cut",
    },
)
