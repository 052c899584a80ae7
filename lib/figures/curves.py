"""Scores against the fraction of layers dropped: figures 1d, 2, 3 and 5 to 9.

A figure function takes tidy scores, draws, and saves figures/<profile>/<name>.png beside a .csv of
exactly what it shows. One colour a model, one line style a treatment.
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib.analysis import curves
from lib.figures.style import STYLE, colour, save_figure
from lib.models import registry
from lib.profiles import Profile

TREATMENTS = {"unpruned": "--", "unhealed": ":", "healed": "-"}
STRATEGIES = {"similarity": "tab:blue", "simple": "tab:red"}
TASKS = {
    "mmlu": "MMLU accuracy",
    "boolq": "BoolQ accuracy",
    "arc_easy": "ARC-Easy accuracy",
    "c4": "C4 validation loss / ln V",
    "hellaswag": "HellaSwag accuracy",
    "gsm8k": "GSM8K exact match",
    "gsm8k_bpb": "GSM8K gold, bits per byte",
    "sciq": "SciQ accuracy",
    "squad": "SQuAD gold, bits per byte",
}
WAYS = dict(letters="tab:purple", content="tab:green", open="tab:blue", closed="tab:orange")
QA = ["mmlu", "boolq", "arc_easy"]


def figure_1d(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 1d: one model, question answering and C4 loss, healed and unhealed."""
    mine = scores[(scores.model == profile.main_model) & (scores.strategy != "simple")]
    return _by_family(mine, [*QA, "c4"], "figure_1d", profile)


