"""Scores of pruned models: figures 1d, 2, 3 and 5 to 9, and those of notebook 10.

A figure function takes tidy scores, draws, and saves figures/<profile>/<name>.png beside a .csv of
exactly what it shows. One colour a model, one line style a treatment; hollow: not healed.
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from lib.figures.panels import TASKS, backdrop, in_units_of_chance, label, level, silent
from lib.figures.style import STYLE, WIDTH, colour, legend_below, save_figure
from lib.models import registry
from lib.profiles import Profile

TREATMENTS = {"unpruned": "--", "unhealed": ":", "healed": "-"}
STRATEGIES = {"similarity": "tab:blue", "simple": "tab:red"}
WAYS = dict(letters="tab:purple", content="tab:green", open="tab:blue", closed="tab:orange")
QA = ["mmlu", "boolq", "arc_easy"]
CONSTANT = 0.95  # a score is crossed out if one answer is given to more of the questions
X = {"fraction": "fraction of layers dropped", "seed": "seed of healing", "rank": "LoRA rank"}
DODGE = {"fraction": 0.005, "seed": 0.08, "rank": 0.03}  # between lines, so that all bars are seen
SAME = {"5 examples": "order 0"}  # one prompt with two names


def figure_1d(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 1d: one model, question answering and C4 loss; below, which layers are dropped."""
    shown = scores[(scores.model == profile.main_model) & (scores.strategy != "simple")]
    columns, tasks = shown.model.map(registry.label), [*QA, "c4"]
    return _grid(shown, columns, "model", "figure_1d", profile, tasks, strip=True)


