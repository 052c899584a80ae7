"""Dose and response: what do more tokens of healing do to the gap between the two strategies?"""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from replication.figures.curves import check_strategies
from replication.figures.panels import line, log_loss
from replication.figures.style import (
    STYLE,
    finished,
    is_recorded,
    label,
    look,
    name_pale,
    note_above,
    nothing_measured,
    only_recorded,
    opacity,
    panel_grid,
    recorded_first,
)
from replication.profiles import PAPER_TOKENS

LABELS = {"c4": "C4 loss (nats)", "arc_easy": "ARC-Easy accuracy"}


def figure_dose(doses: pd.DataFrame) -> Figure:
    """Draw a column a depth: loss and accuracy against the tokens of healing, the record behind.
    Dotted: not healed.

    doses: the table of `measure.dose.doses`.
    """
    check_strategies(doses)
    healed = doses[doses.value.notna() & (doses.tokens > 0)]
    panels = {}
    for task, row in LABELS.items():
        for size in sorted(set(healed.block_size) - {0}):
            models = healed.model[(healed.block_size == size) & (healed.task == task)]
            of_size = doses[doses.block_size.isin([0, size]) & doses.model.isin(models)]
            if len(models):
                panels[row, f"{size} layers dropped"] = of_size[of_size.task == task]
    if not panels:
        return nothing_measured(doses)
    with plt.rc_context(STYLE):
        figure, axes = panel_grid(list(panels), "tokens of healing", sharey="row")
        for place, axis in axes.items():
            panel = panels[place]
            axis.set_xscale("log")
            counts = [_lines(axis, rows, panel) for _, rows in _by_model(panel)]
            axis.set_title("\n".join(counts), loc="right", fontsize=8)
            above = "\n" * str(counts).count("recorded")  # so that both titles have room
            axis.set_title(axis.get_title("left") + above, loc="left")
            axis.axvline(PAPER_TOKENS, color="0.7", lw=1, ls="-.", label="the paper's tokens")
        note_above(figure, ", ".join(map(label, doses.model.unique())), only_recorded(panels))
        return finished(figure, doses, legend="bars: 95 %")


def _by_model(panel: pd.DataFrame):
    return recorded_first(panel).groupby("model", sort=False)


def _lines(axis, rows: pd.DataFrame, panel: pd.DataFrame) -> str:
    """Draw the lines of one model of a panel; return what its scores are of."""
    unpruned = rows[rows.treatment == "unpruned"].iloc[0]
    is_loss = unpruned.task == "c4"
    shade = {"alpha": opacity(unpruned.model, panel)}
    name_pale(axis, unpruned.model, panel)
    level = {"color": "black", "ls": "--", "lw": 1, "label": "unpruned, not healed"}
    axis.axhline(unpruned.value, **level | shade)
    others = rows[rows.treatment != "unpruned"]
    for strategy, of_strategy in others.groupby("strategy", sort=False):
        named = "nothing dropped" if strategy == "none" else strategy
        style = look(strategy) | {"ms": 4} | shade
        dotted = style | {"marker": "", "ls": ":", "lw": 1.2}
        for value in of_strategy.value[of_strategy.treatment == "unhealed"]:
            axis.axhline(value, label=f"{named}, not healed", **dotted)
        line(axis, of_strategy[of_strategy.treatment != "unhealed"], "tokens", named, **style)
    nothing, kind = ("guessing, ln V", "texts") if is_loss else ("floor", "questions")
    reference = unpruned.chance if is_loss else unpruned.floor
    axis.axhline(reference, color="grey", ls="-.", lw=1, label=nothing)
    if is_loss:
        log_loss(axis)
    return f"{'recorded: ' * is_recorded(unpruned.model)}{unpruned.n:.0f} {kind}"
