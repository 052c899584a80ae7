"""Does a cut hide content behind a preference, too? Each option's likelihood, minus its own prior.

Notebook 10. A cut may change how likely an answer's text is, whatever is asked. So the
log-likelihood of an option after "Answer:" alone is taken from that after the question (PMI,
Holtzman et al., arXiv 2104.08315).
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from lib.data import prompts
from lib.evaluation import KINDS, Task, accuracy_with_ties, weighted_mean
from replication.measure.experiments import cuts, unpruned
from replication.measure.request import Request
from replication.profiles import Profile

SIZES = {"similarity": (3, 5, 6, 7), "early exit": (3, 5, 6, 7), "simple": (3, 5, 7)}
CONTENT, ALONE = "arc_easy", "arc_easy_alone"
CUT = ["model", "strategy", "block_size"]


def options_alone(*args, **counts) -> list[dict]:
    """Return ARC-Easy by content, each option after "Answer:" alone."""
    examples = tuple(prompts.arc_easy(*args, **counts))
    return list(Task(CONTENT, examples).without_question().examples)


ASKED_ALONE = replace(
    KINDS[CONTENT], build=options_alone, like=CONTENT, label="ARC-Easy by content, no question"
)
OWN_TASKS = {ALONE: ASKED_ALONE}


def priors(name: str, distances, profile: Profile) -> list[Request]:
    """Return ARC-Easy by content and each option alone, of the cuts of the main model."""
    if name != profile.main_model:
        return []
    few_shot, tasks = profile.with_prompt(profile.mmlu_shots), (CONTENT, ALONE)
    requested = unpruned(name, few_shot, tasks)
    for strategy, every in SIZES.items():
        sizes = [size for size in every if size < distances.num_layers]
        requested += cuts(name, distances, few_shot, tasks, [strategy], sizes)
    return requested


def without_prior(scores: pd.DataFrame) -> pd.DataFrame:
    """Return a row a cut: accuracy by content, and by PMI, with errors and the gain.

    scores: of `priors`. The gain is paired on the questions.
    """
    measured = scores[scores.choices.notna()].set_index(CUT)
    content, alone = (measured[measured.task == task] for task in (CONTENT, ALONE))
    rows = []
    for cut in content.index.intersection(alone.index):
        score = content.loc[cut]
        pairs = zip(score.choices, alone.loc[cut].choices, score.answers, strict=True)
        right = np.array([accuracy_with_ties(of - prior, answer) for of, prior, answer in pairs])
        row = dict(zip(CUT, cut, strict=True)) | {"n": len(right)}
        for column, values in {
            "content": score.examples,
            "PMI": right,
            "gain": right - score.examples,
        }.items():
            row[column], row[f"{column}, error"] = weighted_mean(values, score.weights)
        rows.append(row)
    return pd.DataFrame(rows)
