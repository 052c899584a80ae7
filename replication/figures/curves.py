"""Scores of pruned models: figures 1d, 2, 3 and 5 to 7, and those of notebooks 10 and 11.

A figure function takes tidy scores and returns a figure, with the table of exactly what it shows.
One colour a model, one line style a treatment; hollow: not healed. A panel in
which no pruned model is measured is not drawn.
"""

import re
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lib.models import registry
from replication.analysis.answers import boolq_ranking
from replication.analysis.curves import no_signal
from replication.figures.style import (
    STYLE,
    WIDTH,
    backdrop,
    colour,
    finished,
    legend_below,
    level,
    nothing_measured,
)

TREATMENTS = {"unpruned": "--", "unhealed": ":", "healed": "-"}
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
DODGE = 0.004  # of the fraction, between lines, so that all bars are seen
MARKER = 3.5  # points
SAME = {"order 0": "5 examples"}  # one prompt with two names


def figure_1d(scores: pd.DataFrame, main: str = "") -> Figure:
    """Figure 1d: one model, question answering and C4 loss; below, which layers are dropped."""
    name = most_healed(scores, main)
    scores = scores[(scores.model == name) & (scores.strategy != "simple")]
    titles = scores.model.map(registry.label)
    return grid(scores, titles, "model", [*QA, "c4"], strip=True)


def most_healed(scores: pd.DataFrame, main: str = "") -> str:
    """Return the model that was healed after most cuts, of both strategies if one was.

    main: of equals this one; by default the first.
    """
    healed = scores[(scores.treatment == "healed") & scores.value.notna()]
    counts = healed.groupby("model").strategy.agg(["nunique", "size"])
    most = max(map(tuple, counts.to_numpy()), default=None)
    best = [model for model, *count in counts.itertuples() if tuple(count) == most]
    return main if main and (not best or main in best) else [*best, scores.model.iloc[0]][0]


def figure_2(scores: pd.DataFrame) -> Figure:
    """Figure 2: MMLU against the fraction dropped, a column a family; and ARC-Easy."""
    return _by_family(scores, ["mmlu", "arc_easy"])


def figure_3(scores: pd.DataFrame) -> Figure:
    """Figure 3: C4 loss over ln V (chance is 1), all models in both columns, the treatments."""
    scores = scores[scores.strategy != "simple"]
    return grid(scores, scores.treatment, "model", ["c4"])


def figure_6(scores: pd.DataFrame) -> Figure:
    """Figure 6: BoolQ against the fraction dropped, a column a family; above, without threshold."""
    ranking = boolq_ranking(scores)
    tasks = [*set(ranking.task), "boolq"]
    return _by_family(pd.concat([scores, ranking]), tasks)


def figure_5(scores: pd.DataFrame, main: str = "") -> Figure:
    """Figure 5: simple (red) against similarity-informed pruning (blue), a column a treatment."""
    name = most_healed(scores, main)
    scores = scores[scores.model == name]
    titles = f"{registry.label(name)}, " + scores.treatment
    return grid(scores, titles, "strategy", [*QA, "c4"])


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


def _by_family(scores: pd.DataFrame, tasks: list[str]) -> Figure:
    """Similarity-informed pruning: a column a family of models, a line a model and treatment."""
    scores = scores[scores.strategy != "simple"]
    return grid(scores, scores.model.map(registry.family), "model", tasks)


