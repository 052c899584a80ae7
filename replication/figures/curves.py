"""Scores of pruned models: figures 1d, 2, 3 and 5 to 9, and those of notebook 10.

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
STRATEGIES = {"similarity": "tab:blue", "simple": "tab:red", "early exit": "darkgoldenrod"}
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
WAYS = dict(letters="tab:purple", content="tab:green", open="tab:blue", closed="tab:orange")
QA = ["mmlu", "boolq", "arc_easy"]
DRAFTS = ("figure_2", "figure_3", "figure_5", "figure_6")  # also drawn before there is healing
CONSTANT = 0.95  # a score is crossed out if one answer is given to more of the questions
X = {"fraction": "fraction of layers dropped", "seed": "seed of healing", "rank": "LoRA rank"}
DODGE = {"fraction": 0.004, "seed": 0.08, "rank": 0.03}  # between lines, so that all bars are seen
SAME = {"5 examples": "order 0"}  # one prompt with two names


def figure_1d(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 1d: one model, question answering and C4 loss; below, which layers are dropped."""
    shown = scores[(scores.model == profile.main_model) & (scores.strategy != "simple")]
    columns, tasks = shown.model.map(registry.label), [*QA, "c4"]
    return grid(shown, columns, "model", "figure_1d", profile, tasks, strip=True)


