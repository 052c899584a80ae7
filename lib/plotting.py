"""Every figure from tidy data: one style, one colour a model, one line style a treatment.

A figure function takes measurements, draws, and saves figures/<profile>/<name>.png beside a
.csv of exactly what it shows.
"""

import io
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib import catalog, claims, paths
from lib.profiles import Profile
from lib.similarity import BlockDistances

STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "savefig.bbox": "tight",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
}
TREATMENTS = {"unpruned": "--", "unhealed": ":", "healed": "-"}
STRATEGIES = {"similarity": "tab:blue", "simple": "tab:red"}
TASKS = {
    "mmlu": "MMLU accuracy ({shots}-shot)",
    "boolq": "BoolQ accuracy (0-shot)",
    "arc_easy": "ARC-Easy accuracy (0-shot)",
    "c4": "C4 validation loss / ln V",
}


def colour(name: str):
    """The colour of a model in every figure."""
    known = list(catalog.MODELS)
    place = known.index(name) if name in known else len(known) + sum(map(ord, name))
    palette = sns.color_palette("colorblind")
    return palette[place % len(palette)]


def save_figure(figure: Figure, shown: pd.DataFrame, name: str, profile: Profile) -> Figure:
    """Write figures/<profile>/<name>.png and its .csv, each whole or not at all."""
    folder = paths.FIGURES / profile.name
    folder.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    table = shown.to_csv(index=False, float_format="%.10g").encode()
    for suffix, content in ((".csv", table), (".png", picture.getvalue())):
        part = folder / f"{name}{suffix}.part"
        part.write_bytes(content)
        os.replace(part, folder / f"{name}{suffix}")
    plt.close(figure)
    return figure


# ---- angular distances ---------------------------------------------------------------------


def distance_table(maps: dict[str, BlockDistances], profile: Profile) -> pd.DataFrame:
    """d(l, l+n) of every block of every model, one row each, with the row-normalised value."""
    records = []
    for name, distances in maps.items():
        for size in range(1, distances.num_layers):
            row = distances.row(size)
            records.append(
                pd.DataFrame(
                    {
                        "profile": profile.name,
                        "model": name,
                        "block_start": np.arange(len(row)),
                        "block_size": size,
                        "value": row,
                        "standard_error": np.diagonal(distances.standard_error, size),
                        "normalised": claims.rescaled(row),
                        "n": distances.num_sequences,
                    }
                )
            )
    return pd.concat(records, ignore_index=True)


def figure_1c(name: str, distances: BlockDistances, profile: Profile) -> Figure:
    """Figure 1c: d(x^(l), x^(l+n)) against l, a curve per n, the black line through l*(n)."""
    table = distance_table({name: distances}, profile)
    table = table[table.block_size <= max(profile.block_sizes(distances.num_layers))]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6, 4.2))
        colours = plt.get_cmap("viridis")
        deepest = table.block_size.max()
        for size, row in table.groupby("block_size"):
            shade = colours((size - 1) / max(deepest - 1, 1))
            axes.plot(row.block_start, row.value, color=shade, lw=1)
            low, high = row.value - row.standard_error, row.value + row.standard_error
            axes.fill_between(row.block_start, low, high, color=shade, alpha=0.3, lw=0)
        best = table.loc[table.groupby("block_size").value.idxmin()]
        axes.plot(best.block_start, best.value, "k.-", ms=4, lw=1, label="best start l*(n)")
        scale = plt.cm.ScalarMappable(plt.Normalize(1, deepest), colours)
        figure.colorbar(scale, ax=axes, label="block size n (layers)")
        axes.set(
            xlabel="block start l (layer)",
            ylabel="angular distance d(l, l+n)",
            title=f"{catalog.label(name)}, {distances.num_sequences} C4 sequences, ±1 s.e.",
        )
        axes.legend(loc="upper left")
        return save_figure(figure, table, "figure_1c", profile)


def figure_4(maps: dict[str, BlockDistances], profile: Profile) -> Figure:
    """Figure 4: a heatmap a model, x = l, y = n, each row rescaled to [0, 1]; yellow is similar."""
    table = distance_table(maps, profile)
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(1.5 + 4.2 * columns, 3.9 * rows), squeeze=False
        )
        for axis in axes.flat[len(maps) :]:
            axis.remove()
        for axis, (name, distances) in zip(axes.flat, maps.items(), strict=False):
            mine = table[table.model == name]
            grid = mine.pivot(index="block_size", columns="block_start", values="normalised")
            mesh = axis.pcolormesh(grid.columns, grid.index, grid, cmap="viridis_r", vmin=0, vmax=1)
            best = mine.loc[mine.groupby("block_size").value.idxmin()]
            axis.plot(best.block_start, best.block_size, "k.", ms=3, label="best start l*(n)")
            axis.set(
                xlabel="block start l (layer)",
                ylabel="block size n (layers)",
                title=f"{catalog.label(name)}, {distances.num_sequences} sequences",
            )
            axis.legend(loc="upper right")
        figure.colorbar(mesh, ax=axes, label="shifted, rescaled distance (0: most similar)")
        return save_figure(figure, table, "figure_4", profile)


