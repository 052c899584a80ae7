"""What is lost as layers are dropped: the lines of figures 2, 3 and 6.

A line is a Curve; `statistics` compares lines. The floor of a task is the score of the best answer
that does not read the question.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from lib.evaluation import SIGNAL, question_set
from replication.analysis.bootstrap import UNDEFINED, ci95, resampled
from replication.tables import LOSSES

FEWEST_DEPTHS = 4  # 0 among them, for a line to say where something is lost


def floor(score) -> float:
    """The score of the best answer without reading; of an older score chance or majority."""
    measured = getattr(score, "floor", np.nan)
    if pd.notna(measured):
        return float(measured)
    return float(np.fmax(*np.array([score.chance, score.majority], float)))


def gap(score) -> float:
    """How far a score is above its floor (a loss: below), in standard errors."""
    above = floor(score) - score.value if score.task in LOSSES else score.value - floor(score)
    with np.errstate(divide="ignore"):
        return float(np.float64(above) / score.standard_error) if above else 0.0


def no_signal(score) -> bool:
    """Whether a measured score is less than SIGNAL standard errors above a floor that is known."""
    return pd.notna(score.value) and pd.notna(floor(score)) and not gap(score) >= SIGNAL


def unclear(gap: float, n: int) -> str:
    """Return why nothing is said of a model's cuts: as a status of their rows."""
    if gap < 1:
        return "no answer: the whole model is no better than its floor"
    return f"no answer: {n:.0f} questions do not tell the whole model from its floor"


@dataclass(frozen=True)
class Curve:
    """The scores of a model with more and more layers dropped.

    fractions: (D,), of the layers dropped, from 0 on (unpruned). values: (1 + RESAMPLES, D), row 0
    as measured. floor: what no reading scores. gap: how far above it the unpruned model is
    (for a loss: below), in standard errors. n: examples, the same at every depth.
    """

    fractions: np.ndarray
    values: np.ndarray
    floor: float
    gap: float
    n: int
    is_loss: bool  # less is better
    chance: float = np.nan  # what guessing scores
    first: bool = False  # something is lost at its first crossing, whatever comes back deeper

    @property
    def fraction_lost(self) -> np.ndarray:
        """The share of what lay between the unpruned score and the floor that is lost.

        A loss beyond ln V has lost all: worse than guessing is too sure of itself, not ignorant.
        """
        unpruned = self.values[:, :1]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = (unpruned - self.values) / (unpruned - self.floor)
        return np.minimum(share, 1) if self.is_loss else share

    @cached_property
    def _lost_so_far(self) -> np.ndarray:
        """`fraction_lost` as a line that never falls: several crossings are read from one."""
        lost = self.fraction_lost
        return np.maximum.accumulate(lost, axis=1) if self.first else monotone(lost)

    def at(self, other: "Curve") -> "Curve":
        """The same at the depths that `other` has too."""
        both = np.isin(self.fractions, other.fractions)
        return replace(self, fractions=self.fractions[both], values=self.values[:, both])

    def crossing(self, share: float = 0.5, never: float = np.nan) -> np.ndarray:
        """The fraction where `share` is lost, in each row; `never` where it is not.

        Of the monotone line nearest to the points, linear between two depths: one bad block does
        not decide, nor does the spacing of the depths. With `first`, of the most that was lost up
        to each depth. NaN if there are too few depths to say.
        """
        lost = self._lost_so_far
        rows = np.arange(len(lost))
        if len(self.fractions) < FEWEST_DEPTHS:
            return np.full(len(rows), np.nan)
        beyond = lost > share
        after = beyond.argmax(1)  # the first depth beyond; 0 also if there is none
        before = np.maximum(after - 1, 0)
        low, high = lost[rows, before], lost[rows, after]
        part = np.divide(share - low, high - low, out=np.zeros_like(low), where=high > low)
        step = self.fractions[after] - self.fractions[before]
        crossed = self.fractions[before] + part * step
        return np.where(beyond.any(1), crossed, never)


def monotone(rows: np.ndarray) -> np.ndarray:
    """Isotonic regression of each row (R, D): the nearest values that never fall.

    NaN where a row is not finite.
    """
    fitted = np.full_like(rows, np.nan, dtype=float)
    for row, fit in zip(rows, fitted, strict=True):
        if np.isfinite(row).all():
            fit[:] = isotonic_regression(row).x
    return fitted


def curve(unpruned: pd.Series, points: pd.DataFrame) -> Curve:
    """The curve through an unpruned score and those of the same model and task at some depths.

    Raises ValueError if a run with LIMIT has left some of them: they are compared by example.
    """
    points = points.sort_values("fraction")
    count = len(unpruned.examples)
    others = points[points.examples.map(len) != count]
    if len(others):
        other = others.iloc[0]
        raise ValueError(
            f"Of {other.task}, table 'unhealed' has {count} examples, {other.treatment!r} "
            f"{len(other.examples)}: one is of a run with LIMIT. Measure both again without LIMIT."
        )
    examples = [np.asarray(row, float) for row in (unpruned.examples, *points.examples)]
    weights = np.asarray(unpruned.weights, float)
    return Curve(
        fractions=np.array([0.0, *points.fraction]),
        values=resampled(np.stack(examples), weights, question_set(unpruned.task)),
        floor=floor(unpruned),
        gap=gap(unpruned),
        n=int(unpruned.n),
        is_loss=unpruned.task in LOSSES,
        chance=float(unpruned.get("chance", np.nan)),
    )


def over_chance(line: Curve) -> Curve:
    """The same with chance as its floor: another definition of what there is to lose."""
    return replace(line, floor=line.chance)


def first_crossings(line: Curve) -> Curve:
    """The same, where something is lost at its first crossing."""
    return replace(line, first=True)


def transitions(
    scores: pd.DataFrame, defined: Callable[[Curve], Curve] | None = None
) -> pd.DataFrame:
    """Claim 1: where does each score fall half way to what knowing nothing scores?

    A row per model, task, strategy and treatment. fraction: where half of what lay between the
    unpruned score and the floor (the best answer that reads no question) is lost, with its 95 %
    interval over resampled questions; block_size: the first depth measured from there on. gap is
    that distance in standard errors of the unpruned score. Missing where half is never lost, or
    where the gap is below SIGNAL: nothing to lose. An infinite `high` lies beyond the depths
    measured. defined: another definition of what is lost, as `first_crossings`.
    """
    rows = []
    unpruned = scores[scores.treatment == "unpruned"].set_index(["model", "task"], drop=False)
    pruned = scores[(scores.treatment != "unpruned") & scores.value.notna()]
    keys = ["model", "task", "strategy", "treatment"]
    for key, points in pruned.groupby(keys, sort=False):
        start = unpruned.loc[key[:2]]
        line = curve(start, points)
        if defined:
            line = defined(line)
        value, low, high = UNDEFINED
        if line.gap >= SIGNAL:
            # where half is never lost, that lies anywhere beyond the deepest point
            lower = line.crossing(never=line.fractions[-1])
            upper = line.crossing(never=np.inf)
            value, low, high = ci95(lower, upper)
        sizes = points.block_size[points.fraction >= value]
        row = dict(zip(keys, key, strict=True))
        row |= {"unpruned": start.value, "floor": line.floor, "gap": line.gap}
        row["block_size"] = sizes.min() if len(sizes) else None
        row["fraction"] = value if np.isfinite(value) else None
        rows.append(row | {"low": low, "high": high})
    return pd.DataFrame(rows)
