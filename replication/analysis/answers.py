"""How well answers order the questions."""

import numpy as np
import pandas as pd

from lib.evaluation import weighted_mean


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
