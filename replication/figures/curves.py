"""Scores of pruned models: figures 1d, 2, 3 and 5 to 9, and those of notebooks 10 and 11.

A figure function takes tidy scores, draws, and saves figures/<profile>/<name>.png next to a .csv of
exactly what it shows. One colour a model, one line style a treatment; hollow: not healed.
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
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
    legend_below,
    level,
    save_figure,
)
from replication.profiles import Profile

TREATMENTS = {"unpruned": "--", "unhealed": ":", "healed": "-"}
SHADES = {  # of strategies, and of variants that more than one figure has
    "similarity": "tab:blue",
    "simple": "tab:red",
    "early exit": "darkgoldenrod",
    "letters": "tab:purple",
    "content": "tab:green",
    "open": "tab:blue",
    "closed": "tab:orange",
}
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
DRAFTS = ("figure_2", "figure_3", "figure_5", "figure_6")  # also drawn before there is healing
CONSTANT = 0.95  # a score is crossed out if one answer is given to more of the questions
X = {"fraction": "fraction of layers dropped", "seed": "seed of healing", "rank": "LoRA rank"}
DODGE = {"fraction": 0.004, "seed": 0.08, "rank": 0.03}  # between lines, so that all bars are seen
SAME = {"5 examples": "order 0"}  # one prompt with two names


def figure_1d(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 1d: one model, question answering and C4 loss; below, which layers are dropped."""
    scores = scores[(scores.model == profile.main_model) & (scores.strategy != "simple")]
    titles = scores.model.map(registry.label)
    return grid(scores, titles, "model", "figure_1d", profile, [*QA, "c4"], strip=True)


