"""Healing on its way: the training loss of each step."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib.models import registry
from replication.figures.style import STYLE, WIDTH, colour, finished, nothing_measured

LOOKS = {  # of each line: colour, marker, name
    "similarity": (colour("similarity"), "o", "similarity"),
    "simple": (colour("simple"), "s", "simple"),
    "none": (colour("none"), "^", "nothing dropped"),
}
COLOURS = {strategy: shade for strategy, (shade, *_) in LOOKS.items()}


def figure_training(healings: pd.DataFrame) -> Figure:
    """The training loss of each healing against its steps, a panel a model; wide: deep cuts.

    healings: the table `trainings`. A line is the running mean of a healing.
    """
    numbers = healings.losses.map(len)
    steps = [range(1, number + 1) for number in numbers]
    table = healings.rename(columns={"losses": "loss"}).assign(step=steps)
    table = table.explode(["step", "loss"])
    table = table.astype({"step": float, "loss": float})
    window = max(3, numbers.max() // 32)
    by_healing = table.groupby(level=0).loss
    smooth = by_healing.rolling(window, min_periods=1, center=True).mean()
    table["smooth"] = smooth.droplevel(0)
    drawn = table.dropna(subset="loss").rename_axis("healing").reset_index()
    drawn = drawn.rename(columns={"strategy": "dropped", "block_size": "layers"})
    models = drawn.groupby("model", sort=False)
    if drawn.empty:
        return nothing_measured(table)
    columns = {"x": "step", "y": "smooth", "hue": "dropped", "size": "layers"}
    lines = {"palette": COLOURS, "sizes": (0.5, 2), "units": "healing", "estimator": None}
    with plt.rc_context(STYLE):
        shape = {"figsize": (WIDTH, 2.6 * len(models)), "squeeze": False}
        figure, axes = plt.subplots(len(models), **shape)
        for axis, (model, healed) in zip(axes.flat, models, strict=True):
            sns.lineplot(healed, **columns, **lines, ax=axis)
            sns.move_legend(axis, "upper left", bbox_to_anchor=(1, 1), frameon=False)
            axis.set_title(registry.label(model), loc="left")
            axis.set(xscale="log", yscale="log", ylabel="training loss (nats)")
            axis.set_xlabel(f"steps of healing (mean over {window} of them)")
        return finished(figure, table)
