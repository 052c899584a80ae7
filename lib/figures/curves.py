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
}
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
    mine = scores[scores.model == profile.main_model]
    treatments = [t for t in ("unhealed", "healed") if (mine.treatment == t).any()]
    label = registry.label(profile.main_model)
    columns = {treatment: f"{label}, {treatment}" for treatment in treatments}
    lines = {strategy: (shade, strategy) for strategy, shade in STRATEGIES.items()}
    return _grid(
        mine,
        [*QA, "c4"],
        columns,
        lambda s, treatment: s[s.treatment.isin(["unpruned", treatment])],
        lambda s: [(shade, text, s[s.strategy == key]) for key, (shade, text) in lines.items()],
        "figure_5",
        profile,
        unpruned_colour=lambda model: "black",
    )


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
    families = list(dict.fromkeys(map(registry.family, scores.model)))

    def lines(panel: pd.DataFrame):
        pruned = panel[panel.treatment != "unpruned"]
        for (model, treatment), curve in pruned.groupby(["model", "treatment"], sort=False):
            yield colour(model), f"{registry.label(model)}, {treatment}", curve

    return _grid(
        scores[scores.strategy != "simple"],
        tasks,
        {family: family for family in families},
        lambda s, family: s[s.model.map(registry.family) == family],
        lines,
        name,
        profile,
        unpruned_colour=colour,
    )


def _ablation(scores: pd.DataFrame, tasks: list[str], name: str, profile: Profile) -> Figure:
    """A column a model and `ablation`, a line a `variant`, each from its own unpruned score on."""
    variants = list(dict.fromkeys(scores.variant))
    shades = dict(zip(variants, sns.color_palette("viridis", len(variants)), strict=True))

    def lines(panel: pd.DataFrame):
        pruned = panel[panel.treatment != "unpruned"]
        for variant, curve in pruned.groupby("variant", sort=False):
            yield shades[variant], variant, curve

    columns = {
        (model, ablation): f"{registry.label(model)}, {ablation}"
        for model, ablation in dict.fromkeys(zip(scores.model, scores.ablation, strict=True))
    }
    return _grid(
        scores,
        tasks,
        columns,
        lambda s, column: s[(s.model == column[0]) & (s.ablation == column[1])],
        lines,
        name,
        profile,
    )


def _grid(
    scores, tasks, columns, panel_of, lines_of, name, profile, unpruned_colour=lambda model: None
) -> Figure:
    """A row of panels a task, a column a key of `columns` (with its title).

    panel_of(scores, key) are the scores of a column, lines_of(panel) its lines: colour, text and
    points. A line starts at the unpruned score; a point without a value is a gap.
    unpruned_colour(model) is that of its dashed line, None for none.
    """
    shown = in_units_of_chance(scores[scores.task.isin(tasks)])
    with plt.rc_context(STYLE):
        figure, axes = _panels(len(tasks), len(columns))
        for i, task in enumerate(tasks):
            for axis, (key, title) in zip(axes[i], columns.items(), strict=True):
                panel = panel_of(shown[shown.task == task], key)
                unpruned = panel[panel.treatment == "unpruned"]
                for model, rows in unpruned.groupby("model", sort=False):
                    reference_lines(axis, rows, unpruned_colour(model))
                stamp(axis, unpruned)
                for shade, text, points in lines_of(panel):
                    _curve(axis, unpruned, points, shade, text)
                _label(axis, task, panel, title if i == 0 else "")
        return save_figure(figure, shown, name, profile)


def _panels(rows: int, columns: int):
    size = (1 + 6.2 * columns, 0.4 + 2.9 * rows)
    figure, axes = plt.subplots(
        rows, columns, figsize=size, squeeze=False, sharex=True, sharey="row"
    )
    for axis in axes[-1]:
        axis.set_xlabel("fraction of layers dropped")
    return figure, axes


def _curve(axis, unpruned: pd.DataFrame, points: pd.DataFrame, shade, text: str) -> None:
    """One line from the unpruned score of its model (and variant) on; bars of one s.e."""
    if points.empty:
        return
    first = points.iloc[0]
    same = [c for c in ("model", "variant") if c in points and unpruned[c].notna().all()]
    start = unpruned[(unpruned[same] == first[same]).all(axis=1)].head(1)
    line = pd.concat([start, points]).sort_values("fraction")
    axis.errorbar(
        line.fraction,
        line.value,
        line.standard_error,
        color=shade,
        ls=TREATMENTS[first.treatment],
        marker=".",
        elinewidth=0.8,
        label=text,
    )


def reference_lines(axis, unpruned: pd.DataFrame, shade) -> None:
    """Unpruned scores, chance, and where it is better the floor: what no reading scores."""
    for row in unpruned.itertuples():
        floor = curves.floor(row)
        if shade is not None:
            axis.axhline(row.value, color=shade, ls=TREATMENTS["unpruned"], lw=1, label="unpruned")
        if pd.notna(row.chance):
            axis.axhline(row.chance, color="grey", ls=(0, (5, 3)), lw=1, label="chance")
            if floor > row.chance:
                axis.axhline(floor, color="grey", ls="-.", lw=1, label="floor")


def stamp(axis, unpruned: pd.DataFrame) -> None:
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
    axis.set_title(f"n = {scores.n.iloc[0]:.0f}, ±1 s.e.", loc="right", fontsize=7)
    axis.set_ylabel(TASKS[task] + (f" ({int(shots[0])}-shot)" if len(shots) == 1 else ""))
    handles, texts = axis.get_legend_handles_labels()
    unique = dict(zip(texts, handles, strict=True))
    axis.legend(unique.values(), unique.keys(), loc="upper left", bbox_to_anchor=(1, 1))
