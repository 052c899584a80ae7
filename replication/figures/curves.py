"""Scores of pruned models: figures 1d, 2, 3 and 5 to 7, and those of notebooks 10 and 11.

A figure function takes tidy scores and returns a figure, with the table of exactly what it shows.
One colour a model, one line style a treatment; hollow: not healed. A panel in
which no pruned model is measured is not drawn.
"""

import re
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.evaluation import TASK_SPECS
from replication.analysis.answers import boolq_ranking
from replication.analysis.curves import gap, no_signal, unclear
from replication.figures.style import (
    STYLE,
    check_one_point_each,
    colour,
    draw_baselines,
    family,
    finished,
    is_recorded,
    label,
    level,
    look,
    name_pale,
    names_of_panels,
    note_above,
    nothing_measured,
    only_recorded,
    opacity,
    panel_grid,
    recorded_first,
)
from replication.profiles import DRAW_ONLY_PROFILE, PROFILES
from replication.profiles.strategies import CHOOSE
from replication.tables import RECORD_PREFIX, NotMeasured

TREATMENTS = {"unhealed": ":", "healed": "-"}
MARKS = {"marker": "o", "ms": 3.5, "lw": 1.3}
TASKS = {
    "mmlu": "MMLU accuracy",
    "boolq": "BoolQ accuracy",
    "boolq_ranking": "BoolQ AUC",
    "arc_easy": "ARC-Easy accuracy",
    "arc_easy_test": "ARC-Easy test accuracy",
    "c4": r"C4 loss / $\ln V$",
    "hellaswag": "HellaSwag accuracy",
    "gsm8k": "GSM8K exact match",
    "gsm8k_bpb": "GSM8K gold, bits per byte",
}
UNITS = {  # of a score; all others are accuracies
    "c4": "nats / ln V",
    "boolq_ranking": "AUC",
    "gsm8k_bpb": "bits per byte",
}
ALL = ["mmlu", "boolq", "boolq_ranking", "arc_easy", "c4"]  # of one model
SAME = {"1 examples": "1 example"}  # in a legend
PARTLY = "not measured at some sizes"
LONG, SHORT = "long", "short"  # healings of two lengths in one panel, column `length`
SIZES = {LONG: 6, SHORT: 3}  # of their points
CONSTANT = 0.95  # a score is crossed out if one answer is given to more of the questions


def figure_1d(scores: pd.DataFrame, models: Sequence[str]) -> Figure:
    """Figure 1d: question answering and C4 loss, a column a model; dark blue: healed, light blue:
    not healed, red dashes: unpruned. models: of the run; those of the record stand beside them."""
    scores, titles = _by_model(similarity_informed(scores), models)
    return grid(scores, titles, "treatment", ALL, needs_signal=True)


def _by_model(scores: pd.DataFrame, models: Sequence[str]) -> tuple[pd.DataFrame, pd.Series]:
    """Return the scores of some models and of those that the record shows, the run's first; and the
    name of each, as recorded if the run has none of it. BoolQ's AUC is among them."""
    scores = pd.concat([scores, boolq_ranking(scores)], ignore_index=True)
    names = scores.model.str.removeprefix(RECORD_PREFIX)
    order = list(dict.fromkeys([*models, *PROFILES[DRAW_ONLY_PROFILE].shown_models]))
    scores = scores[names.isin(order)].sort_values(
        "model",
        kind="stable",
        key=lambda model: model.str.removeprefix(RECORD_PREFIX).map(order.index),
    )
    own = set(scores.model)
    titles = []
    for model in scores.model:
        name = model.removeprefix(RECORD_PREFIX)
        titles.append(label(name if name in own else model))
    return scores, pd.Series(titles, scores.index)


def figure_2(scores: pd.DataFrame) -> Figure:
    """Figure 2: MMLU by letter against the fraction dropped, a column a family."""
    return _by_family(scores, ["mmlu"])


def figure_2_arc_easy(scores: pd.DataFrame) -> Figure:
    """The same of ARC-Easy by content, which the paper does not have: small models answer it."""
    return _by_family(scores, ["arc_easy"])


