"""What the figures of our questions share: lines with bars, panels of cuts, and labels of rows."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from replication.figures.style import (
    NORMAL,
    PALE,
    STYLE,
    draw_baselines,
    finished,
    is_recorded,
    nothing_measured,
    panel_grid,
)


def line(axis, scores: pd.DataFrame, x: str, label: str, **style) -> None:
    """Draw scores against their column `x`, with 95 % intervals as bars: of their columns low and
    high, or of their standard errors."""
    scores = scores.sort_values(x)
    if "low" in scores:
        bars = scores.value - scores.low, scores.high - scores.value
    else:
        bars = NORMAL * scores.standard_error
    axis.errorbar(scores[x], scores.value, bars, label=label, elinewidth=0.8, **style)


def cut_panels(drawn: pd.DataFrame, looks: Mapping[str, dict], table: pd.DataFrame) -> Figure:
    """Draw scores against the layers dropped; `table` is that of the figure.

    drawn: the columns row and column name a score's panel; without a column it is in all panels of
    its row and model. line and looks: as of `side_by_side`.
    """
    measured = drawn[drawn.value.notna()]
    pruned = measured[measured.block_size > 0]
    places = list(dict.fromkeys(zip(pruned.row, pruned.column, strict=True)))  # in their order
    if not places:
        return nothing_measured(table)
    with plt.rc_context(STYLE):
        figure, axes = panel_grid(places, "layers dropped", sharey="row")
        for (row, column), axis in axes.items():
            of_row = measured[measured.row == row]
            cuts = of_row[of_row.column == column]
            whole = of_row[of_row.column.isna() & of_row.model.isin(cuts.model)]
            panel = pd.concat([whole, cuts])
            alpha = {"alpha": PALE[panel.model.map(is_recorded).astype(bool).all()]}
            side_by_side(axis, panel, {name: look | alpha for name, look in looks.items()})
            draw_baselines(axis, panel)
        return finished(figure, table, legend="bars: 95 %")


def side_by_side(axis, scores: pd.DataFrame, looks: Mapping[str, dict]) -> None:
    """Draw lines against the layers dropped, side by side at each size; one that was not measured
    interrupts its line.

    scores: line is a key of `looks`, which are styles of matplotlib, in the order of the lines.
    """
    lines = [name for name in looks if name in set(scores.line)]
    for place, name in enumerate(lines):
        of_line = scores[scores.line == name].set_index("block_size")
        of_line = of_line.reindex(range(of_line.index.max() + 1))
        beside = 0.02 * scores.block_size.max() * (place - (len(lines) - 1) / 2)
        look = {"label": name, "ms": 4} | looks[name]
        of_line["x"] = of_line.index + beside * (of_line.index > 0)  # the whole model stands alone
        line(axis, of_line, "x", **look)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