def grid(
    scores: pd.DataFrame,
    titles: pd.Series,
    by: str,
    rows: list[str] | None = None,
    of: str = "task",
    sharey: str = "row",
    strip: bool = False,
    find: Callable[[dict], None] | None = None,
) -> Figure:
    """A row of panels for each of `rows` (values of the column `of`), those without a signal last.

    titles: of the column of panels of each score; what is unpruned may be in all. by: the column
    (model, strategy or variant) of which each value has a colour; a line is one of these and a
    treatment. strip: below, which layers are dropped. find: writes what the figure shows into its
    axes, which it is given by (row, title).
    """
    rows = _signal_first(scores, of, rows)
    in_rows = scores[of].isin(rows).to_numpy()
    table = in_units_of_chance(scores[in_rows]).reset_index(drop=True)
    titles = titles[in_rows].reset_index(drop=True)
    panels = _panels(table, titles, by, of)
    rows = [row for row in rows if any(row == place[0] for place in panels)]
    columns = [title for title in dict.fromkeys(titles) if any(title in p[1:] for p in panels)]
    if not panels:
        return nothing_measured(table)
    drawn = pd.concat(panels.values())
    keys = _keys(drawn, by)
    with plt.rc_context(STYLE):
        figure, places, flat = _axes(panels, rows, columns, sharey, strip)
        for (row, title), axis in places.items():
            label = TASKS.get(row, row)
            _panel(axis, panels[row, title], by, keys)
            axis.set_label(f"{label} {title}")
            above = [place for place in places if place[1] == title]
            beside = [place for place in places if place[0] == row]
            if flat or (row, title) == above[0]:
                axis.set_title(title, loc="left")
            if (row, title) == beside[0]:
                axis.set_ylabel(label + _prompt(drawn[drawn[of] == row]))
                axis.tick_params(labelleft=True)
            if not strip and (flat or (row, title) == above[-1]):
                size = 8 if max(len(columns), len(places) * flat) > 2 else 10
                axis.set_xlabel("fraction of layers dropped", fontsize=size)
                axis.tick_params(labelbottom=True)
        accuracies = [a for a in places.values() if re.search("accuracy|AUC", a.get_label())]
        level(accuracies, shaded=True)
        if strip:
            _strip(figure.axes[-1], drawn)
        if find:
            find(places)
        bars = "bars: ±1 s.e." if any(map(_bars_are_seen, places.values())) else ""
        legend_below(figure, _handles(drawn, by, keys), bars)
        return finished(figure, table)


def _axes(panels: dict, rows: list[str], columns: list[str], sharey: str, strip: bool):
    """A figure, its axes by (row, title), and whether they stand in one row instead of in rows and
    columns: where that leaves no holes between three of them at most."""
    flat = len(panels) < len(rows) * len(columns) and len(panels) <= 3 and not strip
    table = [[(row, title) for title in columns] for row in rows]
    if flat:
        table = [[place for line in table for place in line if place in panels]]
    heights = [1.9 + 0.5 * flat] * len(table) + [1.2] * strip
    figure, axes = plt.subplots(
        len(heights),
        len(table[0]),
        figsize=(max(WIDTH, 1.9 * len(table[0])), 1 + sum(heights)),
        sharex=True,
        sharey=False if flat else sharey,
        height_ratios=heights,
        squeeze=False,
    )
    places = {}
    for of_line, line in zip(axes, table, strict=False):
        for axis, place in zip(of_line, line, strict=True):
            if place in panels:
                places[place] = axis
            else:
                axis.remove()
    return figure, places, flat


def _panels(scores: pd.DataFrame, titles: pd.Series, by: str, of: str) -> dict[tuple, pd.DataFrame]:
    """The scores of each panel in which a pruned model is measured, by row and title.

    Of what is unpruned, which may be in all columns, a panel has that of its models (or variants).
    """
    everywhere = (scores.block_size == 0) & titles.str.endswith(("unpruned", "none"))
    panels = {}
    for place, panel in scores[~everywhere].groupby([of, titles[~everywhere]], sort=False):
        pruned = panel[(panel.block_size > 0) & panel.value.notna()]
        if len(pruned):
            panel = pd.concat([scores[everywhere & (scores[of] == place[0])], panel])
            same = "variant" if by == "variant" else "model"
            panels[place] = panel[panel[same].isin(pruned[same])]
    return panels


def _prompt(scores: pd.DataFrame) -> str:
    """How many examples stand before the questions of a row, if it is one number."""
    shots = scores.shots.dropna().unique()
    return f"\n({shots[0]:.0f}-shot)" if len(shots) == 1 else ""


def _bars_are_seen(axis) -> bool:
    """Whether some error bar is twice as long as the marker that it goes through."""
    low, high = axis.get_ylim()
    points = 72 * axis.figure.get_figheight() * axis.get_position().height / (high - low)
    bars = [part for container in axis.containers for part in container.lines[2]]
    ends = [np.ptp(segment[:, 1]) for bar in bars for segment in bar.get_segments() if len(segment)]
    return np.nanmax([0, *ends]) * points > 2 * MARKER


