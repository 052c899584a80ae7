"""What dropped layers save: memory and latency."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.models import registry
from replication.figures.style import STYLE, check_one_point_each, colour, finished, panel_grid

COSTS = {
    "weights": "weights (GB)",
    "prefill": "prefill (s)",
    "decode": "decode, a token (s)",
}
ROWS = {  # what is drawn: the value, and the ends of its bar
    "cost": ["value", "low", "high"],
    "ratio to unpruned": ["ratio", "ratio_low", "ratio_high"],
}


def figure_cost(costs: pd.DataFrame) -> Figure:
    """Memory and latency against the fraction of layers dropped, and as ratios to the unpruned
    model; solid as it is, dotted in NF4. Bars: quartiles above, 95 % intervals below."""
    measured = costs[costs.status == "ok"]
    deepest = measured.fraction.max()
    places = [(row, title) for row in ROWS for title in COSTS.values()]
    with plt.rc_context(STYLE):
        figure, axes = panel_grid(places, "fraction dropped")
        for task, title in COSTS.items():
            rows = measured[measured.task == task]
            for row, columns in ROWS.items():
                _lines(axes[row, title], rows, columns)
            rounds = rows.n.max()
            if rounds > 1:
                axes["cost", title].set_title(f"{rounds:.0f} rounds", loc="right", fontsize=8)
            line = {"color": "grey", "lw": 1, "label": "layers left"}
            axes["ratio to unpruned", title].plot([0, deepest], [1, 1 - deepest], **line)
        return finished(figure, costs, legend="bars: quartiles above, 95 % intervals below")


def _lines(axis, rows: pd.DataFrame, columns: list[str]) -> None:
    """Draw a line with bars for each model and quantisation."""
    for (name, quantization), line in rows.groupby(["model", "quantization"], dropna=False):
        check_one_point_each(line, "fraction", name)
        packed = pd.notna(quantization)
        weights = "NF4" if packed else line.dtype.iloc[0]
        middle, low, high = line[columns].to_numpy(float).T
        axis.errorbar(
            line.fraction,
            middle,
            np.array([middle - low, high - middle]),
            elinewidth=0.8,
            color=colour(name),
            ls=":" if packed else "-",
            marker=".",
            label=f"{registry.label(name)}, {weights}",
        )
    axis.set_ylim(0, 1.1 * rows[columns[0]].max())
