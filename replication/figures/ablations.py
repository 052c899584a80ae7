"""Figures 8 and 9: what the seed of healing and the LoRA rank change."""

from collections.abc import Iterator

import pandas as pd
from matplotlib.figure import Figure

from replication.figures.curves import TASKS, draw_grid, draw_panel, left_out
from replication.figures.style import label
from replication.tables import RECORD

UNITS = TASKS | {"c4": "C4 loss (nats)"}
VARIED = ("mmlu", "arc_easy", "c4")  # the tasks that are drawn


def figure_8(scores: pd.DataFrame) -> Figure:
    """Figure 8: healed scores against the fraction dropped, a line a seed of healing.

    scores: of experiments.seeds and more_seeds, whose rows say their steps.
    """
    return _variants(scores)


def figure_9(scores: pd.DataFrame) -> Figure:
    """Figure 9: healed scores against the fraction dropped, a line a LoRA rank.

    scores: of experiments.ranks.
    """
    return _variants(scores)


def _variants(table: pd.DataFrame) -> Figure:
    """Draw a row for each task (and strategy, if there are several), a column a model."""
    is_drawn = (table.treatment == "healed") & table.task.isin(VARIED)
    healed = table[is_drawn & table.value.notna()]
    whole = table[table.block_size == 0]
    whole = whole.assign(chance=whole.chance.mask(whole.task == "c4"))  # far above all that varies
    panels = {} if healed.empty else dict(_panels(healed, whole))

    def draw(axes: dict) -> None:
        for place, axis in axes.items():
            draw_panel(axis, panels[place], "variant")

    return draw_grid(list(panels), draw, table, left_out(table))


def _panels(healed: pd.DataFrame, whole: pd.DataFrame) -> Iterator[tuple]:
    """Yield the place of each panel and its scores, with those of the whole model."""
    model = healed.model.str.removeprefix(RECORD)
    rows = healed.task.map(UNITS).str.replace(" accuracy", "\naccuracy")
    if healed.strategy.nunique() > 1:
        rows += "\n(" + healed.strategy + ")"
    for (row, name), panel in healed.groupby([rows, model], sort=False):
        unpruned = [
            whole[(whole[["model", "task", "ablation"]] == key).all(axis=1)]
            for key in panel[["model", "task", "ablation"]].drop_duplicates().to_numpy()
        ]
        yield (row, label(name)), pd.concat([*unpruned, panel])