def figure_2(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 2: MMLU against the fraction dropped, a column a family; and ARC-Easy."""
    return _by_family(scores, ["mmlu", "arc_easy"], "figure_2", profile)


def figure_3(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 3: C4 loss over ln V (chance is 1), all models in both columns, the treatments."""
    scores = scores[scores.strategy != "simple"]
    return grid(scores, scores.treatment, "model", "figure_3", profile, ["c4"])


def figure_6(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 6: BoolQ against the fraction dropped, a column a family; below, without threshold."""
    ranking = boolq_ranking(scores)
    tasks = ["boolq", *set(ranking.task)]
    return _by_family(pd.concat([scores, ranking]), tasks, "figure_6", profile)


def figure_5(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 5: simple (red) against similarity-informed pruning (blue), a column a treatment."""
    scores = scores[scores.model == profile.main_model]
    titles = registry.label(profile.main_model) + ", " + scores.treatment
    return grid(scores, titles, "strategy", "figure_5", profile, [*QA, "c4"])


def figure_7(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 7: healed models by order and number of examples; a line a `variant`."""
    scores = scores.sort_values("ablation", ascending=False, kind="stable")
    titles = scores.model.map(registry.label) + ", " + scores.ablation
    measured = set(scores.task)
    tasks = [task for task in ("mmlu", "arc_easy_test", "arc_easy") if task in measured]
    return grid(scores, titles, "variant", "figure_7", profile, tasks)


def figure_8(scores: pd.DataFrame, profile: Profile, cause="seed", name="figure_8") -> Figure:
    """Figure 8: scores against the seed of healing, a column a task; dotted: the cut unhealed."""
    scores = scores.assign(panel=scores.model.map(registry.label) + "\n" + scores.ablation)
    titles = scores.task.map(TASKS).str.replace(" accuracy", "\naccuracy")  # n stands next to it
    return grid(scores, titles, "block_size", name, profile, of="panel", x=cause, sharey="none")


def figure_9(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 9: as figure 8, against the LoRA rank."""
    return figure_8(scores, profile, "rank", "figure_9")


def figure_beyond(scores: pd.DataFrame, profile: Profile) -> Figure:
    """HellaSwag and GSM8K, unhealed; exact match only if a pruned model was asked for it."""
    tasks = ["hellaswag", "gsm8k_bpb"]
    pruned = scores[(scores.block_size > 0) & scores.value.notna()]
    if "gsm8k" in set(pruned.task):
        tasks.append("gsm8k")
    return _by_family(scores, tasks, "figure_beyond", profile)


def in_units_of_chance(scores: pd.DataFrame) -> pd.DataFrame:
    """The same scores with the C4 loss divided by ln V, as the paper shows it."""
    table = scores.copy()
    if "measure" not in table:
        table["unit"] = table.task.map(UNITS).fillna("accuracy")
    loss = table.task == "c4"
    for column in {"value", "standard_error", "chance", "floor"} & set(table):
        table.loc[loss, column] = table.loc[loss, column] / scores.loc[loss, "chance"]
    return table


def _by_family(scores: pd.DataFrame, tasks: list[str], name: str, profile: Profile):
    """Similarity-informed pruning: a column a family of models, a line a model and treatment."""
    scores = scores[scores.strategy != "simple"]
    return grid(scores, scores.model.map(registry.family), "model", name, profile, tasks)


def grid(
    scores: pd.DataFrame,
    titles: pd.Series,
    by: str,
    name: str,
    profile: Profile,
    rows: list[str] | None = None,
    of: str = "task",
    x: str = "fraction",
    sharey: str = "row",
    strip: bool = False,
) -> Figure:
    """A row of panels for each of `rows` (values of the column `of`), those without a signal last.

    titles: of the column of panels of each score; what is unpruned may be in all. by: the column
    (model, strategy, variant or block_size) of which each value has a colour; a line is one of
    these and a treatment. strip: below, which layers are dropped.
    """
    if name in DRAFTS and "healed" not in set(scores.treatment):
        name += "_unhealed"  # never in the place of the finished picture
    columns = _columns(scores, titles)
    rows = _signal_first(scores, of, rows)
    keys = _keys(scores, by)
    heights = [1.9] * len(rows) + [1.2] * strip
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(heights),
            len(columns),
            figsize=(max(WIDTH, 1.9 * len(columns)), 1 + sum(heights)),
            sharex=x == "fraction",
            sharey=sharey,
            height_ratios=heights,
            squeeze=False,
        )
        for line, row in zip(axes, rows, strict=False):
            label = TASKS.get(row, row)
            for axis, (title, column) in zip(line, columns.items(), strict=True):
                panel = in_units_of_chance(column[column[of] == row])
                _panel(axis, panel, by, x, keys)
                axis.set_title(title if row == rows[0] else "", loc="left")
                axis.set_label(f"{label} {title}")
            shots = scores.shots[scores[of] == row].dropna().unique()
            prompt = f"\n({shots[0]:.0f}-shot)" if len(shots) == 1 else ""
            line[0].set_ylabel(label + prompt)
        accuracies = [axis for axis in axes.flat if "accuracy" in axis.get_label()]
        level(accuracies, shaded=x == "fraction")
        if strip:
            _strip(axes[-1, 0], scores)
        for axis in axes[-1]:
            axis.set_xlabel(X[x], fontsize=8 if len(columns) > 3 else 10)
        legend_below(figure, _handles(scores, by, keys), "bars: ±1 s.e.")
        drawn = in_units_of_chance(scores[scores[of].isin(rows)])
        return save_figure(figure, drawn, name, profile)


def _columns(scores: pd.DataFrame, titles: pd.Series) -> dict[str, pd.DataFrame]:
    """The scores of each column of panels, by its title; in all: what has no column of its own."""
    everywhere = (scores.block_size == 0) & titles.str.endswith(("unpruned", "none"))
    columns = scores[~everywhere].groupby(titles, sort=False)
    return {title: pd.concat([scores[everywhere], column]) for title, column in columns}


def _signal_first(scores: pd.DataFrame, of: str, rows: list[str] | None) -> list[str]:
    """The rows of panels (by default all), those where no unpruned model has a signal last."""
    silent = {}
    for row, unpruned in scores[scores.block_size == 0].groupby(of):
        silent[row] = all(map(no_signal, unpruned.itertuples()))
    return sorted(dict.fromkeys(scores[of]) if rows is None else rows, key=silent.get)


def _handles(scores: pd.DataFrame, by: str, keys: dict) -> dict[str, Line2D]:
    """The entries of the legend: a colour a value of `by`, a line a treatment."""
    handles = {text: Line2D([], [], color=shade, lw=3) for shade, text in keys.values()}
    drawn = set(scores.treatment)
    for treatment, style in TREATMENTS.items():
        if treatment in drawn:
            no_line = (by, treatment) == ("variant", "unpruned")
            handles[treatment] = Line2D(
                [],
                [],
                color="k",
                marker="o",
                ms=4,
                ls="" if no_line else style,
                mfc="k" if treatment == "healed" else "w",
            )
    return handles


def _keys(scores: pd.DataFrame, by: str) -> dict:
    """The colour and the text of each value of the column `by`."""
    values = [value for value in dict.fromkeys(scores[by]) if value not in ("none", 0)]
    if by == "model":
        return {model: (colour(model), registry.label(model)) for model in values}
    others = dict.fromkeys(SAME.get(value, value) for value in values if value not in SHADES)
    palette = sns.color_palette("viridis" if by == "block_size" else "colorblind", len(others))
    shades = SHADES | dict(zip(others, palette, strict=True))
    unit = " layers dropped" if by == "block_size" else ""
    return {value: (shades[SAME.get(value, value)], f"{value}{unit}") for value in values}


def _panel(axis, panel: pd.DataFrame, by: str, x: str, keys: dict) -> None:
    """The lines of a panel over its backdrop; level lines: what does not vary with `x`."""
    hidden = (panel.task == "c4") & (x != "fraction")  # guessing, far above all that varies
    unpruned = backdrop(axis, panel.assign(chance=panel.chance.mask(hidden)))
    flat = (panel.treatment == "unhealed") & (x != "fraction")
    for row in panel[flat | (panel.treatment == "unpruned") & (by != "variant")].itertuples():
        shade = keys.get(getattr(row, by), ("black",))[0]
        axis.axhline(row.value, color=shade, ls=TREATMENTS[row.treatment], lw=1)
    varied = panel[~flat & (panel.treatment != "unpruned")]
    lines = varied.groupby([by, "treatment"], sort=False)
    for place, ((value, _), points) in enumerate(lines):
        shift = DODGE[x] * (place - (len(lines) - 1) / 2)
        _curve(axis, unpruned, points, x, keys[value][0], shift)


def _curve(axis, unpruned: pd.DataFrame, points: pd.DataFrame, x: str, shade, shift: float) -> None:
    """One line; against the fraction, from the unpruned score of its model (and variant) on.
    It passes points that nobody measured, and has a gap where measuring failed."""
    first = points.iloc[0]
    same = [c for c in ("model", "variant") if c in points and unpruned[c].notna().all()]
    start = unpruned[(unpruned[same] == first[same]).all(axis=1)].head(int(x == "fraction"))
    there = points.value.notna() | (points.get("status") != "not measured")
    line = pd.concat([start, points[there]]).sort_values(x)
    where = line[x] * 2**shift if x == "rank" else line[x] + shift
    axis.errorbar(
        where,
        line.value,
        line.standard_error,
        elinewidth=0.8,
        marker="o",
        ms=3.5,
        color=shade,
        mfc=shade if first.treatment == "healed" else "white",
        ls="" if x == "seed" else TREATMENTS[first.treatment],
        lw=1.3,
    )
    whole = where[line.block_size == 0]
    axis.plot(whole, start.value, "o", ms=3.5, color=shade, mfc="white", zorder=3)
    if "commonest" in line and (constant := line.commonest > CONSTANT).any():
        label = f"one answer to over {CONSTANT:.0%}"
        axis.plot(where[constant], line.value[constant], "kx", ms=6, zorder=4, label=label)
    if x == "rank":
        axis.set_xscale("log", base=2)
        axis.minorticks_off()
    if x != "fraction":
        axis.set_xticks(line[x], [f"{value:.0f}" for value in line[x]])
        axis.margins(x=0.2)


def _strip(axis, scores: pd.DataFrame) -> None:
    """Which layers are dropped: those from l*(n) on, at each depth of the curves above."""
    cuts = scores[scores.block_size > 0].drop_duplicates("block_size")
    layers = round((cuts.block_size / cuts.fraction).iloc[0])
    axis.bar(cuts.fraction, cuts.block_size, 0.6 / layers, cuts.block_start, color="lightgrey")
    axis.plot(cuts.fraction, cuts.block_start, "ks", ms=2.5, label="$l^*(n)$")
    axis.set(ylabel="layers\ndropped", ylim=(0, layers))
