"""Healing on its way: the training loss of each step."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lib.models import registry
from replication.figures.style import STYLE, WIDTH, save_figure
from replication.profiles import Profile

LOOKS = {  # of each line: colour, marker, name
    "similarity": ("tab:blue", "o", "similarity"),
    "simple": ("tab:red", "s", "simple"),
    "none": ("0.4", "^", "nothing dropped"),
}
LINE = ["strategy", "block_size", "steps"]


def figure_training(healings: pd.DataFrame, profile: Profile) -> Figure:
    """The training loss of each healing against its steps, a panel a model; darker: deeper cuts.

    healings: of scores.healings. Pale: every step. In colour: a running mean of the longest of each
    cut. Yellow: the learning rate rises; grey: it falls, at the end of each length.
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
    rows = max(1, len(models))
    with plt.rc_context(STYLE):
        size = WIDTH, 1 + 2.6 * rows
        figure, axes = plt.subplots(rows, figsize=size, squeeze=False)
        for axis, (model, lines) in zip(axes.flat, models, strict=False):
            axis.set_title(registry.label(model), loc="left")
            axis.set(xscale="log", yscale="log", ylabel="training loss (nats)")
            warmup = lines.warmup_steps.max()
            axis.axvspan(1, warmup, color="lightyellow", label="the rate rises")
            depths = [0, *sorted(lines.block_size.unique())]
            longest = lines.groupby(["strategy", "block_size"]).steps.max()
            for (strategy, n, length), line in lines.groupby(LINE, sort=False):
                colour, _, name = LOOKS[strategy]
                depth = depths.index(n) / len(depths)
                pale = 0.6 * (1 - depth) if n else 0
                shade = [part + (1 - part) * pale for part in to_rgb(colour)]
                first = line.iloc[0]
                falls = length - first.decay_steps if first.decay_steps else first.warmup_steps
                axis.axvspan(falls, length, color="0.93", zorder=-1, label="the rate falls")
                axis.plot(line.step, line.loss, color=shade, lw=0.6, alpha=0.4)
                name += f", $n$ = {n}" if n else ""
                if length == longest[strategy, n]:
                    axis.plot(line.step, line.smooth, color=shade, label=name)
        axes[-1, 0].set_xlabel(f"steps of healing (bold: mean over {few} of them)")
        return save_figure(figure, table, "figure_training", profile, legend="")
