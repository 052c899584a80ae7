"""Scores of pruned models: figures 1d, 2, 3 and 5 to 7, and those of notebooks 10 and 11.

A figure function takes tidy scores and returns a figure, with the table of exactly what it shows.
One colour a model, one line style a treatment; hollow: not healed. A panel in
which no pruned model is measured is not drawn.
"""

import re

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.models import registry
from replication.analysis.answers import boolq_ranking
from replication.figures.style import (
    STYLE,
    backdrop,
    colour,
    finished,
    level,
    nothing_measured,
    panel_grid,
    published,
)

TREATMENTS = {"unhealed": ":", "healed": "-"}
MARKS = {"marker": "o", "ms": 3.5, "lw": 1.3}
ELSEWHERE = {"Qwen3-8B": "D", "Llama-3-70B": "p"}  # markers of models that others measured
MARKED = {"marker": "|", "ms": 12, "lw": 2.5, "zorder": 4}  # where half is lost
MARKERS = {"simple": "s", "early exit": "^", "content": "^", "listed text": "v"}  # others: MARKS
TASKS = {
    "mmlu": "MMLU accuracy",
    "boolq": "BoolQ accuracy",
    "boolq_ranking": "BoolQ AUC",
    "arc_easy": "ARC-Easy accuracy",
    "arc_easy_test": "ARC-Easy test accuracy",
    "c4": r"C4 loss / $\ln V$",
    "hellaswag": "HellaSwag accuracy",
    "gsm8k": "GSM8K exact match",
    "gsm8k_bpb": "GSM8K gold, bits a byte",
    "sciq": "SciQ accuracy",
    "squad": "SQuAD gold, bits a byte",
}
UNITS = {  # of a score; all others are accuracies
    "c4": "nats / ln V",
    "boolq_ranking": "AUC",
    "gsm8k_bpb": "bits per byte",
    "squad": "bits per byte",
    "squad_closed": "bits per byte",
}
QA = ["mmlu", "boolq", "arc_easy"]
CONSTANT = 0.95  # a score is crossed out if one answer is given to more of the questions


def figure_1d(scores: pd.DataFrame, main: str) -> Figure:
    """Figure 1d: one model (of `most_healed`), question answering and C4 loss."""
    name = most_healed(scores, main)
    scores = scores[(scores.model == name) & (scores.strategy != "simple")]
    titles = scores.model.map(registry.label)
    return grid(scores, titles, "model", [*QA, "c4"])


def most_healed(scores: pd.DataFrame, main: str) -> str:
    """Return the model that was healed after most cuts, of both strategies if one was.

    Ties: the model `main`, or the first.
    """
    healed = scores[(scores.treatment == "healed") & scores.value.notna()]

    def cuts(model: str) -> tuple[int, int, bool]:
        strategies = healed.strategy[healed.model == model]
        return strategies.nunique(), len(strategies), model == main

    return max(scores.model.unique(), key=cuts)


def figure_2(scores: pd.DataFrame, halves: pd.DataFrame | None = None) -> Figure:
    """Figure 2: MMLU against the fraction dropped, a column a family; and ARC-Easy, of both splits.

    halves: of `analysis.transitions`; marked with their 95 % intervals, and beside them in grey
    MMLU of other models, as others published it (`kind` secondary).
    """
    tasks = ["mmlu", "arc_easy", "arc_easy_test"]
    figure = _by_family(scores, tasks, halves=halves)
    figure.table = pd.concat([figure.table, elsewhere()])
    return figure


def elsewhere() -> pd.DataFrame:
    """Return scores of pruned models that others measured; kind: secondary."""
    rows = pd.DataFrame(published("pruned_mmlu")["rows"])
    return rows.assign(task="mmlu", fraction=rows.dropped / rows.layers, kind="secondary")


def figure_3(scores: pd.DataFrame) -> Figure:
    """Figure 3: C4 loss over ln V (chance is 1), all models in both columns, the treatments."""
    scores = scores[scores.strategy != "simple"]
    titles = scores.treatment.where(scores.block_size > 0)
    return grid(scores, titles, "model", ["c4"])


