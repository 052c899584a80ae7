"""The way of an answer in one drawing: from the options to the last token, and on to a letter.

Notebook 10. Of ARC-Easy by letter: how well the answer can be read in four places at every depth,
in the whole model and after three cuts, and where it is no longer handed on. All is taken from
`option_ends` and `transplant`; nothing is measured here.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from replication.beyond.letters import readings, transplant
from replication.beyond.letters.biases import ACCURACY, CHANCE, UNBIASED, letter_measures
from replication.beyond.letters.option_ends import AS_LETTERS, LAST, OPTIONS, TASKS
from replication.figures.style import (
    STYLE,
    WIDTH,
    colour,
    finished,
    label,
    note_above,
    nothing_measured,
    only_recorded,
)
from replication.measure.question import Question

LANES = {  # in the order in which an answer passes them: name and colour
    OPTIONS: ("options' ends", colour("content")),
    LAST: ("last token", colour("letters")),
    UNBIASED: ("letters, bias removed", "black"),
    ACCURACY: ("letters, as answered", "black"),
}
HALF = 0.5  # of a lead over guessing: a lane with less than that of the lane above has lost it
DECIDES = 0.5  # of the questions: a moved state that brings its own letter in so many decides
PER_ROW, EVERY = 2, 7  # panels; layers between ticks
WHOLE = "the whole model"  # the name of its panel
COLUMNS = [
    *("panel", "model", "strategy", "block_start", "block_size", "task", "reading", "depth"),
    *("layers", "value", "standard_error", "n", "handed_on"),
]


def by_lane(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy at each depth of a whole and of cut models, reading one of LANES."""
    letters = letter_measures(scores[scores.reading == AS_LETTERS])
    letters = letters.assign(reading=letters.measure)
    return pd.concat([scores[scores.reading.isin(LANES)], letters], ignore_index=True)