def figure_2(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 2: MMLU against the fraction dropped, a panel a family; below it ARC-Easy."""
    return _by_family(scores, ["mmlu", "arc_easy"], "figure_2", profile)


def figure_3(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 3: C4 loss over ln V (chance is 1) against the fraction dropped."""
    return _by_family(scores, ["c4"], "figure_3", profile)


def figure_6(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 6: BoolQ against the fraction dropped, a panel a family."""
    return _by_family(scores, ["boolq"], "figure_6", profile)


def figure_5(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 5: simple (red) against similarity-informed pruning (blue), a column a treatment."""
    name = registry.label(profile.main_model)
    shown = in_units_of_chance(scores[scores.model == profile.main_model])
    columns = {
        f"{name}, {treatment}": shown[shown.treatment.isin(["unpruned", treatment])]
        for treatment in ("unhealed", "healed")
        if (shown.treatment == treatment).any()
    }
    lines = (["strategy"], lambda strategy: (STRATEGIES[strategy], strategy))
    how = (*lines, lambda model: "black")
    return _grid(shown, [*QA, "c4"], columns, *how, "figure_5", profile)


def figure_7(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 7: prompts of the question sets; columns `ablation` (order, number) of `variant`."""
    return _ablation(scores, ["mmlu", "arc_easy"], "figure_7", profile)


def figure_8(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 8: the seed of healing; a line a `variant`."""
    return _ablation(scores, ["mmlu", "arc_easy", "c4"], "figure_8", profile)


def figure_9(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Figure 9: the LoRA rank, a line a `variant`; columns are the two strategies."""
    return _ablation(scores, ["mmlu", "arc_easy", "c4"], "figure_9", profile)


def figure_beyond(scores: pd.DataFrame, profile: Profile) -> Figure:
    """Question sets of the paper's second version: HellaSwag and GSM8K, unhealed."""
    return _by_family(scores, ["hellaswag", "gsm8k_bpb", "gsm8k"], "figure_beyond", profile)


def figure_measures(measured: pd.DataFrame, profile: Profile) -> Figure:
    """The same answers by four measures (analysis.measures), a column a model and task."""
    columns = {
        f"{registry.label(model)}, {TASKS[task].removesuffix(' accuracy')}": rows
        for (model, task), rows in measured.groupby(["model", "task"], sort=False)
    }
    how = (["strategy"], lambda strategy: (STRATEGIES[strategy], strategy), lambda model: None)
    rows = list(dict.fromkeys(measured.measure))
    return _grid(measured, rows, columns, *how, "figure_measures", profile, "measure")


def figure_letters(scores: pd.DataFrame, profile: Profile) -> Figure:
    """The same questions by letter and by content, a row a model and question set."""
    told = scores.model.map(registry.label) + "\n" + scores.questions.map(TASKS)
    shown = scores.assign(variant=scores.form, panel=told)
    columns = {way: shown[shown.strategy.isin(["none", way])] for way in STRATEGIES}
    return _two_ways(shown, "panel", columns, "figure_letters", profile)


def figure_books(scores: pd.DataFrame, profile: Profile) -> Figure:
    """The same questions with and without the passage that answers them, a column a model."""
    shown = scores.assign(variant=scores.book)
    columns = {registry.label(model): rows for model, rows in shown.groupby("model", sort=False)}
    return _two_ways(shown, "questions", columns, "figure_books", profile)


def _two_ways(shown: pd.DataFrame, rows: str, columns, name: str, profile: Profile) -> Figure:
    """A row of panels for each value of the column `rows`, a line a `variant` and treatment."""
    how = (["variant", "treatment"], lambda way, how: (WAYS[way], f"{way}, {how}"))
    values = list(dict.fromkeys(shown[rows]))
    return _grid(shown, values, columns, *how, lambda m: None, name, profile, rows)


def in_units_of_chance(scores: pd.DataFrame) -> pd.DataFrame:
    """The same scores with the C4 loss divided by ln V, as the paper shows it."""
    shown = scores.copy()
    shown["unit"] = shown.task.map({"c4": "nats / ln V", "gsm8k_bpb": "bits per byte"})
    shown["unit"] = shown.unit.fillna("accuracy")
    loss = shown.task == "c4"
    for column in {"value", "standard_error", "chance", "floor"} & set(shown):
        shown.loc[loss, column] = shown.loc[loss, column] / scores.loc[loss, "chance"]
    return shown


def _by_family(scores: pd.DataFrame, tasks: list[str], name: str, profile: Profile) -> Figure:
    """Similarity-informed pruning: a column a family of models, a line a model and treatment."""
    shown = in_units_of_chance(scores[scores.strategy != "simple"])
    columns = dict(list(shown.groupby(shown.model.map(registry.family), sort=False)))

    def line(model: str, treatment: str) -> tuple:
        return colour(model), f"{registry.label(model)}, {treatment}"

    return _grid(shown, tasks, columns, ["model", "treatment"], line, colour, name, profile)


def _ablation(scores: pd.DataFrame, tasks: list[str], name: str, profile: Profile) -> Figure:
    """A column a model and `ablation`, a line a `variant`, each from its own unpruned score on."""
    variants = list(dict.fromkeys(scores.variant))
    shades = dict(zip(variants, sns.color_palette("viridis", len(variants)), strict=True))
    shown = in_units_of_chance(scores)
    columns = {
        f"{registry.label(model)}, {ablation}": rows
        for (model, ablation), rows in shown.groupby(["model", "ablation"], sort=False)
    }
    lines = (["variant"], lambda variant: (shades[variant], variant))
    return _grid(shown, tasks, columns, *lines, lambda model: None, name, profile)


def _grid(
    shown, tasks, columns, by, line, unpruned_colour, name, profile, rows: str = "task"
) -> Figure:
    """A row of panels a task, a column the scores under each title of `columns`.

    rows: the column of the table that tells the rows of panels, if it is not the task. by: columns
    that tell the lines of a panel apart; line(*their values): its colour and text. A point without
    a value is a gap. unpruned_colour(model): of its dashed line, None for none.
    """
    size = (1 + 6.2 * len(columns), 0.4 + 2.9 * len(tasks))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(tasks),
            len(columns),
            figsize=size,
            squeeze=False,
            sharex=True,
            sharey="none" if rows == "measure" else "row",
        )
        for row, task in zip(axes, tasks, strict=True):
            for axis, (title, scores) in zip(row, columns.items(), strict=True):
                panel = scores[scores[rows] == task]
                unpruned = backdrop(axis, panel, unpruned_colour)
                pruned = panel[panel.treatment != "unpruned"]
                for key, points in pruned.groupby(by, sort=False):
                    _curve(axis, unpruned, points, *line(*key))
                _label(axis, task, panel, title if task == tasks[0] else "")
        for axis in axes[-1]:
            axis.set_xlabel("fraction of layers dropped")
        return save_figure(figure, shown[shown[rows].isin(tasks)], name, profile)


def _curve(axis, unpruned: pd.DataFrame, points: pd.DataFrame, shade, text: str) -> None:
    """One line from the unpruned score of its model (and variant) on; bars of one s.e."""
    first = points.iloc[0]
    same = [c for c in ("model", "variant") if c in points and unpruned[c].notna().all()]
    start = unpruned[(unpruned[same] == first[same]).all(axis=1)].head(1)
    line = pd.concat([start, points]).sort_values("fraction")
    style = {"color": shade, "ls": TREATMENTS[first.treatment], "marker": ".", "elinewidth": 0.8}
    axis.errorbar(line.fraction, line.value, line.standard_error, label=text, **style)


def backdrop(axis, scores: pd.DataFrame, unpruned_colour) -> pd.DataFrame:
    """What lies behind the lines of a panel; returns the unpruned scores.

    These as dashed lines, chance, where it is better the floor (what no reading scores), and n.
    """
    unpruned = scores[scores.treatment == "unpruned"]
    for row in unpruned.itertuples():
        floor, shade = curves.floor(row), unpruned_colour(row.model)
        if shade is not None:
            axis.axhline(row.value, color=shade, ls=TREATMENTS["unpruned"], lw=1, label="unpruned")
        if pd.notna(row.chance):
            axis.axhline(row.chance, color="grey", ls=(0, (5, 3)), lw=1, label="chance")
            if floor > row.chance:
                axis.axhline(floor, color="grey", ls="-.", lw=1, label="floor")
    axis.set_title(f"n = {scores.n.iloc[0]:.0f}, ±1 s.e.", loc="right", fontsize=7)
    _stamp(axis, unpruned)
    return unpruned


def _stamp(axis, unpruned: pd.DataFrame) -> None:
    """Say behind the lines which unpruned models (or variants) do not stand out from the floor."""
    every = unpruned[unpruned.value.notna()]
    silent = every[[curves.no_signal(row) for row in every.itertuples()]]
    if silent.empty:
        return
    names = silent.variant if "variant" in silent else silent.model.map(registry.label)
    some = len(silent) < len(every)
    told = "no signal" + (f":\n{', '.join(dict.fromkeys(names))}" if some else "")
    style = {"color": "0.8", "weight": "bold", "fontsize": 13 if some else 26, "zorder": 0}
    axis.text(0.98, 0.97, told, ha="right", va="top", transform=axis.transAxes, **style)


def _label(axis, task: str, scores: pd.DataFrame, title: str) -> None:
    shots = scores.shots.dropna().unique()
    axis.set_title(title)
    axis.set_ylabel(TASKS.get(task, task) + (f" ({int(shots[0])}-shot)" if len(shots) == 1 else ""))
    handles, texts = axis.get_legend_handles_labels()
    unique = dict(zip(texts, handles, strict=True))
    axis.legend(unique.values(), unique.keys(), loc="upper left", bbox_to_anchor=(1, 1))
