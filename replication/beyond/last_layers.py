"""Why the last layer? The deepest layers are dropped, but the last one, two or three are kept.

Notebook 13. The paper's simple strategy keeps the last layer; an early exit keeps none. The C4 loss
of each cut is in the damage map.
"""

import pandas as pd
from matplotlib.figure import Figure

from lib.blocks import Block
from replication.beyond import letters
from replication.figures.panels import cut_panels
from replication.figures.style import look, names_of_panels
from replication.measure.experiments import unpruned
from replication.measure.question import Question
from replication.measure.request import Request, score
from replication.profiles import Profile

KEPT = {
    0: "none kept (early exit)",
    1: "last one kept (simple)",
    2: "last two kept",
    3: "last three kept",
}
DEEPEST = 0.3  # of the layers
PANELS = {  # columns questions and form, and what the panel is called
    ("mmlu", "letters"): "MMLU\nby letter",
    ("arc_easy", "letters"): "ARC-Easy\nby letter",
    ("arc_easy", "content"): "ARC-Easy\nby content",
}
KEPT_BY = {"early exit": KEPT[0], "simple": KEPT[1]}
LOOKS = {
    KEPT[0]: look("early exit"),
    KEPT[1]: look("simple"),
    "none": {"color": "black", "marker": "o", "label": "whole model"},
    KEPT[2]: {"color": "0.45", "marker": "o", "mfc": "white"},
    KEPT[3]: {"color": "black", "marker": "D"},
}


def last_layers(name: str, distances, profile: Profile) -> list[Request]:
    """Return the questions after each of these cuts, of the profile's `question_models`; columns
    questions and form.

    At every second size up to DEEPEST; MMLU as in notebook 02, ARC-Easy as in `letters.forms`.
    """
    if name not in profile.question_models:
        return []
    layers, few_shot = distances.num_layers, profile.with_prompt(profile.mmlu_shots)
    requested = []
    for questions, form in PANELS:
        of_questions = profile if questions == "mmlu" else few_shot
        task, labels = letters.FORMS[questions][form], {"questions": questions, "form": form}
        requested += unpruned(name, of_questions, [task], **labels)
        for kept, strategy in KEPT.items():
            for block in blocks(layers, kept, sizes(layers, profile)):
                where = {"fraction": block.size / layers, "strategy": strategy}
                where |= labels | {"treatment": "unhealed"}
                requested.append(score(name, of_questions, task, block, **where))
    return requested


def sizes(layers: int, profile: Profile) -> list[int]:
    """Return numbers of layers to drop: every second one, up to DEEPEST of all, at least 1."""
    most = max(1, DEEPEST * layers)
    every_second = profile.block_sizes(layers)[::2]
    return [n for n in every_second if n <= most]


def blocks(layers: int, kept: int, sizes: list[int]) -> list[Block]:
    """Return the blocks of `sizes` that end before the last `kept` layers, where a layer before
    stays."""
    end = layers - kept
    return [Block(end - n, n) for n in sizes if n < end]


def figure_last_layers(scores: pd.DataFrame, exits: pd.DataFrame) -> Figure:
    """Draw one model's answers against the layers dropped, a mark for each number of last layers
    that are kept, the whole model at 0.

    scores: of `last_layers`; exits: of `letters.exits`, whose scores of MMLU add the sizes between.
    """
    scores = scores[scores.strategy.isin(LOOKS)]  # more cuts were recorded
    same = (exits.task == "mmlu") & exits.model.isin(scores.model)
    same &= exits.strategy.isin(KEPT_BY) & (exits.block_size <= scores.block_size.max())
    between = exits[same].assign(questions="mmlu", form="letters")
    between = between.assign(strategy=between.strategy.map(KEPT_BY))
    table = pd.concat([scores, between])
    table = table.drop_duplicates(["model", "questions", "form", "strategy", "block_size"])
    panels = zip(table.questions, table.form, strict=True)
    drawn = table.assign(
        row="accuracy of\n" + names_of_panels(table.model),
        column=[PANELS[panel] for panel in panels],
        line=table.strategy,
    )
    return cut_panels(drawn, LOOKS, table)


# ---- the question ----------------------------------------------------------------------------

QUESTION = Question(
    "13_one_layer",
    experiments=(last_layers, letters.exits),
    figures={"figure_last_layers": "cuts that keep none, one, two or three of the last layers"},
)
