"""Dose and response: what do more tokens of healing do to the gap between the two strategies?

Notebook 03. Healings of ever more steps, also of a model that was not cut: that control tells how
much of healing is adaptation to the text.
"""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from lib.blocks import UNPRUNED
from replication import measure
from replication.beyond.panels import line
from replication.figures.style import (
    STYLE,
    WIDTH,
    finished,
    label,
    look,
    nothing_measured,
)
from replication.measure import scores
from replication.measure.experiments import cuts, healed, unpruned
from replication.measure.request import Request, score
from replication.profiles import PAPER_TOKENS, STRATEGIES, Profile, recipe, sizes_at

TASKS = ("arc_easy", "c4")
CONTROL = 0.25  # of the longest healing: the longest of the control
LABELS = (
    "C4 loss (nats)",
    "ARC-Easy accuracy",
)


def doses(name: str, distances, profile: Profile) -> list[Request]:
    """Return both strategies, unhealed and healed for each length, and the control.

    The unpruned and unhealed scores begin each line, at 0 steps. The control has short healings
    only: a whole model is the slowest to train. Columns steps and tokens.
    """
    if name not in profile.ablation_models:
        return []
    sizes = sizes_at(profile.dose_fractions, distances.num_layers)
    requested = unpruned(name, profile, TASKS)
    requested += cuts(name, distances, profile, TASKS, STRATEGIES, sizes)
    control = {"fraction": 0.0, "strategy": "none", "treatment": "control"}
    for steps in profile.dose_steps if sizes else ():
        healing = recipe(name, profile, steps=steps)
        requested += cuts(name, distances, profile, TASKS, STRATEGIES, sizes, healing)
        if steps <= CONTROL * profile.heal_steps:
            for task in TASKS:
                requested.append(score(name, profile, task, UNPRUNED, healing, **control))
    return requested


def trainings(name: str, distances, profile: Profile) -> list[Request]:
    """Return requests for the C4 loss of every healing of notebook 03, whose end is shown."""
    return [*healed(name, distances, profile, ["c4"]), *doses(name, distances, profile)]


measure.TABLES["trainings"] = scores.trainings


def figure_dose(doses: pd.DataFrame) -> Figure:
    """Draw a column a depth: loss and accuracy against the tokens of healing. Dotted: not healed.

    doses: the table of `doses`.
    """
    healed = doses[doses.value.notna() & (doses.tokens > 0)]
    sizes = sorted(set(healed.block_size) - {0})
    if not sizes:
        return nothing_measured(doses)
    grid = {"squeeze": False, "sharex": True, "sharey": "row", "figsize": (WIDTH, 5)}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, len(sizes), **grid)
        for (loss, accuracy), size in zip(axes.T, sizes, strict=True):
            of_size = doses[doses.block_size.isin([0, size])]
            loss.set_title(f"{size} layers dropped", loc="left")
            loss.set(xscale="log", yscale="log")
            _lines(loss, of_size[of_size.task == "c4"])
            _lines(accuracy, of_size[of_size.task == "arc_easy"])
            accuracy.set_xlabel("tokens of healing")
        figure.suptitle(", ".join(map(label, doses.model.unique())), fontsize=9)
        for axis in axes.flat:
            axis.axvline(PAPER_TOKENS, color="0.7", lw=1, ls="-.", label="the paper's tokens")
        for axis, name in zip(axes[:, 0], LABELS, strict=True):
            axis.set_ylabel(name)
        return finished(figure, doses, legend="bars: 95 %")


def _lines(axis, rows: pd.DataFrame) -> None:
    if rows.empty:  # the job of a model that is healed for one length
        return
    unpruned = rows[rows.treatment == "unpruned"].iloc[0]
    is_loss = unpruned.task == "c4"
    axis.axhline(unpruned.value, color="black", ls="--", lw=1, label="unpruned, not healed")
    if is_loss:
        axis.axhline(unpruned.chance, color="grey", ls=(0, (5, 3)), lw=1, label="guessing, ln V")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 4)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(NullLocator())
    others = rows[rows.treatment != "unpruned"]
    for strategy, of_strategy in others.groupby("strategy", sort=False):
        named = "nothing dropped" if strategy == "none" else strategy
        style = look(strategy) | {"ms": 4}
        for value in of_strategy.value[of_strategy.treatment == "unhealed"]:
            axis.axhline(value, label=f"{named}, not healed", ls=":", lw=1.2, **style)
        healed = of_strategy[of_strategy.treatment != "unhealed"]
        line(axis, healed, "tokens", named, **style)
    axis.set_title(
        f"{unpruned.n:.0f} {'texts' if is_loss else 'questions'}", loc="right", fontsize=8
    )
    if not is_loss:
        axis.axhline(unpruned.floor, color="grey", ls="-.", lw=1, label="floor")
