"""How questions are answered: by four measures, by letter or content, with open or closed book."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.analysis import curves
from lib.analysis.answers import MEASURES
from lib.figures.curves import STRATEGIES, TASKS, TREATMENTS, stamp
from lib.figures.style import STYLE, save_figure
from lib.models import registry
from lib.profiles import Profile

WAYS = {
    "letters": "tab:purple",
    "content": "tab:green",
    "open": "tab:blue",
    "closed": "tab:orange",
}
SETS = {"mmlu": "MMLU", "arc_easy": "ARC-Easy", "sciq": "SciQ", "boolq": "BoolQ", "squad": "SQuAD"}


def figure_measures(measured: pd.DataFrame, profile: Profile) -> Figure:
    """The same answers by four measures, a row each, a column a model and question set.

    measured: of analysis.measures, of unhealed and perhaps healed scores.
    """
    columns = {
        f"{registry.label(model)}, {TASKS[task].removesuffix(' accuracy')}": rows
        for (model, task), rows in measured.groupby(["model", "task"], sort=False)
    }
    rows = {measure: measured[measured.measure == measure] for measure in MEASURES}
    return _grid(measured, columns, rows, "strategy", STRATEGIES, "figure_measures", profile)


def figure_letters(scores: pd.DataFrame, kept: pd.DataFrame, profile: Profile) -> Figure:
    """Letters or content: accuracy, and below it the share of the lead over the floor that is left.

    A column a model and strategy. kept: of analysis.kept by form.
    """
    both = [scores, kept.rename(columns={"kept": "value"}).assign(measure="kept")]
    shown = pd.concat(both, ignore_index=True)
    pairs = scores.loc[scores.strategy != "none", ["model", "strategy"]].drop_duplicates()
    columns = {
        f"{registry.label(model)}, {strategy}": shown[
            (shown.model == model) & shown.strategy.isin(["none", strategy])
        ]
        for model, strategy in pairs.itertuples(index=False)
    }
    rows = {}
    for questions in shown.questions.unique():
        mine, told = shown[shown.questions == questions], SETS[questions]
        rows[f"{told} accuracy"] = mine[mine.measure.isna()]
        rows[f"{told}: share of\nthe lead left"] = mine[mine.measure.notna()]
    return _grid(shown, columns, rows, "form", WAYS, "figure_letters", profile)


def figure_books(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Open or closed book: the same questions with and without their passages, a column a model."""
    columns = {registry.label(m): rows for m, rows in scores.groupby("model", sort=False)}
    rows = {
        f"{SETS[q]} {'bits per byte' if q == 'squad' else 'accuracy'}": mine
        for q, mine in scores.groupby("questions", sort=False)
    }
    return _grid(scores, columns, rows, "book", WAYS, "figure_books", profile)


def _grid(shown, columns: dict, rows: dict, by: str, shades: dict, name: str, profile) -> Figure:
    """A panel where a row meets a column; a line for each value of `by` and each treatment."""
    size = (1.4 + 3.6 * len(columns), 0.5 + 2.1 * len(rows))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(rows), len(columns), figsize=size, squeeze=False, sharex=True
        )
        for line, (label, of_row) in zip(axes, rows.items(), strict=True):
            for axis, of_column in zip(line, columns.values(), strict=True):
                _panel(axis, of_row.loc[of_row.index.intersection(of_column.index)], by, shades)
            line[0].set_ylabel(label)
        for axis, title in zip(axes[0], columns, strict=True):
            axis.set_title(title)
        for axis in axes[-1]:
            axis.set_xlabel("fraction of layers dropped")
        handles = {text: h for axis in axes.flat for h, text in zip(*_legend(axis), strict=True)}
        axes[0, -1].legend(
            handles.values(), handles.keys(), loc="upper left", bbox_to_anchor=(1, 1)
        )
        return save_figure(figure, shown, name, profile)


def _legend(axis) -> tuple:
    return axis.get_legend_handles_labels()


def _panel(axis, scores: pd.DataFrame, by: str, shades: dict) -> None:
    """Lines from the unpruned score on, with bars, and the floors."""
    unpruned = scores[scores.treatment == "unpruned"]
    for (way, treatment), points in scores[scores.block_size > 0].groupby([by, "treatment"]):
        start = unpruned if by == "strategy" else unpruned[unpruned[by] == way]
        line = pd.concat([start.head(1), points]).sort_values("fraction")
        bars = line.get("standard_error")
        if line.get("low", pd.Series(dtype=float)).notna().any():
            bars = [line.value - line.low, line.high - line.value]
        style = {
            "color": shades[way],
            "ls": TREATMENTS[treatment],
            "marker": ".",
            "elinewidth": 0.8,
        }
        axis.errorbar(line.fraction, line.value, bars, label=f"{way}, {treatment}", **style)
    accuracy = (
        "accuracy" in scores.get("measure", pd.Series(["accuracy"])).fillna("accuracy").values
    )
    for row in unpruned.itertuples() if accuracy else ():
        shade = "grey" if by == "strategy" else shades[getattr(row, by)]
        floor = curves.floor(row)
        if pd.notna(floor):
            told = "floor" if by == "strategy" else f"floor, {getattr(row, by)}"
            axis.axhline(floor, color=shade, ls="-.", lw=0.8, label=told)
    if accuracy:
        stamp(axis, unpruned if by == "strategy" else unpruned.assign(variant=unpruned[by]))
    if len(scores):
        told = "95 %" if scores.get("low", pd.Series(dtype=float)).notna().any() else "±1 s.e."
        axis.set_title(f"n = {scores.n.max():.0f}, {told}", loc="right", fontsize=7)