def by_panel(lanes: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of each panel: whole, an early exit, and the largest cut of each strategy.

    Before its dropped layers a cut model is the whole one. An early exit is the whole model as far
    as it goes, so it has as many layers dropped as the largest of the other cuts.
    """
    whole = lanes[lanes.block_size == 0]
    panels = {WHOLE: whole}
    largest = lanes[lanes.block_size > 0].groupby("strategy", sort=False).block_size.max()
    if len(largest):
        size, last = int(largest.max()), whole.depth.max()
        of_exit = {"strategy": "early exit", "block_start": last - size, "block_size": size}
        before = whole[whole.depth <= last - size]
        panels[f"{size} layers dropped: early exit"] = before.assign(**of_exit)
    for strategy, size in largest.items():
        of_cut = lanes[(lanes.strategy == strategy) & (lanes.block_size == size)]
        panels[f"{size:.0f} layers dropped: {strategy}"] = readings.after_whole(whole, of_cut)
    return {name: rows for name, rows in panels.items() if len(rows)}


def handed_on(panel: pd.DataFrame) -> pd.Series:
    """Return the share of each lane's lead over guessing that the next lane has, at the last depth
    of a panel; index: the next lane."""
    last = panel[panel.depth == panel.depth.max()].set_index("reading").value
    leads = last.reindex(list(LANES)) - CHANCE
    return (leads / leads.shift()).where(leads.shift() > 0)


def figure_route(scores: pd.DataFrame, moved: pd.DataFrame) -> Figure:
    """Draw where the answer can be read, from left to right by depth: a lane a place, a panel a
    cut, the darker the better. At the right the accuracy at the last depth, and a cross where the
    answer is lost first: less than HALF of a lane's lead over guessing gets there.

    Between the lanes of the whole model stand the layers that must see the options, and the depth
    from which on another question's state brings its own letter. scores, moved: of `option_ends`
    and `transplants`.
    """
    scores = scores[scores.value.notna() & (scores.task == TASKS[0])]
    moved = moved[moved.value.notna()]
    if scores.empty:
        return nothing_measured(scores)
    both = list(dict.fromkeys(moved.model[moved.model.isin(scores.model)]))
    models = both or [scores.model.iloc[0]]
    of_models = {model: by_panel(by_lane(scores[scores.model == model])) for model in models}
    panels = [(model, *panel) for model, of in of_models.items() for panel in of.items()]
    guess = pd.Series(scores.answers.iloc[0]).value_counts(normalize=True).max()
    table, ways = [], []
    with plt.rc_context(STYLE):
        figure, axes = _panels_of_depth(len(panels), sharex=len(models) == 1)
        for axis, (model, name, panel) in zip(axes.flat, panels, strict=False):
            passed = handed_on(panel)
            _draw_lanes(axis, panel, passed, guess)
            axis.set_title(f"{label(model)}, {name}" if len(models) > 1 else name, loc="left")
            deepest = int(max(rows.depth.max() for rows in of_models[model].values()))
            axis.set_xlim(0.5, deepest + 5)
            axis.set_xticks(range(EVERY, deepest + 1, EVERY))
            is_last = panel.depth == panel.depth.max()
            rows_passed = panel.reading.map(passed).where(is_last)
            table.append(panel.assign(panel=name, handed_on=rows_passed))
            if name == WHOLE:
                of_model = moved[(moved.model == model) & (moved.block_size == 0)]
                ways.append(_draw_ways(axis, of_model).assign(panel=name))
        names = ", ".join(map(label, models))
        title = f"{names}, n = {scores.n.max():.0f} questions of ARC-Easy by letter. "
        title += "The darker, the more\nanswers are read rightly there; white: "
        title += f"{guess:.2f} or less, as by guessing. Number: at the strip's end.\n"
        title += "Hatched: dropped layers. Cross: the answer does not get from the strip above "
        title += "to the one below"
        note_above(figure, title, only_recorded({(model, ""): scores for model in models}))
        return finished(figure, pd.concat([*table, *ways]).reindex(columns=COLUMNS))


def _panels_of_depth(count: int, sharex: bool) -> tuple[Figure, np.ndarray]:
    """Return a figure with `count` panels, PER_ROW in a row, and their axes: (rows, PER_ROW)."""
    rows = -(-count // PER_ROW)
    size = WIDTH, 0.7 + 1.35 * rows
    figure, axes = plt.subplots(rows, PER_ROW, figsize=size, sharex=sharex, squeeze=False)
    for axis in axes.flat[count:]:
        axis.remove()
    for axis in axes.flat:
        axis.set_yticks(range(len(LANES)), [shown for shown, _ in LANES.values()])
        axis.tick_params(axis="y", length=0, labelleft=axis in axes[:, 0])
    for axis in axes[-1]:
        axis.set_xlabel("depth (layers)")
    return figure, axes


def _draw_lanes(axis, panel: pd.DataFrame, passed: pd.Series, guess: float) -> None:
    """Draw one panel: a strip a lane, white up to the best guess, the dropped layers
    hatched, the first loss crossed."""
    last = panel.depth.max()
    behind = {"fc": "white", "ec": "none", "pad": 1}  # a number, which of an exit is on the hatch
    for place, (reading, (_, lane_colour)) in enumerate(LANES.items()):
        shades = LinearSegmentedColormap.from_list(reading, ["white", lane_colour])
        for row in panel[panel.reading == reading].itertuples():
            share = np.clip((row.value - guess) / (1 - guess), 0, 1)
            axis.barh(place, 1, left=row.depth - 0.5, height=0.6, color=shades(share))
            if row.depth == last:
                number = f"{row.value:.2f}"
                axis.text(last + 1, place, number, va="center", fontsize=8, bbox=behind)
    lost = [place for place, reading in enumerate(LANES) if passed.get(reading) < HALF]
    for place in lost[:1]:
        cross = {"marker": "x", "ms": 7, "mew": 2, "color": colour("simple")}
        axis.plot(last + 2.3, place - 0.5, **cross)
    start, size = panel[["block_start", "block_size"]].max()
    if size:
        # the state after dropped layers, at depth start + size, is there
        stop = start + size + (-0.5 if last > start else 0.5)
        axis.axvspan(start + 0.5, stop, fc="none", ec="0.7", hatch="///", lw=0)
    axis.set_ylim(len(LANES) - 0.5, -0.5)


def _draw_ways(axis, moved: pd.DataFrame) -> pd.DataFrame:
    """Write between the lanes of the whole model what hands the answer on; return the rows that
    say so."""
    closed = moved[moved.reading == transplant.NO_OPTIONS]
    others = moved[(moved.reading == transplant.OTHER_STATE) & (moved.value >= DECIDES)]
    way = closed.sort_values("value").head(1)
    decided = others.sort_values("depth").head(1)
    for row in way.itertuples():
        first, last = map(int, row.layers.split(" to "))
        axis.plot([first + 0.5, last + 1.5], [0.5, 0.5], color="black", lw=2)
        text = f"layers {row.layers} carry it "
        axis.text(first, 0.5, text, ha="right", va="center", fontsize=7)
    for row in decided.itertuples():
        axis.plot(row.depth, 1.5, marker="v", ms=5, color="black")
        text = f"layer {row.depth - 1:.0f} decides the letter "
        axis.text(row.depth - 0.7, 1.5, text, ha="right", va="center", fontsize=7)
    return pd.concat([way, decided])


QUESTION = Question(
    "10_letters_and_content",
    figures={
        "figure_route": "the way of an answer by depth, from the options to a letter, and where "
        "each cut breaks it"
    },
)