def figure_2(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 2: MMLU against the fraction dropped, a column a family; and ARC-Easy."""
    return _by_family(scores, ["mmlu", "arc_easy"], "figure_2", profile)


def figure_3(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 3: C4 loss over ln V (chance is 1), all models in both columns, the treatments."""
    shown = scores[scores.strategy != "simple"]
    return grid(shown, shown.treatment, "model", "figure_3", profile, ["c4"])


def figure_6(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 6: BoolQ against the fraction dropped, a column a family; below, without threshold."""
    below = boolq_ranking(scores)
    tasks = ["boolq", *set(below.task)]
    return _by_family(pd.concat([scores, below]), tasks, "figure_6", profile)


def figure_5(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 5: simple (red) against similarity-informed pruning (blue), a column a treatment."""
    shown = scores[scores.model == profile.main_model]
    titles, tasks = registry.label(profile.main_model) + ", " + shown.treatment, [*QA, "c4"]
    return grid(shown, titles, "strategy", "figure_5", profile, tasks)


def figure_7(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 7: healed models by order and number of examples; a line a `variant`."""
    shown = scores.sort_values("ablation", ascending=False, kind="stable")
    columns = shown.model.map(registry.label) + ", " + shown.ablation
    tasks = [t for t in ("mmlu", "arc_easy_test", "arc_easy") if t in set(shown.task)]
    return grid(shown, columns, "variant", "figure_7", profile, tasks)


def figure_8(scores: pd.DataFrame, profile: Profile, cause="seed", name="figure_8") -> Figure:
    """Figure 8: scores against the seed of healing, a column a task; dotted: the cut unhealed."""
    shown = scores.assign(panel=scores.model.map(registry.label) + "\n" + scores.ablation)
    titles = shown.task.map(TASKS).str.replace(" accuracy", "\naccuracy")  # n stands next to it
    return grid(shown, titles, "block_size", name, profile, of="panel", x=cause, sharey="none")


def figure_9(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 9: as figure 8, against the LoRA rank."""
    return figure_8(scores, profile, "rank", "figure_9")


def figure_beyond(scores: pd.DataFrame, profile: Profile) -> Figure:
    """HellaSwag and GSM8K, unhealed; exact match only if a pruned model was asked for it."""
    asked = "gsm8k" in set(scores[(scores.block_size > 0) & scores.value.notna()].task)
    tasks = ["hellaswag", "gsm8k_bpb"] + ["gsm8k"] * asked
    return _by_family(scores, tasks, "figure_beyond", profile)


def in_units_of_chance(scores: pd.DataFrame) -> pd.DataFrame:
    """The same scores with the C4 loss divided by ln V, as the paper shows it."""
    shown, loss = scores.copy(), scores.task == "c4"
    if "measure" not in shown:
        bits = dict.fromkeys(("gsm8k_bpb", "squad", "squad_closed"), "bits per byte")
        units = {"c4": "nats / ln V", "boolq_ranking": "AUC"} | bits
        shown["unit"] = shown.task.map(units).fillna("accuracy")
    for column in {"value", "standard_error", "chance", "floor"} & set(shown):
        shown.loc[loss, column] = shown.loc[loss, column] / scores.loc[loss, "chance"]
    return shown


def _by_family(scores: pd.DataFrame, tasks: list[str], name: str, profile: Profile):
    """Similarity-informed pruning: a column a family of models, a line a model and treatment."""
    shown = scores[scores.strategy != "simple"]
    return grid(shown, shown.model.map(registry.family), "model", name, profile, tasks)


def grid(
    shown, titles, by, name, profile, rows=None, of="task", x="fraction", sharey="row", strip=False
) -> Figure:
    """A row of panels for each of `rows` (values of the column `of`), those without a signal last.

    titles: of the column of panels of each row of `shown`; what is unpruned may be in all. by: the
    column (model, strategy, variant or block_size) of which each value has a colour; a line is one
    of these and a treatment. strip: below, which layers are dropped.
    """
    if name in DRAFTS and "healed" not in set(shown.treatment):
        name += "_unhealed"  # never in the place of the finished picture
    everywhere = (shown.block_size == 0) & titles.str.endswith(("unpruned", "none"))
    columns = shown[~everywhere].groupby(titles, sort=False)
    columns = {title: pd.concat([shown[everywhere], scores]) for title, scores in columns}
    whole = shown[shown.block_size == 0]
    silent = {row: all(map(no_signal, s.itertuples())) for row, s in whole.groupby(of)}
    rows = sorted(dict.fromkeys(shown[of]) if rows is None else rows, key=silent.get)
    keys, heights = _keys(shown, by), [1.9] * len(rows) + [1.2] * strip
    size = (max(WIDTH, 1.9 * len(columns)), 1 + sum(heights))
    how = {"sharex": x == "fraction", "sharey": sharey, "height_ratios": heights, "squeeze": False}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(len(heights), len(columns), figsize=size, **how)
        for line, row in zip(axes, rows, strict=False):
            for axis, (title, scores) in zip(line, columns.items(), strict=True):
                panel = in_units_of_chance(scores[scores[of] == row])
                _panel(axis, panel, by, x, keys)
                axis.set_title(title if row == rows[0] else "", loc="left")
                axis.set_label(f"{TASKS.get(row, row)} {title}")
            shots = shown[shown[of] == row].shots.dropna().unique()
            told = f"\n({shots[0]:.0f}-shot)" if len(shots) == 1 else ""
            line[0].set_ylabel(TASKS.get(row, row) + told)
        level([a for a in axes.flat if "accuracy" in a.get_label()], x == "fraction")
        if strip:
            _strip(axes[-1, 0], shown)
        for axis in axes[-1]:
            axis.set_xlabel(X[x], fontsize=8 if len(columns) > 3 else 10)
        found = {text: Line2D([], [], color=shade, lw=3) for shade, text in keys.values()}
        for treatment in [t for t in TREATMENTS if t in set(shown.treatment)]:
            ls = "" if (by, treatment) == ("variant", "unpruned") else TREATMENTS[treatment]
            look = {"ls": ls, "mfc": "k" if treatment == "healed" else "w"}
            found[treatment] = Line2D([], [], color="k", marker="o", ms=4, **look)
        legend_below(figure, found, "bars: ±1 s.e.")
        shown = in_units_of_chance(shown[shown[of].isin(rows)])
        return save_figure(figure, shown, name, profile)


def _keys(shown: pd.DataFrame, by: str) -> dict:
    """The colour and the text of each value of the column `by`."""
    values = [value for value in dict.fromkeys(shown[by]) if value not in ("none", 0)]
    if by == "model":
        return {model: (colour(model), registry.label(model)) for model in values}
    shades = STRATEGIES | WAYS
    others = dict.fromkeys(SAME.get(v, v) for v in values if v not in shades)
    palette, told = ("viridis", " layers dropped") if by == "block_size" else ("colorblind", "")
    shades |= zip(others, sns.color_palette(palette, len(others)), strict=True)
    return {value: (shades[SAME.get(value, value)], f"{value}{told}") for value in values}


def _panel(axis, panel: pd.DataFrame, by: str, x: str, keys: dict) -> None:
    """The lines of a panel over its backdrop; level lines: what does not vary with `x`."""
    hidden = (panel.task == "c4") & (x != "fraction")  # guessing, far above all that varies
    unpruned = backdrop(axis, panel.assign(chance=panel.chance.mask(hidden)))
    flat = (panel.treatment == "unhealed") & (x != "fraction")
    for row in panel[flat | (panel.treatment == "unpruned") & (by != "variant")].itertuples():
        shade = keys.get(getattr(row, by), ("black",))[0]
        axis.axhline(row.value, color=shade, ls=TREATMENTS[row.treatment], lw=1)
    lines = panel[~flat & (panel.treatment != "unpruned")].groupby([by, "treatment"], sort=False)
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
    hollow = {"marker": "o", "ms": 3.5, "color": shade, "mfc": "white"}
    style = hollow | ({"mfc": shade} if first.treatment == "healed" else {})
    style |= {"ls": "" if x == "seed" else TREATMENTS[first.treatment], "lw": 1.3}
    where = line[x] * 2**shift if x == "rank" else line[x] + shift
    axis.errorbar(where, line.value, line.standard_error, elinewidth=0.8, **style)
    axis.plot(where[line.block_size == 0], start.value, ls="", zorder=3, **hollow)
    if "commonest" in line and (constant := line.commonest > CONSTANT).any():
        told = f"one answer to over {CONSTANT:.0%}"
        axis.plot(where[constant], line.value[constant], "kx", ms=6, zorder=4, label=told)
    if x == "rank":
        axis.set_xscale("log", base=2)
        axis.minorticks_off()
    if x != "fraction":
        axis.set_xticks(line[x], [f"{value:.0f}" for value in line[x]])
        axis.margins(x=0.2)


def _strip(axis, shown: pd.DataFrame) -> None:
    """Which layers go: those from l*(n) on, at each depth of the curves above."""
    cuts = shown[shown.block_size > 0].drop_duplicates("block_size")
    layers = round((cuts.block_size / cuts.fraction).iloc[0])
    axis.bar(cuts.fraction, cuts.block_size, 0.6 / layers, cuts.block_start, color="lightgrey")
    axis.plot(cuts.fraction, cuts.block_start, "ks", ms=2.5, label="$l^*(n)$")
    axis.set(ylabel="layers\ndropped", ylim=(0, layers))
