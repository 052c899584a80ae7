"""Healing on its way: the training loss of each step, and scores against the tokens."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lib.models import registry
from replication.analysis.dose import PAPER_TOKENS
from replication.figures.style import NORMAL, STYLE, WIDTH, save_figure
from replication.profiles import Profile

LOOKS = {  # of each line: colour, marker, name
    "similarity": ("tab:blue", "o", "similarity"),
    "simple": ("tab:red", "s", "simple"),
    "none": ("0.4", "^", "nothing dropped"),
}
LINE = ["strategy", "block_size", "steps"]
LABELS = ("C4 loss (nats)", "ARC-Easy accuracy", "share of the gap left")


def figure_training(healings: pd.DataFrame, profile: Profile) -> Figure:
    """The training loss of each healing against its steps, a panel a model; darker: deeper cuts.

    healings: of scores.healings. Pale: every step. In colour: a running mean of the longest of each
    cut. Yellow: the learning rate rises; grey: it falls, at the end of each length.
    """
    steps = healings.losses.map(lambda losses: range(1, len(losses) + 1))
    told = healings.rename(columns={"losses": "loss"}).assign(step=steps).explode(["step", "loss"])
    told = told.astype({"step": float, "loss": float})
    few = max(3, healings.losses.map(len).max() // 32)
    smooth = told.groupby(level=0).loss.rolling(few, min_periods=1, center=True).mean()
    told["smooth"] = smooth.droplevel(0)
    models = told.dropna(subset="loss").groupby("model", sort=False)
    rows = max(1, len(models))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, figsize=(WIDTH, 1 + 2.6 * rows), squeeze=False)
        for axis, (model, lines) in zip(axes.flat, models, strict=False):
            axis.set_title(registry.label(model), loc="left")
            axis.set(xscale="log", yscale="log", ylabel="training loss (nats)")
            axis.axvspan(1, lines.warmup_steps.max(), color="lightyellow", label="the rate rises")
            depths = [0, *sorted(lines.block_size.unique())]
            longest = lines.groupby(["strategy", "block_size"]).steps.max()
            for (strategy, n, length), line in lines.groupby(LINE, sort=False):
                pale = 0.6 * (1 - depths.index(n) / len(depths)) * (n > 0)
                shade = [part + (1 - part) * pale for part in to_rgb(LOOKS[strategy][0])]
                falls = length - (line.decay_steps.iloc[0] or length - line.warmup_steps.iloc[0])
                axis.axvspan(falls, length, color="0.93", zorder=-1, label="the rate falls")
                axis.plot(line.step, line.loss, color=shade, lw=0.6, alpha=0.4)
                name = LOOKS[strategy][2] + (f", $n$ = {n}" if n else "")
                if length == longest[strategy, n]:
                    axis.plot(line.step, line.smooth, color=shade, label=name)
        axes[-1, 0].set_xlabel(f"steps of healing (bold: mean over {few} of them)")
        return save_figure(figure, told, "figure_training", profile, legend="")


def figure_dose(doses: pd.DataFrame, gaps: pd.DataFrame, profile: Profile) -> Figure:
    """A column a depth: loss, accuracy, and the gap between the strategies, against tokens.

    doses: of experiments.dose; gaps: of analysis.gap_left. Dotted: not healed, at most ln V.
    """
    model = ", ".join(map(registry.label, doses.model.unique()))
    sizes = [size for size in sorted(doses.block_size.unique()) if size] or [0]
    grid = {"nrows": 3, "ncols": len(sizes), "squeeze": False, "sharex": True, "sharey": "row"}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH, 7.4), **grid)
        for (loss, accuracy, gap), size in zip(axes.T, sizes, strict=True):
            for axis, task in ((loss, "c4"), (accuracy, "arc_easy")):
                _lines(axis, doses[(doses.task == task) & doses.block_size.isin([0, size])])
            _gap(gap, gaps[(gaps.block_size == size) & (gaps.tokens > 0)])
            loss.set_title(f"$n$ = {size}", loc="left")
            gap.set_xlabel("tokens of healing")
        figure.suptitle(f"{model}, $n$ layers dropped", fontsize=9)
        for axis, label in zip(axes[:, 0], LABELS, strict=True):
            axis.set_ylabel(label)
        for axis in axes.flat:
            axis.set_xscale("log")
            axis.axvline(PAPER_TOKENS, color="0.7", lw=1, ls="-.", label="the paper's tokens")
        shown = doses.merge(gaps, on=["model", "block_size", "tokens"], how="left")
        return save_figure(figure, shown, "figure_dose", profile, legend="")


def _lines(axis, rows: pd.DataFrame) -> None:
    if rows.empty:  # the job of a model that is healed for one length
        return
    unpruned = rows[rows.treatment == "unpruned"].iloc[0]
    axis.axhline(unpruned.value, color="black", ls="--", lw=1, label="unpruned, not healed")
    worst = unpruned.chance if unpruned.task == "c4" else 1.0
    for strategy, line in rows[rows.treatment != "unpruned"].groupby("strategy", sort=False):
        shade, marker, name = LOOKS[strategy]
        for value in line.value[line.treatment == "unhealed"]:
            axis.axhline(min(value, worst), color=shade, ls=":", lw=1.2)
        healed = line[line.treatment.isin(["healed", "control"])].sort_values("tokens")
        how = {"color": shade, "marker": marker, "ms": 4, "elinewidth": 0.8, "label": name}
        axis.errorbar(healed.tokens, healed.value, NORMAL * healed.standard_error, **how)
    axis.set_title(f"n = {unpruned.n:.0f}, bars: 95 %", loc="right", fontsize=7)
    if unpruned.task == "arc_easy":
        axis.axhline(unpruned.floor, color="grey", ls="-.", lw=1)


def _gap(axis, gaps: pd.DataFrame) -> None:
    ends = np.array([gaps.share - gaps.share_low, gaps.share_high - gaps.share])
    how = {"color": "tab:purple", "marker": "o", "ms": 4, "elinewidth": 0.8}
    axis.errorbar(gaps.tokens, gaps.share, ends, **how)
    axis.axhline(0, color="0.5", lw=0.8)