# ---- scores against the fraction of layers dropped -----------------------------------------


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
    tasks = ["mmlu", "boolq", "arc_easy", "c4"]
    shown = in_units_of_chance(scores[scores.task.isin(tasks)])
    treatments = [t for t in ("unhealed", "healed") if (shown.treatment == t).any()]
    models = list(shown.model.unique())
    columns = [(name, treatment) for name in models for treatment in treatments]
    with plt.rc_context(STYLE):
        figure, axes = _panels(len(tasks), len(columns))
        for i, task in enumerate(tasks):
            for axis, (name, treatment) in zip(axes[i], columns, strict=True):
                mine = shown[(shown.task == task) & (shown.model == name)]
                _reference_lines(axis, mine, "black")
                for strategy, shade in STRATEGIES.items():
                    curve = mine[(mine.strategy == strategy) & (mine.treatment == treatment)]
                    _curve(axis, mine, curve, shade, treatment, strategy)
                _label(axis, task, mine, f"{catalog.label(name)}, {treatment}" if i == 0 else "")
        return save_figure(figure, shown, "figure_5", profile)


def in_units_of_chance(scores: pd.DataFrame) -> pd.DataFrame:
    """The same scores with the C4 loss divided by ln V, as the paper shows it."""
    shown = scores.copy()
    shown["unit"] = np.where(shown.task == "c4", "nats / ln V", "accuracy")
    loss = shown.task == "c4"
    for column in ("value", "standard_error", "chance"):
        shown.loc[loss, column] = shown.loc[loss, column] / scores.loc[loss, "chance"]
    return shown


def _by_family(scores: pd.DataFrame, tasks: list[str], name: str, profile: Profile) -> Figure:
    """Similarity-informed pruning: rows are tasks, columns families of models."""
    shown = in_units_of_chance(scores[scores.task.isin(tasks) & (scores.strategy != "simple")])
    families = list(dict.fromkeys(map(catalog.family, shown.model)))
    with plt.rc_context(STYLE):
        figure, axes = _panels(len(tasks), len(families))
        for i, task in enumerate(tasks):
            for axis, family in zip(axes[i], families, strict=True):
                mine = shown[(shown.task == task) & (shown.model.map(catalog.family) == family)]
                for model, curves in mine.groupby("model", sort=False):
                    _reference_lines(axis, curves, colour(model))
                    pruned = curves[curves.treatment != "unpruned"]
                    for treatment, curve in pruned.groupby("treatment"):
                        text = f"{catalog.label(model)}, {treatment}"
                        _curve(axis, curves, curve, colour(model), treatment, text)
                _label(axis, task, mine, family if i == 0 else "")
        return save_figure(figure, shown, name, profile)


def _panels(rows: int, columns: int):
    size = (1 + 4.6 * columns, 0.4 + 2.9 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, sharex=True)
    for axis in axes[-1]:
        axis.set_xlabel("fraction of layers dropped")
    return figure, axes


def _curve(axis, scores: pd.DataFrame, curve: pd.DataFrame, shade, treatment: str, text: str):
    """One line from the unpruned score on, with an error bar of one standard error a point."""
    points = pd.concat([scores[scores.treatment == "unpruned"], curve]).sort_values("fraction")
    axis.errorbar(
        points.fraction,
        points.value,
        points.standard_error,
        color=shade,
        ls=TREATMENTS[treatment],
        marker=".",
        elinewidth=0.8,
        label=text,
    )


def _reference_lines(axis, scores: pd.DataFrame, shade) -> None:
    """The unpruned score, chance, and for BoolQ what the commonest answer scores."""
    for row in scores[scores.treatment == "unpruned"].itertuples():
        axis.axhline(row.value, color=shade, ls=TREATMENTS["unpruned"], lw=1, label="unpruned")
        axis.axhline(row.chance, color="grey", ls=(0, (5, 3)), lw=1, label="chance")
        if pd.notna(row.majority):
            axis.axhline(row.majority, color="grey", ls="-.", lw=1, label="majority answer")


def _label(axis, task: str, scores: pd.DataFrame, title: str) -> None:
    first = scores.iloc[0]
    shots = "" if pd.isna(first.shots) else int(first.shots)
    axis.set_title(title)
    axis.set_title(f"n = {first.n}, ±1 s.e.", loc="right", fontsize=7)
    axis.set_ylabel(TASKS[task].format(shots=shots))
    handles, texts = axis.get_legend_handles_labels()
    unique = dict(zip(texts, handles, strict=True))
    axis.legend(unique.values(), unique.keys(), loc="best")
