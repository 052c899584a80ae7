"""Figures 8 and 9: what the seed of healing and the LoRA rank change."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.evaluation import TASK_SPECS
from replication.analysis.bootstrap import paired
from replication.figures.curves import LONG, SHORT, SIZES, TASKS, draw_grid, draw_panel, left_out
from replication.figures.style import NORMAL, label, look, opacity
from replication.profiles import PROFILES
from replication.tables import RECORD_PREFIX

BESIDE = 0.012  # of the axis of fractions: between the points of two variants at one depth
SMALL = 0.01  # the least that an axis of differences shows, to both sides
UNITS = TASKS | {"c4": "C4 loss (nats)"}
VARIED = ("mmlu", "arc_easy", "c4")  # the tasks that are drawn
# of the same unpruned score; figure 9: a strategy is an ablation
LINE = ["model", "task", "ablation", "length"]


def figure_8(scores: pd.DataFrame, shorter: pd.DataFrame | None = None) -> Figure:
    """Figure 8: healed scores against the fraction dropped, a line a seed of healing; and beside
    them each seed minus seed 0, paired on the questions or texts.

    scores: of experiments.seeds. shorter: of experiments.more_seeds, drawn with small points.
    """
    scores = _of_lengths(scores, shorter)
    return _variants(scores.assign(first="seed 0"), "seed 0")


def figure_9(scores: pd.DataFrame, shorter: pd.DataFrame | None = None) -> Figure:
    """Figure 9: healed scores against the fraction dropped, a line a LoRA rank; and beside them
    each rank minus the lowest of its model, paired.

    scores: of experiments.ranks. shorter: of experiments.more_ranks, drawn with small points.
    """
    scores = _of_lengths(scores, shorter)
    lowest = scores.groupby("model")["rank"].transform("min")
    figure = scores.assign(first=lowest.map("rank {:.0f}".format))
    return _variants(figure, "the lowest rank", _few_depths(scores))


def _few_depths(scores: pd.DataFrame) -> str:
    """Return a line that says so where a profile compares ranks at fewer depths than it heals at;
    empty elsewhere."""
    for name in scores.get("profile", pd.Series()).unique():
        fractions = PROFILES[name].rank_fractions if name in PROFILES else ()
        if fractions:
            of_all = len(PROFILES[name].ablation_fractions)
            return f"RANKS=few: ranks are healed at {len(fractions)} of the {of_all} depths"
    return ""


def _of_lengths(scores: pd.DataFrame, shorter: pd.DataFrame | None) -> pd.DataFrame:
    """Return both tables as one, whose column `length` tells them apart."""
    tables = {LONG: scores, SHORT: shorter}
    return pd.concat(
        [table.assign(length=length) for length, table in tables.items() if table is not None],
        ignore_index=True,
    )


def _variants(scores: pd.DataFrame, first: str, note: str = "") -> Figure:
    """Draw a row for each task (and strategy, if there are several), of each model two columns:
    scores, and differences from a variant, which is called `first`, with 95 % intervals. note: a
    line above.

    Columns difference, low and high of the table are those drawn; its rows "unhealed" are the cut
    that is not healed. A difference that healing did not make is not drawn: a line says why.
    """
    differences = [_differences(rows, one) for one, rows in scores.groupby("first", sort=False)]
    table = scores.merge(
        pd.concat(differences or [_differences(scores, "")]),
        on=[*LINE, "block_size", "variant"],
        how="left",
    )
    whys = _not_made(table)
    table = table.drop(columns="first")
    table.loc[whys != "", ["difference", "low", "high"]] = np.nan
    is_drawn = (table.treatment == "healed") & table.task.isin(VARIED)
    healed = table[is_drawn & table.value.notna()]
    whole = table[table.block_size == 0]
    whole = whole.assign(chance=whole.chance.mask(whole.task == "c4"))  # far above all that varies
    panels = {} if healed.empty else dict(_panels(healed, whole, f"minus {first}"))

    def draw(axes: dict) -> None:
        for (row, column), axis in axes.items():
            draw_one = _draw_differences if column.endswith(first) else draw_panel
            draw_one(axis, panels[row, column], "variant")

    key = "bars: ±1 s.e. of scores, 95 % of differences"
    notes = [note, left_out(table)]
    for (model, why), rows in healed.groupby(["model", whys[healed.index]], sort=False):
        tasks = ", ".join(TASK_SPECS[task].label for task in rows.task.unique())
        notes += [f"{label(model)}, {tasks}: {why}, so no difference is drawn"] if why else []
    notes.append(_lengths(healed))
    return draw_grid(panels, draw, table, "\n".join(filter(None, notes)), key)


def _lengths(healed: pd.DataFrame) -> str:
    """Return a line for each model of which healings have two lengths: how long they are."""
    lines = []
    for model, rows in healed.groupby("model", sort=False):
        if rows.length.nunique() > 1:
            steps = rows.groupby("length").steps.max()
            sizes = f"large points: {steps[LONG]:.0f} steps of healing, small: {steps[SHORT]:.0f}"
            lines.append(f"{label(model)}, {sizes}")
    return "\n".join(lines)


def _not_made(table: pd.DataFrame) -> pd.Series:
    """Return why the difference of each healed score is not one that healing made; "" if it is.

    At no depth is the score certainly another than that of the cut that is not healed; or every
    example scores as with the variant `first`: a bar would have no length.
    """
    is_healed = table.treatment == "healed"
    cuts = table[~is_healed & table.difference.notna()]
    is_certain = (cuts.low > 0) | (cuts.high < 0)
    is_changed = is_certain.groupby([cuts[name] for name in LINE]).any()
    unchanged_lines = is_changed.index[~is_changed]
    is_unchanged = pd.MultiIndex.from_frame(table[LINE]).isin(unchanged_lines)
    is_same = table.low == table.high
    whys = pd.Series("", table.index)
    whys = whys.mask(is_same, table.variant + " scores as " + table["first"])
    whys = whys.mask(is_unchanged, "healing changed nothing for certain")
    return whys.where(is_healed, "")


def _panels(healed: pd.DataFrame, whole: pd.DataFrame, minus: str) -> Iterator[tuple]:
    """Yield the place of each panel and its scores, with those of the whole model."""
    model = healed.model.str.removeprefix(RECORD_PREFIX)
    rows = healed.task.map(UNITS).str.replace(" accuracy", "\naccuracy")
    if healed.strategy.nunique() > 1:
        rows += "\n(" + healed.strategy + ")"
    for (row, name), panel in healed.groupby([rows, model], sort=False):
        unpruned = whole.merge(panel[LINE].drop_duplicates())
        yield (row, label(name)), pd.concat([unpruned, panel])
        if panel.difference.notna().any():
            yield (row, f"{label(name)}, {minus}"), panel[panel.difference.notna()]


def _draw_differences(axis, panel: pd.DataFrame, hue: str) -> None:
    """Draw the differences of a panel, variants side by side at each depth."""
    variants = panel[["length", hue]].drop_duplicates()
    places = list(variants.itertuples(index=False, name=None))
    middle = (len(places) - 1) / 2
    for (length, variant, model), points in panel.groupby(["length", hue, "model"], sort=False):
        below = points.difference - points.low
        above = points.high - points.difference
        beside = BESIDE * (places.index((length, variant)) - middle)
        style = {"ls": "", "ms": SIZES[length], "elinewidth": 1}
        style["alpha"] = opacity(model, panel)
        style |= look(variant)
        axis.errorbar(points.fraction + beside, points.difference, [below, above], **style)
    axis.axhline(0, color="0.6", lw=0.8)
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, -SMALL), max(high, SMALL))  # all may be equal


def _differences(scores: pd.DataFrame, first: str) -> pd.DataFrame:
    """Return how far each score is from that of the variant `first`, a row a model, task, depth,
    ablation and other variant; and, as the variant "unhealed", that of the cut that is not healed.
    """
    measured = scores.drop(columns="treatment")
    variants = scores.variant[(scores.block_size > 0) & (scores.variant != first)].unique()
    tables = [
        paired(measured, "variant", first, variant).assign(variant=variant) for variant in variants
    ]
    columns = [*LINE, "block_size", "variant", "difference", "low", "high"]
    if not tables:
        return pd.DataFrame(columns=columns)
    table = pd.concat(tables)
    reach = NORMAL * table.standard_error
    return table.assign(low=table.difference - reach, high=table.difference + reach)[columns]
