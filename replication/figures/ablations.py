"""Figures 8 and 9: what the seed of healing and the LoRA rank change."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib.models import registry
from replication.analysis.bootstrap import paired
from replication.figures.curves import TASKS
from replication.figures.style import (
    NORMAL,
    STYLE,
    WIDTH,
    backdrop,
    colour,
    finished,
    label_directly,
    nothing_measured,
)

FIRST = "seed 0"
UNITS = TASKS | {"c4": "C4 loss (nats)"}
OF = ["model", "task", "block_size", "ablation"]  # which has one length of healing


def figure_8(scores: pd.DataFrame) -> Figure:
    """Figure 8: the score of each seed of healing minus that of seed 0, a column a task.

    scores: of experiments.seeds and more_seeds, whose rows say their steps. Bars: 95 %, paired on
    the questions or texts. For scale, in words: the cut that is not healed. Columns difference, low
    and high of the table are those drawn.
    """
    table = scores.merge(_differences(scores), on=[*OF, "variant"], how="left")
    apart = table[table.difference.notna()].sort_values("block_size", kind="stable")
    seeds = apart[apart.treatment == "healed"]
    tasks = list(dict.fromkeys(seeds.task))
    if not tasks:
        return nothing_measured(table)
    cuts = seeds.model.map(registry.label) + seeds.block_size.map(", {} layers dropped".format)
    several, lengths = cuts.nunique() > 1, seeds.steps.nunique()
    healing = seeds.steps.map("{} steps, ".format) if lengths > 1 else ""
    row = healing + seeds.variant
    seeds = seeds.assign(row=cuts + "\n" + row if several else row)
    rows = list(dict.fromkeys(seeds.row))
    with plt.rc_context(STYLE):
        size = WIDTH, 1.1 + 0.45 * len(rows)
        figure, axes = plt.subplots(1, len(tasks), figsize=size, squeeze=False, sharey=True)
        for axis, task in zip(axes[0], tasks, strict=True):
            panel = seeds[seeds.task == task]
            for model, points in panel.groupby("model", sort=False):
                bars = [points.difference - points.low, points.high - points.difference]
                style = {"fmt": "o", "color": colour(model), "elinewidth": 1.2}
                axis.errorbar(points.difference, points.row.map(rows.index), xerr=bars, **style)
            axis.axvline(0, color="0.6", lw=0.8)
            axis.set_title(UNITS[task], loc="left")
            axis.set_title(f"n = {panel.n.max():.0f}, bars: 95 %", loc="right", fontsize=7)
            unhealed = apart[(apart.task == task) & (apart.treatment == "unhealed")]
            scale = ", ".join(unhealed.difference.map("{:+.2f}".format))
            axis.set_xlabel(f"difference to seed 0\n(not healed: {scale})", fontsize=9)
            axis.xaxis.set_major_locator(MaxNLocator(5))
        if not several:
            figure.suptitle(cuts.iloc[0], fontsize=9)
        axes[0, 0].set_yticks(range(len(rows)), rows, fontsize=8)
        axes[0, 0].set_ylim(len(rows) - 0.5, -0.5)
        return finished(figure, table)


def _differences(scores: pd.DataFrame) -> pd.DataFrame:
    """A row a model, task, depth, ablation and other seed: how far its score is from that of seed
    0; and, as the variant "unhealed", that of the cut that is not healed."""
    measured = scores.drop(columns="treatment")
    tables = [
        paired(measured, "variant", FIRST, variant).assign(variant=variant)
        for variant in dict.fromkeys(scores.variant[scores.block_size > 0])
        if variant != FIRST
    ]
    columns = [*OF, "variant", "difference", "low", "high"]
    if not tables:
        return pd.DataFrame(columns=columns)
    apart = pd.concat(tables)
    reach = NORMAL * apart.standard_error
    return apart.assign(low=apart.difference - reach, high=apart.difference + reach)[columns]


def figure_9(scores: pd.DataFrame) -> Figure:
    """Figure 9: scores against the LoRA rank, a row a model, a column a task; hollow: not healed.

    scores: of experiments.ranks. A line a strategy and depth, where two ranks are measured.
    """
    pruned = scores[(scores.block_size > 0) & scores.value.notna()]
    line = ["model", "task", "strategy", "block_size"]
    ranks = pruned.groupby(line)["rank"].transform("nunique")
    lines = pruned[ranks > 1]
    if lines.empty:
        return nothing_measured(scores)
    models, tasks = (list(dict.fromkeys(lines[column])) for column in ("model", "task"))
    steps = sorted(lines["rank"].dropna().unique())
    whole = scores[scores.block_size == 0]
    with plt.rc_context(STYLE):
        size = max(WIDTH, 2.2 * len(tasks)), 1 + 2.3 * len(models)
        figure, axes = plt.subplots(len(models), len(tasks), figsize=size, squeeze=False)
        for model, of_model in zip(models, axes, strict=True):
            for task, axis in zip(tasks, of_model, strict=True):
                panel = lines[(lines.model == model) & (lines.task == task)]
                if panel.empty:
                    axis.remove()
                    continue
                _ranks(axis, panel, whole[(whole.model == model) & (whole.task == task)], steps)
                axis.set_title(UNITS[task].replace(" accuracy", "\naccuracy"), loc="left")
            of_model[0].set_ylabel(f"{registry.label(model)}\n{_dropped(lines, model)}")
        return finished(figure, scores, legend="bars: ±1 s.e.")


def _dropped(lines: pd.DataFrame, model: str) -> str:
    sizes = sorted(set(lines.block_size[lines.model == model]))
    return f"{', '.join(map(str, sizes))} layers dropped"


def _ranks(axis, panel: pd.DataFrame, unpruned: pd.DataFrame, steps: list[float]) -> None:
    """The lines of a panel of figure 9: at 0 the cut that is not healed, then rank after rank."""
    hidden = unpruned.chance.mask(unpruned.task == "c4")  # far above all that varies
    backdrop(axis, unpruned.assign(chance=hidden).head(1))
    axis.axhline(unpruned.value.iloc[0], color="black", ls="--", lw=1, label="unpruned")
    ends = []
    for (strategy, n), line in panel.groupby(["strategy", "block_size"], sort=False):
        shade = colour(strategy)
        line = line.assign(place=line["rank"].map(steps.index, na_action="ignore") + 1)
        line = line.fillna({"place": 0}).sort_values("place")
        healed = line[line.place > 0]
        axis.plot(line.place[:2], line.value[:2], color=shade, ls=":", lw=1.3)
        style = {"color": shade, "marker": "o", "ms": 4, "elinewidth": 0.8}
        axis.errorbar(healed.place, healed.value, healed.standard_error, label=strategy, **style)
        cut = line[line.place == 0]
        axis.errorbar(cut.place, cut.value, cut.standard_error, ls="", **style, mfc="white")
        ends.append((healed.place.iloc[-1], healed.value.iloc[-1], f"$n$ = {n}", shade))
    axis.set_xticks(range(len(steps) + 1), ["not\nhealed", *(f"{rank:.0f}" for rank in steps)])
    axis.set_xlabel("LoRA rank")
    axis.margins(x=0.1)
    if len(ends) > 1:
        label_directly(axis, ends)