def figure_3(scores: pd.DataFrame) -> Figure:
    """Figure 3: C4 loss over ln V (chance is 1), all models in both columns, the treatments."""
    scores = similarity_informed(scores)
    titles = scores.treatment.where(scores.block_size > 0)
    return grid(scores, titles, "model", ["c4"])


def figure_6(scores: pd.DataFrame) -> Figure:
    """Figure 6: BoolQ against the fraction dropped, a column a family; below, without threshold."""
    scores = pd.concat([scores, boolq_ranking(scores)], ignore_index=True)
    return _by_family(scores, ["boolq", "boolq_ranking"])


def figure_5(scores: pd.DataFrame, models: Sequence[str]) -> Figure:
    """Figure 5: simple (red) against similarity-informed pruning (blue), a column a model and
    treatment. models: as of `figure_1d`."""
    scores, names = _by_model(scores, models)
    titles = (names + "\n" + scores.treatment).where(scores.block_size > 0)
    return grid(scores, titles, "strategy", ALL, needs_signal=True)


def figure_7(scores: pd.DataFrame) -> Figure:
    """Figure 7: healed models by order and number of examples; a line a `variant`."""
    scores = scores.sort_values("ablation", ascending=False, kind="stable")
    titles = names_of_panels(scores.model)
    titles += "\n" + scores.ablation + " of examples"
    return grid(scores, titles, "variant", ["arc_easy", "arc_easy_test", "mmlu"])


def figure_beyond(scores: pd.DataFrame) -> Figure:
    """HellaSwag and GSM8K, unhealed; exact match only if a pruned model was asked for it."""
    tasks = ["hellaswag", "gsm8k_bpb"]
    pruned = scores[(scores.block_size > 0) & scores.value.notna()]
    if "gsm8k" in set(pruned.task):
        tasks.append("gsm8k")
    return _by_family(scores, tasks)