def figure_6(scores: pd.DataFrame) -> Figure:
    """Figure 6: BoolQ against the fraction dropped, a column a family; above, without threshold."""
    scores = pd.concat([scores, boolq_ranking(scores)], ignore_index=True)
    return _by_family(scores, ["boolq_ranking", "boolq"])


def figure_5(scores: pd.DataFrame, main: str) -> Figure:
    """Figure 5: simple (red) against similarity-informed pruning (blue), a column a treatment."""
    name = most_healed(scores, main)
    scores = scores[scores.model == name]
    titles = f"{registry.label(name)}, " + scores.treatment
    return grid(scores, titles.where(scores.block_size > 0), "strategy", [*QA, "c4"])


def figure_7(scores: pd.DataFrame) -> Figure:
    """Figure 7: healed models by order and number of examples; a line a `variant`."""
    scores = scores.sort_values("ablation", ascending=False, kind="stable")
    titles = scores.model.map(registry.label) + "\n" + scores.ablation + " of examples"
    return grid(scores, titles, "variant", ["arc_easy", "arc_easy_test", "mmlu"])


def figure_beyond(scores: pd.DataFrame) -> Figure:
    """HellaSwag and GSM8K, unhealed; exact match only if a pruned model was asked for it."""
    tasks = ["hellaswag", "gsm8k_bpb"]
    pruned = scores[(scores.block_size > 0) & scores.value.notna()]
    if "gsm8k" in set(pruned.task):
        tasks.append("gsm8k")
    return _by_family(scores, tasks)


def in_units_of_chance(scores: pd.DataFrame) -> pd.DataFrame:
    """The same scores with the C4 loss divided by ln V, as the paper shows it."""
    table = scores.copy()
    if "measure" not in table:
        table["unit"] = table.task.map(UNITS).fillna("accuracy")
    loss = table.task == "c4"
    for column in {"value", "standard_error", "chance", "floor"} & set(table):
        table.loc[loss, column] = table.loc[loss, column] / scores.loc[loss, "chance"]
    return table


def _by_family(scores: pd.DataFrame, tasks: list[str], **kwargs) -> Figure:
    """Similarity-informed pruning: a column a family of models, a line a model and treatment."""
    scores = scores[scores.strategy != "simple"]
    return grid(scores, scores.model.map(registry.family), "model", tasks, **kwargs)


def _mark(axis, panel: pd.DataFrame, halves: pd.DataFrame) -> None:
    """Mark where half of a lead over the floor is lost, with its 95 % interval, to the last depth
    that was measured; and what is known from elsewhere."""
    others = elsewhere()
    others = others[others.task.isin(panel.task) & (others.dropped > 0)]
    for (name, treatment), rows in others.groupby(["model", "treatment"], sort=False):
        fill = "0.6" if treatment == "healed" else "white"
        look = {"marker": ELSEWHERE[name], "color": "0.6", "mfc": fill, "ls": "none"}
        axis.plot(rows.fraction, rows.value, label=f"{name}, {treatment} (secondary)", **look)
    for (name, task), _ in panel.groupby(["model", "task"]):
        same = (halves.model == registry.label(name)) & (halves.task == task)
        for row in halves[same & halves.fraction.notna()].itertuples():
            last = min(row.high, panel.fraction.max())
            reach = [[row.fraction - row.low], [last - row.fraction]]
            height = (row.unpruned + row.floor) / 2
            look = MARKED | {"color": colour(name)}
            axis.errorbar(row.fraction, height, xerr=reach, **look)
            axis.plot([], [], color="black", label="half of the lead lost, 95 %", **MARKED)