def _signal_first(scores: pd.DataFrame, of: str, rows: list[str] | None) -> list[str]:
    """The rows of panels (by default all), those where no unpruned model has a signal last."""
    silent = {}
    for row, unpruned in scores[scores.block_size == 0].groupby(of):
        silent[row] = all(map(no_signal, unpruned.itertuples()))
    rows = dict.fromkeys(scores[of]) if rows is None else rows
    return sorted((row for row in rows if row in silent), key=silent.get)


def _handles(drawn: pd.DataFrame, by: str, keys: dict) -> dict[str, Line2D]:
    """The entries of the legend: a colour a value of `by`, a line a treatment."""
    handles = {text: Line2D([], [], color=shade, lw=3) for shade, text in keys.values()}
    measured = set(drawn.treatment[drawn.value.notna()])
    for treatment, style in TREATMENTS.items():
        if treatment in measured:
            unpruned = treatment == "unpruned"
            handles[treatment] = Line2D(
                [],
                [],
                color="k",
                marker="o" if by == "variant" or not unpruned else "",
                ms=4,
                ls="" if by == "variant" and unpruned else style,
                mfc="k" if treatment == "healed" else "w",
            )
    return handles


def _keys(drawn: pd.DataFrame, by: str) -> dict:
    """The colour and the text of each value of the column `by` that a line has."""
    pruned = drawn[(drawn.block_size > 0) & drawn.value.notna()]
    values = dict.fromkeys(pruned[by])
    if by == "model":
        return {model: (colour(model), registry.label(model)) for model in values}
    keys = {}
    for value in values:
        same = SAME.get(value, value)
        names = [v for v in values if SAME.get(v, v) == same]
        keys[value] = colour(same), " = ".join(sorted(names))
    return keys


def _panel(axis, panel: pd.DataFrame, by: str, keys: dict) -> None:
    """The lines of a panel over its backdrop; level lines: the unpruned models."""
    unpruned = backdrop(axis, panel)
    for row in unpruned.itertuples() if by != "variant" else ():
        shade = keys.get(getattr(row, by), ("black",))[0]
        axis.axhline(row.value, color=shade, ls=TREATMENTS["unpruned"], lw=1)
    lines = panel[panel.treatment != "unpruned"].groupby([by, "treatment"], sort=False)
    lines = {line: points for line, points in lines if points.value.notna().any()}
    for place, ((value, _), points) in enumerate(lines.items()):
        shift = DODGE * (place - (len(lines) - 1) / 2)
        _curve(axis, unpruned, points, keys[value][0], shift)


def _curve(axis, unpruned: pd.DataFrame, points: pd.DataFrame, shade: str, shift: float) -> None:
    """One line, from the unpruned score of its model (and variant) on.

    It passes points that nobody measured, and has a gap where measuring failed.
    """
    first = points.iloc[0]
    same = [c for c in ("model", "variant") if c in points and unpruned[c].notna().all()]
    start = unpruned[(unpruned[same] == first[same]).all(axis=1)].head(1)
    there = points.value.notna() | (points.get("status") != "not measured")
    line = pd.concat([start, points[there]]).sort_values("fraction")
    where = line.fraction + shift
    axis.errorbar(
        where,
        line.value,
        line.standard_error,
        elinewidth=0.8,
        marker="o",
        ms=MARKER,
        color=shade,
        mfc=shade if first.treatment == "healed" else "white",
        ls=TREATMENTS[first.treatment],
        lw=1.3,
    )
    whole = where[line.block_size == 0]
    axis.plot(whole, start.value, "o", ms=MARKER, color=shade, mfc="white", zorder=3)
    if "commonest" in line and (constant := line.commonest > CONSTANT).any():
        label = f"one answer to over {CONSTANT:.0%}"
        axis.plot(where[constant], line.value[constant], "kx", ms=6, zorder=4, label=label)


def _strip(axis, drawn: pd.DataFrame) -> None:
    """Which layers are dropped: those from l*(n) on, at each depth of the curves above."""
    cuts = drawn[drawn.block_size > 0].drop_duplicates("block_size")
    layers = round((cuts.block_size / cuts.fraction).iloc[0])
    axis.bar(cuts.fraction, cuts.block_size, 0.6 / layers, cuts.block_start, color="lightgrey")
    axis.plot(cuts.fraction, cuts.block_start, "ks", ms=2.5, label="$l^*(n)$")
    axis.set(xlabel="fraction of layers dropped", ylabel="layers\ndropped", ylim=(0, layers))