def figure_2(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 2: MMLU against the fraction dropped, a column a family; and ARC-Easy."""
    return _by_family(scores, ["mmlu", "arc_easy"], _finished("figure_2", scores), profile)


def figure_3(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 3: C4 loss over ln V (chance is 1), all models in both columns, the treatments."""
    shown = scores[scores.strategy != "simple"]
    name = _finished("figure_3", scores)
    return _grid(shown, _by_treatment(shown), "model", name, profile, ["c4"])


def figure_6(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 6: BoolQ against the fraction dropped, a column a family."""
    return _by_family(scores, ["boolq"], _finished("figure_6", scores), profile)


def figure_5(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 5: simple (red) against similarity-informed pruning (blue), a column a treatment."""
    shown = scores[scores.model == profile.main_model]
    columns = _by_treatment(shown, f"{registry.label(profile.main_model)}, ")
    return _grid(shown, columns, "strategy", _finished("figure_5", scores), profile, [*QA, "c4"])


def figure_7(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 7: prompts of healed models, a line a `variant`, each from its own unpruned score on;
    a column a model and `ablation`: order, then number."""
    shown = scores.sort_values("ablation", ascending=False, kind="stable")
    columns = shown.model.map(registry.label) + ", " + shown.ablation
    return _grid(shown, columns, "variant", "figure_7", profile, ["mmlu", "arc_easy"])


def figure_8(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 8: scores against the seed of healing, a row a model, a column a task."""
    return _against("seed", scores, "figure_8", profile)


def figure_9(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 9: scores against the LoRA rank, a row a model and strategy, a column a task."""
    return _against("rank", scores, "figure_9", profile)


def figure_beyond(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Question sets of the paper's second version: HellaSwag and GSM8K, unhealed.

    Exact match has a row of panels only if a pruned model was asked to solve problems.
    """
    asked = "gsm8k" in set(scores[(scores.block_size > 0) & scores.value.notna()].task)
    tasks = ["hellaswag", "gsm8k_bpb"] + ["gsm8k"] * asked
    return _by_family(scores, tasks, "figure_beyond", profile)


def figure_measures(measured: pd.DataFrame, profile: Profile) -> Figure:
    """The same answers by four measures (analysis.measures), a row a model and task."""
    told = measured.task.map(TASKS).str.removesuffix(" accuracy")
    shown = measured.assign(panel=measured.model.map(registry.label) + "\n" + told)
    columns, how = measured.measure.str.removeprefix("share of the "), {"sharey": "none"}
    return _grid(shown, columns, "strategy", "figure_measures", profile, of="panel", **how)


def figure_letters(scores: pd.DataFrame, profile: Profile) -> Figure:
    """The same questions by letter and by content, a row a model and question set."""
    told = scores.model.map(registry.label) + "\n" + scores.questions.map(TASKS)
    shown = scores.assign(variant=scores.form, panel=told)
    columns = {way: shown[shown.strategy.isin(["none", way])] for way in STRATEGIES}
    return _grid(shown, columns, "variant", "figure_letters", profile, of="panel")


def figure_books(scores: pd.DataFrame, profile: Profile) -> Figure:
    """The same questions with and without the passage that answers them, a column a model."""
    shown = scores.assign(variant=scores.book)
    columns = shown.model.map(registry.label)
    return _grid(shown, columns, "variant", "figure_books", profile, of="questions")


def _finished(name: str, scores: pd.DataFrame) -> str:
    """The name of a picture; one without healed lines never takes the place of one with them."""
    return name if "healed" in set(scores.treatment) else f"{name}_unhealed"


def _by_family(scores: pd.DataFrame, tasks: list[str], name: str, profile: Profile):
    """Similarity-informed pruning: a column a family of models, a line a model and treatment."""
    shown = scores[scores.strategy != "simple"]
    return _grid(shown, shown.model.map(registry.family), "model", name, profile, tasks)


def _by_treatment(scores: pd.DataFrame, before: str = "") -> dict[str, pd.DataFrame]:
    """A column a treatment, with the unpruned scores in each."""
    there = [t for t in ("unhealed", "healed") if t in set(scores.treatment)]
    return {before + t: scores[scores.treatment.isin(["unpruned", t])] for t in there}


def _against(cause: str, scores: pd.DataFrame, name: str, profile: Profile) -> Figure:
    """Healed scores against a cause, a colour a depth, with the same cuts unhealed as levels."""
    told = scores.model.map(registry.label) + ", " + scores.ablation
    shown = scores.assign(panel=told)
    how = {"of": "panel", "x": cause, "sharey": "none"}
    return _grid(shown, shown.task.map(TASKS), "block_size", name, profile, **how)


def _grid(
    shown, columns, by, name, profile, rows=None, of="task", x="fraction", sharey="row", strip=False
) -> Figure:
    """A row of panels for each of `rows` (values of the column `of`), those without a signal last.

    columns: the scores of a column of panels under its title, or the titles of all rows of
    `shown`. by: the column (model, strategy, variant or block_size) of which each value has a
    colour; a line is one of these and a treatment. strip: below, which layers are dropped.
    """
    if isinstance(columns, pd.Series):
        columns = dict(list(shown.groupby(columns, sort=False)))
    rows = list(dict.fromkeys(shown[of])) if rows is None else rows
    rows = sorted(rows, key=lambda row: silent(shown[shown[of] == row]))
    keys, heights = _keys(shown, by), [1.9] * len(rows) + [1.2] * strip
    size = (max(WIDTH, 2.2 * len(columns)), 1 + sum(heights))
    how = {"sharex": True, "sharey": sharey, "height_ratios": heights, "squeeze": False}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(len(heights), len(columns), figsize=size, **how)
        for line, row in zip(axes, rows, strict=False):
            for axis, (title, scores) in zip(line, columns.items(), strict=True):
                panel = in_units_of_chance(scores[scores[of] == row])
                _panel(axis, panel, by, x, keys)
                axis.set_title(title if row == rows[0] else "", loc="left")
                axis.set_label(f"{TASKS.get(row, row)} {title}")
            line[0].set_ylabel(label(row, shown[shown[of] == row]))
        level([a for a in axes.flat if "accuracy" in a.get_label()], x == "fraction")
        if strip:
            _strip(axes[-1, 0], shown)
        for axis in axes[-1]:
            axis.set_xlabel(X[x])
        legend_below(figure, _proxies(shown, by, keys), "bars: ±1 s.e.")
        shown = in_units_of_chance(shown[shown[of].isin(rows)])
        return save_figure(figure, shown, name, profile)


def _keys(shown: pd.DataFrame, by: str) -> dict:
    """The colour and the text of each value of the column `by`."""
    values = [value for value in dict.fromkeys(shown[by]) if value not in ("none", 0)]
    if by == "model":
        return {model: (colour(model), registry.label(model)) for model in values}
    if by == "block_size":
        shades = zip(sorted(values), sns.color_palette("viridis", len(values)), strict=True)
        return {size: (shade, f"{size} layers dropped") for size, shade in shades}
    shades = STRATEGIES | WAYS
    others = dict.fromkeys(SAME.get(v, v) for v in values if v not in shades)
    shades |= zip(others, sns.color_palette("colorblind"), strict=False)
    return {value: (shades[SAME.get(value, value)], value) for value in values}


def _proxies(shown: pd.DataFrame, by: str, keys: dict) -> dict:
    """What the legend says of colours, and of line styles and markers."""
    found = {text: Line2D([], [], color=shade, lw=3) for shade, text in keys.values()}
    for treatment in [t for t in TREATMENTS if t in set(shown.treatment)]:
        ls = "" if (by, treatment) == ("variant", "unpruned") else TREATMENTS[treatment]
        face = "black" if treatment == "healed" else "white"
        found[treatment] = Line2D([], [], color="black", ls=ls, marker="o", ms=4, mfc=face)
    return found


def _panel(axis, panel: pd.DataFrame, by: str, x: str, keys: dict) -> None:
    """The lines of a panel over its backdrop; levels are of what does not vary with `x`."""
    hidden = (panel.task == "c4") & (x != "fraction")  # guessing, far above all that varies
    unpruned = backdrop(axis, panel.assign(chance=panel.chance.mask(hidden)))
    levels = panel[panel.treatment == "unhealed"] if x != "fraction" else panel.head(0)
    for row in pd.concat([unpruned if by != "variant" else levels, levels]).itertuples():
        shade = keys.get(getattr(row, by), ("black",))[0]
        axis.axhline(row.value, color=shade, ls=TREATMENTS[row.treatment], lw=1)
    lines = panel.drop(unpruned.index).drop(levels.index)
    lines = list(lines.groupby([by, "treatment"], sort=False))
    for place, ((value, _), points) in enumerate(lines):
        shift = DODGE[x] * (place - (len(lines) - 1) / 2)
        _curve(axis, unpruned, points, x, keys[value][0], shift)


def _curve(axis, unpruned: pd.DataFrame, points: pd.DataFrame, x: str, shade, shift: float) -> None:
    """One line; against the fraction, from the unpruned score of its model (and variant) on."""
    first = points.iloc[0]
    same = [c for c in ("model", "variant") if c in points and unpruned[c].notna().all()]
    start = unpruned[(unpruned[same] == first[same]).all(axis=1)].head(int(x == "fraction"))
    line = pd.concat([start, points]).sort_values(x)
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
        axis.xaxis.set_minor_locator(NullLocator())
    if x != "fraction":
        axis.set_xticks(line[x], [f"{value:.0f}" for value in line[x]])
        axis.margins(x=0.2)


def _strip(axis, shown: pd.DataFrame) -> None:
    """Which layers go: those from l*(n) on, at each depth of the curves above."""
    cuts = shown[shown.block_size > 0].drop_duplicates("block_size")
    layers = round((cuts.block_size / cuts.fraction).iloc[0])
    where = (cuts.fraction, cuts.block_size, 0.6 / layers, cuts.block_start)
    axis.bar(*where, color="lightgrey", label="layers dropped")
    axis.plot(cuts.fraction, cuts.block_start, "ks", ms=2.5, label="the first of them, $l^*(n)$")
    axis.set(ylabel="layer", ylim=(0, layers))
