"""The paper's claims, a strip a verdict."""

from dataclasses import asdict

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.figures.style import STYLE, save_figure
from lib.profiles import Profile

COLOURS = {
    "holds": "tab:green",
    "does not hold": "tab:red",
    "undecided": "tab:orange",
    "not run": "darkgrey",
}


def figure_claims(verdicts: list, profile: Profile) -> Figure:
    """A strip a verdict: where it holds (shaded), the statistic and its interval, coloured.

    verdicts: a list of claims.bounds.Verdict.
    """
    with plt.rc_context(STYLE | {"figure.constrained_layout.use": False, "savefig.dpi": 80}):
        figure, axes = plt.subplots(len(verdicts), 1, figsize=(11, 0.42 * len(verdicts)))
        figure.subplots_adjust(left=0.42, right=0.64, hspace=0.9)
        for axis, verdict in zip(axes, verdicts, strict=True):
            _strip(axis, verdict)
        return save_figure(figure, pd.DataFrame(map(asdict, verdicts)), "figure_claims", profile)


def _strip(axis, v) -> None:
    (floor, ceiling), shade = v.bounds, COLOURS[v.verdict]
    axis.set(yticks=[], xticks=[], ylim=(-1, 1))
    axis.spines[["left", "bottom"]].set_visible(False)
    beside = {"transform": axis.transAxes, "va": "center", "fontsize": 8}
    axis.text(-0.02, 0.5, f"{v.claim}  {v.statement}", ha="right", **beside)
    told = " · ".join(filter(None, [v.verdict, v.numbers, v.where]))
    axis.text(1.02, 0.5, told, color=shade, **beside)
    if np.isnan(v.statistic):
        return axis.text(0, 0.5, v.why.split(":")[0], color="grey", **beside)
    seen = [x for x in (v.statistic, v.low, v.high, floor, ceiling) if np.isfinite(x)]
    room = 0.15 * (np.ptp(seen) or 1)
    least, most = min(seen) - room, max(seen) + room
    axis.set(xlim=(least, most), xticks=[b for b in (floor, ceiling) if np.isfinite(b)])
    axis.tick_params(labelsize=6, length=2, pad=1)
    axis.axvspan(max(least, floor), min(most, ceiling), color="tab:green", alpha=0.15, lw=0)
    axis.plot(np.clip([v.low, v.high], least, most), [0, 0], color=shade, lw=2)
    axis.plot(np.clip(v.statistic, least, most), 0, "o", color=shade, ms=5)
