"""Where scores fall: the lines of figures 2, 3 and 6, resampled, and what they have lost."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lib import registry
from lib.answers import LOSSES, SIGNAL, floor, gap
from lib.intervals import interval, resampled
from lib.similarity import BlockDistances


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

    @property
    def lost(self) -> np.ndarray:
        """The share of what lay between the unpruned score and the floor that is lost."""
        start = self.values[:, :1]
        return (start - self.values) / (start - self.floor)

    @property
    def deepest(self) -> float:
        """The largest fraction measured."""
        return self.fractions[-1]

    def at(self, other: "Curve") -> "Curve":
        """The same at the depths that `other` has too."""
        both = np.isin(self.fractions, other.fractions)
        return replace(self, fractions=self.fractions[both], values=self.values[:, both])

    def crossing(self, share: float = 0.5, never: float = np.nan) -> np.ndarray:
        """The first fraction where more than `share` is lost, in each row; else `never`."""
        beyond = self.lost > share
        return np.where(beyond.any(1), self.fractions[beyond.argmax(1)], never)


def curve(unpruned: pd.Series, points: pd.DataFrame) -> Curve:
    """The curve through an unpruned score and those of the same model and task at some depths."""
    points = points.sort_values("fraction")
    examples = np.stack([np.asarray(e, float) for e in (unpruned.examples, *points.examples)])
    return Curve(
        np.array([0.0, *points.fraction]),
        resampled(examples, np.asarray(unpruned.weights, float)),
        floor(unpruned),
        gap(unpruned),
        int(unpruned.n),
        unpruned.task in LOSSES,
    )


def transitions(scores: pd.DataFrame) -> pd.DataFrame:
    """Claim 1: where does each score fall half way to what knowing nothing scores?

    A row per model, task, strategy and treatment. block_size, fraction: the first depth at which
    more than half of what lay between the unpruned score and the floor (the best answer that reads
    no question) is lost; low, high: its 95 % interval over resampled questions. gap is that
    distance in standard errors of the unpruned score. Missing where no depth has lost half, or
    where the gap is below SIGNAL: nothing to lose. An infinite `high` lies beyond the depths
    measured.
    """
    rows = []
    unpruned = scores[scores.treatment == "unpruned"].set_index(["model", "task"], drop=False)
    pruned = scores[(scores.treatment != "unpruned") & scores.value.notna()]
    lines = ["model", "task", "strategy", "treatment"]
    for key, points in pruned.groupby(lines, sort=False):
        start = unpruned.loc[key[:2]]
        line = curve(start, points)
        value, low, high = halfway(line) if line.gap >= SIGNAL else (np.nan,) * 3
        size = points.block_size[np.isclose(points.fraction, value)]
        rows.append(
            dict(zip(lines, (registry.label(key[0]), *key[1:]), strict=True))
            | {"unpruned": start.value, "floor": line.floor, "gap": line.gap}
            | {"block_size": size.iloc[0] if len(size) else None}
            | {"fraction": value if np.isfinite(value) else None, "low": low, "high": high}
        )
    return pd.DataFrame(rows)


def halfway(line: Curve) -> tuple[float, float, float]:
    """The first fraction where half is lost, and its interval; infinite: not where measured."""
    return interval(line.crossing(never=line.deepest), line.crossing(never=np.inf))


def leaves_deep_band(distances: BlockDistances) -> int | None:
    """The first block size whose best start jumps down into the lower third of the model.

    There the choice jumps from the deep band of similar layers to the shallow end.
    """
    third = distances.num_layers / 3
    starts = [distances.best_start(n) for n in range(1, distances.num_layers)]
    for size, (before, after) in enumerate(zip(starts, starts[1:], strict=False), start=2):
        if before - after > 1 and after < third:
            return size
    return None
