"""What dropped layers save: memory and latency."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.models import registry
from replication.figures.style import STYLE, WIDTH, colour, finished

COSTS = {
    "weights": "weights (GB)",
    "prefill": "prefill of the prompt (s)",
    "decode": "decode, a token (s)",
}
TITLES = {"weights": "memory", "prefill": "reading", "decode": "writing"}


def figure_cost(costs: pd.DataFrame) -> Figure:
    """Memory and latency against the fraction of layers dropped, and as ratios to the unpruned
    model; solid as it is, dotted in NF4. Bars: quartiles above, 95 % intervals below."""
    measured = costs[costs.status == "ok"]
    deepest = measured.fraction.max()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(2, len(COSTS), figsize=(WIDTH, 4.6), sharex=True)
        for column, (task, label) in enumerate(COSTS.items()):
            above, below = axes[:, column]
            of_task = measured[measured.task == task]
            lines = of_task.groupby(["model", "quantization"], dropna=False)
            for (name, quantization), line in lines:
                packed = pd.notna(quantization)
                style = {"color": colour(name), "ls": ":" if packed else "-", "marker": "."}
                weights = "NF4" if packed else line.dtype.iloc[0]
                text = f"{registry.label(name)}, {weights}"
                _with_bars(above, line, line.value, line.low, line.high, style, text)
                _with_bars(below, line, line.ratio, line.ratio_low, line.ratio_high, style)
            below.plot([0, deepest], [1, 1 - deepest], color="grey", lw=1, label="layers left")
            highest = of_task.value.max()
            above.set(ylabel=label, ylim=(0, 1.1 * highest))
            rounds = of_task.n.max()
            above.set_title(TITLES[task], loc="left")
            if rounds > 1:
                above.set_title(f"{rounds:.0f} rounds", loc="right", fontsize=7)
            below.set(xlabel="fraction dropped", ylabel="ratio to unpruned", ylim=(0, None))
        bars = "bars: quartiles above, 95 % intervals below"
        return finished(figure, costs, legend=bars)


def _with_bars(
    axis,
    line: pd.DataFrame,
    middle: pd.Series,
    low: pd.Series,
    high: pd.Series,
    style: dict,
    label: str = "",
) -> None:
    """A line with bars from `low` to `high`, where these are known."""
    below = middle - low.fillna(middle)
    above = high.fillna(middle) - middle
    bars = np.array([below, above])
    axis.errorbar(line.fraction, middle, bars, elinewidth=0.8, label=label, **style)
