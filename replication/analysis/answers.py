"""How well answers order the questions, and how much of a lead over the floor is left."""

import numpy as np
import pandas as pd

from lib.evaluation import weighted_mean
from replication.analysis.bootstrap import ci_columns
from replication.analysis.curves import SIGNAL, curve


def auc_influences(values: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Influences (n,) whose mean is the area under the ROC curve (AUC) of `values`.

    How often a positive example has the higher value, of all pairs with a negative one; equal
    values count half. As in DeLong et al., the spread of the influences gives the standard error.
    NaN where all examples are of one kind.
    """
    share = positive.mean()
    if not 0 < share < 1:
        return np.full(len(values), np.nan)
    above = np.sign(values[positive][:, None] - values[~positive]) / 2 + 0.5
    area = above.mean()
    influences = np.full(len(values), area)
    influences[positive] += (above.mean(axis=1) - area) / share
    influences[~positive] += (above.mean(axis=0) - area) / (1 - share)
    return influences


def boolq_ranking(scores: pd.DataFrame) -> pd.DataFrame:
    """BoolQ without its threshold: do the log-odds of yes order the questions? Task boolq_ranking.

    value: how often they are higher for a question whose answer is yes than for one with no (AUC;
    0.5: chance). A model that leans to one answer loses nothing. Rows that were not measured are
    left out.
    """
    rows = []
    for score in scores[scores.task == "boolq"].to_dict("records"):
        if not isinstance(score.get("choices"), list) or np.isnan(score["value"]):
            continue
        row = score | {"task": "boolq_ranking", "chance": 0.5, "floor": 0.5}
        row |= dict.fromkeys(("value", "standard_error", "majority", "commonest"), np.nan)
        yes = np.array(score["answers"]) == 1
        odds = np.array([choices[1] - choices[0] for choices in score["choices"]])
        if 0 < yes.mean() < 1:
            examples = auc_influences(odds, yes)
            value, error = weighted_mean(examples, np.ones(len(odds)))
            row |= {"value": value, "standard_error": error, "examples": examples}
        rows.append(row)
    return pd.DataFrame(rows, columns=scores.columns)


def kept(scores: pd.DataFrame) -> pd.DataFrame:
    """The share of the lead over the floor that is left, of the same questions asked in two forms.

    A row a line and depth, with 95 % intervals over resampled questions; nothing where the unpruned
    model shows no signal. apart: the share of this row minus that of the first form at the same
    cut, paired on questions.
    """
    keys = ["model", "questions", "strategy", "treatment"]
    whole = scores[scores.treatment == "unpruned"]
    pruned = scores[(scores.treatment != "unpruned") & scores.value.notna()]
    rows = []
    for key, both in pruned.groupby(keys, sort=False):
        first = {}
        for place, (form, points) in enumerate(both.groupby("form", sort=False)):
            unpruned = whole[whole.form == form]
            start = unpruned[(unpruned[keys[:2]] == list(key[:2])).all(axis=1)].iloc[0]
            points = points.sort_values("fraction")
            line = curve(start, points)
            left = 1 - line.fraction_lost if line.gap >= SIGNAL else np.nan * line.values
            left = dict(zip(points.block_size, left[:, 1:].T, strict=True))
            for point in points.itertuples():
                shares = left[point.block_size]
                row = dict(zip(keys, key, strict=True)) | {"form": form}
                row |= {"block_size": point.block_size, "fraction": point.fraction, "n": point.n}
                other = first.get(point.block_size, np.nan)
                row |= ci_columns(shares, "kept")
                row |= ci_columns(shares - other, "apart", "apart_")
                rows.append(row)
            first = first if place else left
    return pd.DataFrame(rows)
