"""Healing on its way: the training loss of each step."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lib.models import registry
from replication.figures.style import (
    STYLE,
    WIDTH,
    colour,
    finished,
    label_directly,
    nothing_measured,
)

LOOKS = {  # of each line: colour, marker, name
    "similarity": (colour("similarity"), "o", "similarity"),
    "simple": (colour("simple"), "s", "simple"),
    "none": (colour("none"), "^", "nothing dropped"),
}
LINE = ["strategy", "block_size", "steps"]


def figure_training(healings: pd.DataFrame) -> Figure:
    """The training loss of each healing against its steps, a panel a model; darker: deeper cuts.

    healings: the table `trainings`. Pale: every step. In colour: a running mean of the longest of
    each cut, with the number of layers dropped at its end. Yellow: the learning rate rises;
    grey: it falls, at the end of each length.
    """
    numbers = healings.losses.map(len)
    steps = [range(1, number + 1) for number in numbers]
    table = healings.rename(columns={"losses": "loss"}).assign(step=steps)
    table = table.explode(["step", "loss"])
    table = table.astype({"step": float, "loss": float})
    few = max(3, numbers.max() // 32)
    of_healing = table.groupby(level=0).loss
    smooth = of_healing.rolling(few, min_periods=1, center=True).mean()
    table["smooth"] = smooth.droplevel(0)
    models = table.dropna(subset="loss").groupby("model", sort=False)
    rows = len(models)
    if not rows:
        return nothing_measured(table)
    with plt.rc_context(STYLE):
        size = WIDTH, 1 + 2.6 * rows
        figure, axes = plt.subplots(rows, figsize=size, squeeze=False)
        for axis, (model, lines) in zip(axes.flat, models, strict=True):
            axis.set_title(registry.label(model), loc="left")
            axis.set(xscale="log", yscale="log", ylabel="training loss (nats)")
            warmup = lines.warmup_steps.max()
            rises = "the rate rises"
            axis.axvspan(1, warmup, color=colour(rises), label=rises)
            depths = [0, *sorted(lines.block_size.unique())]
            ends = []
            longest = lines.groupby(["strategy", "block_size"]).steps.max()
            for (strategy, n, length), line in lines.groupby(LINE, sort=False):
                hue, _, name = LOOKS[strategy]
                depth = depths.index(n) / len(depths)
                pale = 0.6 * (1 - depth) if n else 0
                shade = [part + (1 - part) * pale for part in to_rgb(hue)]
                first = line.iloc[0]
                falls = length - first.decay_steps if first.decay_steps else first.warmup_steps
                axis.axvspan(falls, length, color="0.93", zorder=-1, label="the rate falls")
                axis.plot(line.step, line.loss, color=shade, lw=0.6, alpha=0.4)
                if length == longest[strategy, n]:
                    axis.plot(line.step, line.smooth, color=shade)
                    axis.plot([], [], color=hue, label=name)
                    end = line.iloc[-1]
                    ends.append((end.step, end.smooth, f"$n$ = {n}" if n else "none", shade))
            axis.set_ylim(*_range(lines.smooth))
            label_directly(axis, ends)
        axes[-1, 0].set_xlabel(f"steps of healing (bold: mean over {few} of them)")
        return finished(figure, table, legend="")


def _range(losses: pd.Series) -> tuple[float, float]:
    """Limits of a logarithmic axis, a little beyond the running means."""
    return 0.9 * losses.min(), 1.1 * losses.max()
