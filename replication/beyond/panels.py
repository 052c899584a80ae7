"""What the figures of our questions share: lines with bars, and labels of rows."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from replication.figures.style import NORMAL


def line(axis, scores: pd.DataFrame, x: str, label: str, **style) -> None:
    """Draw scores against their column `x`, with 95 % intervals as bars."""
    scores = scores.sort_values(x)
    bars = NORMAL * scores.standard_error
    axis.errorbar(scores[x], scores.value, bars, label=label, elinewidth=0.8, **style)


def label_rows(figure: Figure, axes: np.ndarray, labels: Sequence[str]) -> None:
    """Write the label of each row of panels at the first one that is drawn."""
    for row, label in zip(axes, labels, strict=True):
        drawn = [axis for axis in row if axis in figure.axes]
        for axis in drawn[:1]:
            axis.set_ylabel(label)
            axis.tick_params(labelleft=True)
