"""Figures 8 and 9: what the seed of healing and the LoRA rank change."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.models import registry
from replication.analysis.bootstrap import paired
from replication.figures.curves import TASKS
from replication.figures.style import (
    NORMAL,
    STYLE,
    backdrop,
    colour,
    finished,
    nothing_measured,
    panel_grid,
)

FIRST = "seed 0"
SMALL = 0.01  # the least that an axis of differences shows, to both sides
UNITS = TASKS | {"c4": "C4 loss (nats)"}
CUT = ["model", "task", "block_size", "ablation"]  # which has one length of healing


def figure_8(scores: pd.DataFrame) -> Figure:
    """Figure 8: the score of each seed of healing minus that of seed 0, a column a task.

    scores: of experiments.seeds and more_seeds, whose rows say their steps. Bars: 95 %, paired on
    the questions or texts. Columns difference, low and high of the table are those drawn; its rows
    "unhealed" are the cut that is not healed.
    """
    table = scores.merge(_differences(scores), on=[*CUT, "variant"], how="left")
    seeds = table[table.difference.notna() & (table.treatment == "healed")]
    seeds = seeds.sort_values("block_size", kind="stable")
    if seeds.empty:
        return nothing_measured(table)
    name = seeds.model.map(registry.label)
    healing = seeds.steps.map("{} steps, ".format) + seeds.variant
    seeds["row"] = name + seeds.block_size.map(", {} layers dropped\n".format) + healing
    titles = seeds.task.map(UNITS).str.replace(" accuracy", "\naccuracy")
    places = [("", title) for title in titles.unique()]
    with plt.rc_context(STYLE):
        height = 0.1 + 0.45 * seeds.row.nunique()
        label = "minus seed 0 (bars: 95 %)"
        figure, axes = panel_grid(places, label, height, sharex=False, sharey="row")
        for axis, (_, points) in zip(axes.values(), seeds.groupby("task", sort=False), strict=True):
            for model, seeds_of_model in points.groupby("model", sort=False):
                differences = seeds_of_model.difference
                bars = [differences - seeds_of_model.low, seeds_of_model.high - differences]
                look = {"fmt": "o", "color": colour(model), "elinewidth": 1.2}
                axis.errorbar(differences, seeds_of_model.row, xerr=bars, **look)
            axis.axvline(0, color="0.6", lw=0.8)
            axis.set_title(f"n = {points.n.max():.0f}", loc="right", fontsize=7)
            left, right = axis.get_xlim()
            axis.set_xlim(min(left, -SMALL), max(right, SMALL))  # all may be equal
            axis.locator_params(axis="x", nbins=4)
        axis.invert_yaxis()  # of all, as it is shared
        return finished(figure, table)


def _differences(scores: pd.DataFrame) -> pd.DataFrame:
    """Return how far each score is from that of seed 0, a row a model, task, depth, ablation and
    other seed; and, as the variant "unhealed", that of the cut that is not healed."""
    measured = scores.drop(columns="treatment")
    variants = scores.variant[(scores.block_size > 0) & (scores.variant != FIRST)].unique()
    tables = [
        paired(measured, "variant", FIRST, variant).assign(variant=variant) for variant in variants
    ]
    columns = [*CUT, "variant", "difference", "low", "high"]
    if not tables:
        return pd.DataFrame(columns=columns)
    table = pd.concat(tables)
    reach = NORMAL * table.standard_error
    return table.assign(low=table.difference - reach, high=table.difference + reach)[columns]


def figure_9(scores: pd.DataFrame) -> Figure:
    """Figure 9: scores against the LoRA rank, a row a model, a column a task; dotted: not healed.

    scores: of experiments.ranks. A line a strategy and depth, where two ranks are measured.
    """
    pruned = scores[(scores.block_size > 0) & scores.value.notna()]
    ranks = pruned.groupby(["model", "task", "strategy", "block_size"])["rank"]
    lines = pruned[ranks.transform("nunique") > 1]
    if lines.empty:
        return nothing_measured(scores)
    whole = scores[scores.block_size == 0]
    panels = {
        (registry.label(model), UNITS[task].replace(" accuracy", "\naccuracy")): (
            panel,
            whole[(whole.model == model) & (whole.task == task)],
        )
        for (model, task), panel in lines.groupby(["model", "task"], sort=False)
    }
    with plt.rc_context(STYLE):
        figure, axes = panel_grid(list(panels), "LoRA rank")
        for place, axis in axes.items():
            _ranks(axis, *panels[place])
        return finished(figure, scores, legend="bars: ±1 s.e.")


def _ranks(axis, panel: pd.DataFrame, unpruned: pd.DataFrame) -> None:
    """Draw the lines of a panel of figure 9; dotted across: the same cut, not healed."""
    chance = unpruned.chance.mask(unpruned.task == "c4")  # far above all that varies
    backdrop(axis, unpruned.assign(chance=chance).head(1))
    axis.axhline(unpruned.value.iloc[0], color="black", ls="--", lw=1, label="unpruned")
    for (strategy, n), line in panel.groupby(["strategy", "block_size"], sort=False):
        style = {"color": colour(strategy), "alpha": n / panel.block_size.max()}
        healed = line.dropna(subset="rank").sort_values("rank")
        label = f"{strategy}, $n$ = {n}"
        axis.errorbar(
            healed["rank"], healed.value, healed.standard_error, marker="o", label=label, **style
        )
        for value in line.value[line["rank"].isna()]:
            axis.axhline(value, ls=":", label=f"{label}, not healed", **style)
    ticks = sorted(panel["rank"].dropna().unique())
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"{rank:.0f}" for rank in ticks])
    axis.minorticks_off()