def grid(
    scores: pd.DataFrame,
    titles: pd.Series,
    hue: str,
    rows: list[str] | None = None,
    row: str = "task",
    halves: pd.DataFrame | None = None,
) -> Figure:
    """Draw a row of panels for each of `rows` (values of the column `row`; by default all).

    titles: of the column of panels of each score; an unpruned score without one is in all columns.
    hue: the column (model, strategy or variant) of which each value has a colour; a line is one of
    these and a treatment. halves: of `analysis.transitions`, marked.
    """
    rows = list(dict.fromkeys(scores[row])) if rows is None else rows
    in_rows = scores[row].isin(rows)
    table = in_units_of_chance(scores[in_rows]).reset_index(drop=True)
    titles = titles[in_rows].reset_index(drop=True)
    panels = {}
    for name in rows:
        of_row = table[row] == name
        panels |= _panels(table[of_row], titles[of_row], hue, TASKS.get(name, name))
    if not panels:
        return nothing_measured(table)
    with plt.rc_context(STYLE):
        figure, axes = panel_grid(list(panels), "fraction of layers dropped", sharey="row")
        for place, axis in axes.items():
            _panel(axis, panels[place], hue)
            if halves is not None:
                _mark(axis, panels[place], halves)
        names = {" ".join(place): axis for place, axis in axes.items()}
        level([axis for name, axis in names.items() if re.search("accuracy|AUC", name)])
        return finished(figure, table, legend="bars: ±1 s.e.")


def _panels(
    scores: pd.DataFrame, titles: pd.Series, hue: str, label: str
) -> dict[tuple, pd.DataFrame]:
    """Return the scores of each panel of a row, by label and title, if a pruned model is measured.

    Of what is unpruned, which may be in all columns, a panel has that of its models (or variants).
    """
    measured = scores[(scores.block_size > 0) & scores.value.notna()]
    shots = measured.shots.dropna().unique()
    if len(shots) == 1:
        label += f"\n({shots[0]:.0f}-shot)"
    same = "variant" if hue == "variant" else "model"
    panels = {}
    for title, pruned in measured.groupby(titles, sort=False):
        panel = scores[titles.isna() | (titles == title)]
        panels[label, title] = panel[panel[same].isin(pruned[same])]
    return panels


def _panel(axis, panel: pd.DataFrame, hue: str) -> None:
    """Draw the lines of a panel over its backdrop; level lines: the unpruned models."""
    unpruned = backdrop(axis, panel)
    for row in unpruned.itertuples() if hue != "variant" else ():
        shade = colour(row.model) if hue == "model" else "black"
        axis.axhline(row.value, color=shade, ls="--", lw=1)
    level_line = "" if hue == "variant" else "--"
    look = MARKS | {"ls": level_line, "mfc": "white"}
    axis.plot([], [], color="black", label="unpruned", **look)
    lines = panel[panel.block_size > 0].groupby([hue, "treatment"], sort=False)
    for (name, treatment), points in lines:
        if points.value.notna().any():
            style = MARKS | {"ls": TREATMENTS[treatment]}
            full = treatment == "healed"
            _curve(axis, unpruned, points, name, style | {"mfc": colour(name) if full else "white"})
            fill = "black" if full else "white"
            axis.plot([], [], color="black", label=treatment, **style, mfc=fill)


def _curve(axis, unpruned: pd.DataFrame, points: pd.DataFrame, name: str, style: dict) -> None:
    """Draw one line, from the unpruned score of its model (and variant) on.

    It passes points that nobody measured, and has a gap where measuring failed. A single healed
    point is no line: it stands by itself.
    """
    same = [c for c in ("model", "variant") if c in points and unpruned[c].notna().all()]
    start = unpruned[(unpruned[same] == points[same].iloc[0]).all(axis=1)].head(1)
    there = points.value.notna() | (points.get("status") != "not measured")
    line = pd.concat([start, points[there]]).sort_values("fraction")
    if points.value.notna().sum() == 1 and set(points.treatment) == {"healed"}:
        line = points[there]
    shade, errors = colour(name), line.standard_error
    style = style | {"marker": MARKERS.get(name, MARKS["marker"])}
    axis.errorbar(line.fraction, line.value, errors, elinewidth=0.8, color=shade, **style)
    axis.plot(start.fraction, start.value, "o", ms=3.5, color=shade, mfc="white", zorder=3)
    key = {"color": shade, "lw": 3, "marker": style["marker"]}
    axis.plot([], [], label=registry.label(name), **key)
    if "commonest" in line and (constant := line.commonest > CONSTANT).any():
        label = f"one answer to over {CONSTANT:.0%}"
        crossed = line[constant]
        axis.plot(crossed.fraction, crossed.value, "kx", ms=6, zorder=4, label=label)
