"""What the figures of our questions share: lines with bars, panels of cuts and of depths."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from replication.figures.style import (
    NORMAL,
    STYLE,
    check_one_point_each,
    draw_baselines,
    finished,
    name_pale,
    note_above,
    nothing_measured,
    only_recorded,
    opacity,
    panel_grid,
    recorded_first,
)
from replication.tables import LOSSES


def line(axis, scores: pd.DataFrame, x: str, label: str, **style) -> None:
    """Draw scores against their column `x`, with 95 % intervals as bars: of their columns low and
    high, or of their standard errors."""
    scores = scores.sort_values(x)
    check_one_point_each(scores, x, label)
    if "low" in scores:
        bars = scores.value - scores.low, scores.high - scores.value
    else:
        bars = NORMAL * scores.standard_error
    axis.errorbar(scores[x], scores.value, bars, label=label, elinewidth=0.8, **style)


def log_loss(axis) -> None:
    """Give an axis of losses a logarithmic scale, with numbers that are not powers."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 4)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())


def cut_panels(drawn: pd.DataFrame, looks: Mapping[str, dict], table: pd.DataFrame) -> Figure:
    """Draw scores against the layers dropped, the record behind those of the run; `table` is that
    of the figure.

    drawn: the columns row and column name a score's panel; without a column it is in all panels of
    its row and model. line and looks: as of `side_by_side`.
    """
    measured = drawn[drawn.value.notna()]
    panels = {}
    for (row, column), of_column in measured.groupby(["row", "column"], sort=False):
        of_row = measured[measured.row == row]
        whole = of_row[of_row.column.isna() & of_row.model.isin(of_column.model)]
        if (of_column.block_size > 0).any():
            panels[row, column] = pd.concat([whole, of_column])
    if not panels:
        return nothing_measured(table)
    with plt.rc_context(STYLE):
        figure, axes = panel_grid(list(panels), "layers dropped", sharey="row")
        for place, axis in axes.items():
            panel = panels[place]
            for model, scores in recorded_first(panel).groupby("model", sort=False):
                shade = {"alpha": opacity(model, panel)}
                name_pale(axis, model, panel)
                side_by_side(axis, scores, {name: look | shade for name, look in looks.items()})
            draw_baselines(axis, panel)
            if set(panel.task) <= set(LOSSES):
                log_loss(axis)
        note_above(figure, only_recorded(panels))
        return finished(figure, table, legend="bars: 95 %")


def side_by_side(axis, scores: pd.DataFrame, looks: Mapping[str, dict]) -> None:
    """Draw lines against the layers dropped, nearly side by side at each size; one that lacks a
    size which another has is interrupted there.

    scores: line is a key of `looks`, which are styles of matplotlib, in the order of the lines.
    """
    lines = [name for name in looks if name in set(scores.line)]
    for place, name in enumerate(lines):
        of_line = scores[scores.line == name]
        check_one_point_each(of_line, "block_size", name)
        of_line = of_line.set_index("block_size")
        sizes = sorted(size for size in set(scores.block_size) if size <= of_line.index.max())
        of_line = of_line.reindex(sizes)
        beside = 0.013 * scores.block_size.max() * (place - (len(lines) - 1) / 2)
        look = {"label": name, "ms": 4} | looks[name]
        of_line["x"] = of_line.index + beside * (of_line.index > 0)  # the whole model stands alone
        line(axis, of_line, "x", **look)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def depth_panels(
    panels: dict[tuple[str, str], pd.DataFrame],
    looks: Mapping[str, dict],
    probe: str,
    table: pd.DataFrame,
    legend: str = "bars: 95 %",
) -> Figure:
    """Draw accuracy against depth, a line a reading. Dropped layers are hatched.

    panels: rows of one cut each, by (row, column). looks: of each reading, with its label. probe:
    the reading whose null is drawn.
    """
    with plt.rc_context(STYLE):
        figure, axes = panel_grid(list(panels), "depth (layers)", sharey=True)
        for place, axis in axes.items():
            rows = panels[place]
            for reading, look in looks.items():
                if len(of_reading := rows[rows.reading == reading]):
                    line(axis, of_reading, "depth", **look)
            null = rows[rows.reading == probe].sort_values("depth")
            shuffled = {"color": "grey", "ls": ":", "lw": 1, "label": "probe of shuffled answers"}
            axis.plot(null.depth, null.null, **shuffled)
            start, size = rows[["block_start", "block_size"]].max()
            if size:
                hatched = {"fc": "none", "ec": "0.7", "hatch": "///", "lw": 0, "label": "dropped"}
                axis.axvspan(start, start + size, **hatched)
        note_above(figure, only_recorded(panels))
        return finished(figure, table, legend=legend)
