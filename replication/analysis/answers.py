"""How questions are answered as layers go: by which measure, in which form, with which book."""

import numpy as np
import pandas as pd

from lib.evaluation import weighted_mean
from replication.analysis.bootstrap import ci_columns, resampled
from replication.analysis.curves import SIGNAL, curve

MEASURES = ("accuracy", "margin (nats)", "share of the commonest answer", "bits per byte")
RISING = ("share of the commonest answer", "bits per byte")  # of MEASURES, as answers get worse
LINE = ["model", "task", "strategy", "treatment"]


def measures(scores: pd.DataFrame) -> pd.DataFrame:
    """The same answers by four measures, one row a score and measure, from stored log-likelihoods.

    accuracy: the threshold that the paper looks at. margin: log-likelihood of the right choice
    minus that of the best wrong one, mean. share of the commonest answer: how often the place is
    chosen that is chosen most. bits per byte: of the right choice. Columns value, standard_error
    and examples are those of the measure; a score that is missing is missing by every measure.
    """
    rows = []
    for score in scores[scores.choices.notna() | scores.value.isna()].to_dict("records"):
        weights = np.asarray(score["weights"], float)
        found = _measured(score) if pd.notna(score["value"]) else [None] * len(MEASURES)
        for measure, examples in zip(MEASURES, found, strict=True):
            told = {"measure": measure}
            if examples is not None:
                value, error = weighted_mean(examples, weights)
                told |= {"value": value, "standard_error": error, "examples": examples}
            if measure != "accuracy":  # chance and floor are accuracies
                told |= dict.fromkeys(("chance", "majority", "floor"), np.nan)
            rows.append(score | told)
    return pd.DataFrame(rows)


def _measured(score: dict) -> tuple[np.ndarray, ...]:
    """MEASURES of each question of a score."""
    chosen, margins, right = [], [], []
    for likelihoods, answer in zip(score["choices"], score["answers"], strict=True):
        chosen.append(int(likelihoods.argmax()))
        margins.append(likelihoods[answer] - np.delete(likelihoods, answer).max())
        right.append(likelihoods[answer])
    weights, bits = np.asarray(score["weights"], float), -np.array(right) / np.log(2)
    commonest = np.bincount(chosen, weights).argmax()
    of_a_byte = score["bits_per_byte"] / (bits @ weights / weights.sum())
    accuracy = np.asarray(score["examples"], float)
    return accuracy, np.array(margins), (np.array(chosen) == commonest) * 1.0, bits * of_a_byte


def boolq_ranking(scores: pd.DataFrame) -> pd.DataFrame:
    """BoolQ without its threshold: do the log-odds of yes order the questions? Task boolq_ranking.

    value: how often they are higher for a question whose answer is yes than for one with no (area
    under the ROC curve, AUC; 0.5: chance). A model that leans to one answer loses nothing. The mean
    of `examples`, each question's influence, is the value; their standard error is DeLong's.
    """
    rows, asked = [], scores[scores.task == "boolq"].to_dict("records")
    for score in (s for s in asked if isinstance(s.get("choices"), list)):  # else not measured
        told = dict.fromkeys(("value", "standard_error", "majority", "commonest"), np.nan)
        told |= {"task": "boolq_ranking", "chance": 0.5, "floor": 0.5}
        yes = np.array(score["answers"]) == 1
        if 0 < yes.mean() < 1:
            odds = np.array([choices[1] - choices[0] for choices in score["choices"]])
            above = np.sign(odds[yes][:, None] - odds[~yes]) / 2 + 0.5  # of pairs: yes, no
            examples = np.full(len(odds), above.mean())
            examples[yes] += (above.mean(1) - above.mean()) / yes.mean()
            examples[~yes] += (above.mean(0) - above.mean()) / (~yes).mean()
            value, error = weighted_mean(examples, np.ones(len(odds)))
            told |= {"value": value, "standard_error": error, "examples": examples}
        rows.append(score | told)
    return pd.DataFrame(rows, columns=scores.columns)


def largest_step(measured: pd.DataFrame) -> pd.DataFrame:
    """Is the fall a cliff? The share of it that the one worst step between two depths takes.

    measured: of `measures`. A row a line and measure: largest_step with its 95 % interval over
    resampled questions, of the whole way between the best and the worst value of the line; even:
    what it would be if all steps were equal. depths: how many.
    """
    measured = measured[measured.value.notna()]
    rows, unpruned = [], measured[measured.treatment == "unpruned"]
    for (measure, *key), points in measured[measured.block_size > 0].groupby(["measure", *LINE]):
        start = unpruned[(unpruned[["measure", *LINE[:2]]] == [measure, *key[:2]]).all(axis=1)]
        line = pd.concat([start.head(1), points.sort_values("fraction")])
        values = resampled(np.stack(line.examples), np.asarray(line.weights.iloc[0], float))
        falls = np.diff(values) * (1 if measure in RISING else -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = falls.max(1) / np.ptp(values, axis=1)
        told = ci_columns(share, "largest_step")
        depths = {"even": 1 / len(points), "depths": len(points), "n": line.n.iloc[0]}
        rows.append({"measure": measure} | dict(zip(LINE, key, strict=True)) | told | depths)
    return pd.DataFrame(rows)


def kept(scores: pd.DataFrame, by: str) -> pd.DataFrame:
    """The share of the lead over the floor that is left, of the same questions asked in two ways.

    by: "form" or "book". A row a line and depth, with 95 % intervals over resampled questions;
    nothing where the unpruned model shows no signal. apart: the share of this row minus that of
    the first way at the same cut, paired on questions.
    """
    rows, lines = [], ["model", "questions", "strategy", "treatment"]
    pruned = scores[(scores.treatment != "unpruned") & scores.value.notna()]
    for key, ways in pruned.groupby(lines, sort=False):
        first = None
        for way, points in ways.groupby(by, sort=False):
            whole = scores[(scores.treatment == "unpruned") & (scores[by] == way)]
            start = whole[(whole[lines[:2]] == list(key[:2])).all(axis=1)].iloc[0]
            points = points.sort_values("fraction")
            line = curve(start, points)
            left = (1 - line.fraction_lost if line.gap >= SIGNAL else np.nan * line.values)[:, 1:]
            left = dict(zip(points.block_size, left.T, strict=True))
            first = left if first is None else first
            for point in points.itertuples():
                mine = left[point.block_size]
                row = dict(zip(lines, key, strict=True)) | {by: way}
                row |= {"block_size": point.block_size, "fraction": point.fraction, "n": point.n}
                apart = mine - (np.nan if first is left else first.get(point.block_size, np.nan))
                row |= ci_columns(mine, "kept") | ci_columns(apart, "apart", "apart_")
                rows.append(row)
    return pd.DataFrame(rows)