def similarity_informed(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores of whole models and of the blocks that are chosen by similarity, no others."""
    check_strategies(scores)
    return scores[scores.strategy.isin(["none", "similarity"])]


def check_strategies(scores: pd.DataFrame) -> None:
    """Raise ValueError for a strategy that is not known: no figure says what its points mean."""
    unknown = set(scores.strategy.dropna()) - {"none", *CHOOSE}
    if unknown:
        raise ValueError(
            f"No strategy {min(unknown)!r} is known to the figures of scores: give it a row in "
            "replication/profiles/strategies.py, or draw a figure of its own."
        )


def in_units_of_chance(scores: pd.DataFrame) -> pd.DataFrame:
    """The same scores with the C4 loss divided by ln V, as the paper shows it."""
    table = scores.copy()
    table["unit"] = table.task.map(UNITS).fillna("accuracy")
    loss = table.task == "c4"
    for column in {"value", "standard_error", "chance", "floor"} & set(table):
        table.loc[loss, column] = table.loc[loss, column] / scores.loc[loss, "chance"]
    return table


def _by_family(scores: pd.DataFrame, tasks: list[str]) -> Figure:
    """Similarity-informed pruning: a column a family of models, a line a model and treatment."""
    scores = similarity_informed(scores)
    return grid(scores, scores.model.map(family), "model", tasks, needs_signal=True)


def grid(
    scores: pd.DataFrame,
    titles: pd.Series,
    hue: str,
    rows: list[str] | None = None,
    row: str = "task",
    needs_signal: bool = False,
    note: str | None = None,
) -> Figure:
    """Draw a row of panels for each of `rows` (values of the column `row`; by default all).

    titles: of the column of panels of each score; an unpruned score without one is in all columns.
    hue: the column (model, strategy, treatment or variant) of which each value has a colour; a line
    is one of these and a treatment. needs_signal: a model is left out of a panel in which it has no
    signal. note: what is left out, and why, above the panels; by default of these scores.
    """
    rows = list(dict.fromkeys(scores[row])) if rows is None else rows
    in_rows = scores[row].isin(rows)
    table = in_units_of_chance(scores[in_rows]).reset_index(drop=True)
    titles = titles[in_rows].reset_index(drop=True)
    silent = _without_signal(table) if needs_signal else table.iloc[:0]
    drawn = table.drop(silent.index)
    panels = {}
    for name in rows:
        in_row = drawn[drawn[row] == name]
        panels |= _panels(in_row, titles[in_row.index], hue, TASKS.get(name, name))
    note = left_out(table, silent) if note is None else note

    def draw(axes: dict) -> None:
        for place, axis in axes.items():
            draw_panel(axis, panels[place], hue)
        names = {" ".join(place): axis for place, axis in axes.items()}
        level([axis for name, axis in names.items() if re.search("accuracy|AUC", name)])

    return draw_grid(panels, draw, table, note, sharey="row")


def draw_grid(
    panels: dict[tuple[str, str], pd.DataFrame],
    draw: Callable[[dict], None],
    table: pd.DataFrame,
    note: str,
    legend: str = "bars: ±1 s.e.",
    sharey: str | bool = False,
) -> Figure:
    """Return panels against the fraction dropped, or a sentence without any.

    panels: the scores of each, at (row, column). draw: draws into the axes, by place. table: what
    is shown. note: above the panels; there it is also said where all is recorded.
    """
    check_strategies(table)
    if not panels:
        return nothing_measured(table, note)
    with plt.rc_context(STYLE):
        figure, axes = panel_grid(list(panels), "fraction of layers dropped", sharey)
        draw(axes)
        note_above(figure, note, only_recorded(panels, note))
        return finished(figure, table, legend=legend)


def _without_signal(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each model and task whose whole model does not stand out of its floor.

    BoolQ's accuracy is drawn where its AUC stands out: its threshold hides what a model knows.
    """
    whole = table[table.block_size == 0]
    is_silent = np.array([no_signal(row) for row in whole.itertuples()], dtype=bool)
    is_ranked = (whole.task == "boolq_ranking") & whole.value.notna() & ~is_silent
    is_drawn = (whole.task == "boolq") & whole.model.isin(whole.model[is_ranked])
    silent = whole[is_silent & ~is_drawn]
    pairs = pd.MultiIndex.from_frame(silent[["model", "task"]])
    return table[pd.MultiIndex.from_frame(table[["model", "task"]]).isin(pairs)]


def left_out(table: pd.DataFrame, silent: pd.DataFrame | None = None) -> str:
    """Return a line for each task of what a run's figure leaves out, and why."""
    silent = table.iloc[:0] if silent is None else silent
    own = table[~table.model.map(is_recorded).astype(bool)]
    missing = _missing(own).drop(silent.index, errors="ignore")
    wholes = silent[(silent.block_size == 0) & silent.model.isin(own.model)]
    statuses = [unclear(gap(row), row.n) for row in wholes.itertuples()]
    missing = pd.concat([missing, wholes.assign(status=statuses)])
    tasks_of = {}
    for (task, status), rows in missing.groupby(["task", "status"], sort=False):
        models = ", ".join(rows.model.map(label).unique())
        name = TASK_SPECS[task].label if task in TASK_SPECS else TASKS[task]
        why = status.removeprefix("no answer: ")
        tasks_of.setdefault((models, why), []).append(name)
    lines = []
    for (models, why), names in tasks_of.items():
        line = f"{', '.join(names)} of {models}: {why}."
        lines.append(line if why == PARTLY else f"Not drawn: {line}")
    return "\n".join(lines)


def _panels(
    scores: pd.DataFrame, titles: pd.Series, hue: str, row_label: str
) -> dict[tuple, pd.DataFrame]:
    """Return the scores of each panel of a row, by label and title, if a pruned model is measured.

    Of what is unpruned, which may be in all columns, a panel has that of its models (or variants).
    """
    measured = scores[(scores.block_size > 0) & scores.value.notna()]
    shots = measured.shots.dropna().unique()
    if len(shots) == 1:
        row_label += f"\n({shots[0]:.0f}-shot)"
    same = "variant" if hue == "variant" else "model"
    panels = {}
    for title, pruned in measured.groupby(titles, sort=False):
        panel = scores[titles.isna() | (titles == title)]
        panels[row_label, title] = panel[panel[same].isin(pruned[same])]
    return panels


def _missing(own: pd.DataFrame) -> pd.DataFrame:
    """Return the scores that a run has not; PARTLY where some cuts of the task were measured."""
    cuts = own.value.where(own.block_size > 0)
    num_measured = cuts.groupby([own.model, own.task]).transform("count")
    is_partly = (own.status == NotMeasured.status) & (num_measured > 0)
    marked = own.assign(status=own.status.mask(is_partly, PARTLY))
    return marked[own.value.isna() & (own.status != "ok")]


def draw_panel(axis, panel: pd.DataFrame, hue: str) -> None:
    """Draw the lines of a panel over its baselines; level lines: the unpruned models.

    Recorded lines are pale behind those of the run (`style.opacity`).
    """
    unpruned = draw_baselines(axis, panel)
    for row in unpruned.itertuples() if hue != "variant" else ():
        shade = {"model": colour(row.model), "treatment": colour("unpruned")}.get(hue, "black")
        axis.axhline(row.value, color=shade, ls="--", lw=1, alpha=opacity(row.model, panel))
    level_line = "" if hue == "variant" else "--"
    shade = colour("unpruned") if hue == "treatment" else "black"
    axis.plot([], [], color=shade, label="unpruned", **MARKS | {"ls": level_line, "mfc": "white"})
    cuts = recorded_first(panel[panel.block_size > 0])
    cuts = cuts.assign(length=cuts.get("length", ""))
    lines = cuts.groupby([hue, "treatment", "model", "length"], sort=False)
    for (name, treatment, model, length), points in lines:
        if points.value.isna().all():
            continue
        if hue != "model":  # whose name says so
            name_pale(axis, model, panel)
        is_full = treatment == "healed"
        style = MARKS | {"ls": TREATMENTS[treatment], "alpha": opacity(model, panel)}
        style["ms"] = SIZES.get(length, MARKS["ms"])
        _curve(axis, unpruned, points, name, style | {"mfc": colour(name) if is_full else "white"})
        if hue != "treatment":
            style |= {"alpha": 1, "mfc": "black" if is_full else "white"}
            axis.plot([], [], color="black", label=treatment, **style)


def _curve(axis, unpruned: pd.DataFrame, points: pd.DataFrame, name: str, style: dict) -> None:
    """Draw one line, from the unpruned score of its model (and variant) on.

    It passes points that nobody measured, and has a gap where measuring failed. A single healed
    point is no line: it stands by itself.
    """
    same = [c for c in ("model", "variant") if c in points and unpruned[c].notna().all()]
    is_start = (unpruned[same] == points[same].iloc[0]).all(axis=1)
    start = unpruned[is_start].head(1)
    # a row that failed stays, without a value: matplotlib breaks the line there
    line = points[points.value.notna() | (points.get("status") != "not measured")]
    is_healed = set(points.treatment) == {"healed"}
    if not (is_healed and points.value.notna().sum() == 1):
        line = pd.concat([start, line])
    line = line.sort_values("fraction")
    check_one_point_each(line, "fraction", name)

    style = style | look(name)
    axis.errorbar(line.fraction, line.value, line.standard_error, elinewidth=0.8, **style)
    # the whole model's point is hollow, and in front of the line that begins there
    whole = {"color": colour(name), "mfc": "white", "ms": 3.5}
    whole |= {"alpha": style["alpha"], "zorder": 3}
    axis.plot(start.fraction, start.value, "o", **whole)

    key = look(name) | {"lw": 3, "label": SAME.get(name, label(name))}
    if name == points.model.iloc[0]:
        key["alpha"] = style["alpha"]
    axis.plot([], [], **key)

    if "commonest" not in line:
        return
    crossed = line[line.commonest > CONSTANT]
    if len(crossed):
        cross = {"ms": 4, "mew": 0.8, "label": f"one answer to over {CONSTANT:.0%}"}
        cross |= {"alpha": style["alpha"], "zorder": 4}
        axis.plot(crossed.fraction, crossed.value, "kx", **cross)
