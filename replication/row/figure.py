"""All rows as one figure and one table: a line a model, a panel a question."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.models import registry
from replication.figures.style import COLOURS, MARKERS, NORMAL, STYLE, WIDTH, finished
from replication.profiles.strategies import WITH_EXIT

PLACES = {
    "options": "at the options' ends",
    "last_token": "at the last token",
    "letter": "written as a letter",
}
ANSWERS = {  # of an exit: how they are drawn
    "whole": {"color": "0.6", "marker": "|", "ms": 9},
    "as_given": {"color": COLOURS["letters"], "marker": "o", "mfc": "white"},
    "own_means_removed": {"color": COLOURS["letters"], "marker": "o"},
    "other_means_removed": {"color": COLOURS["letters"], "marker": "x"},
}
NAMES = {
    "whole": "no cut",
    "as_given": "after an exit, as given",
    "own_means_removed": "letters' means removed",
    "other_means_removed": "another task's means removed",
}
READ = {
    "options": {"color": COLOURS["content"], "marker": "s"},
    "last_token": {"color": COLOURS["letters"], "marker": "o"},
    "letter": {"color": "black", "marker": "D", "mfc": "white"},
}
LEGEND = "bars: 95 %; an arrow: not lost where measured; –: no answer, or not measured"
APART = 0.22  # of a line's height, between marks of one model
Point = tuple[str, Mapping[str, float | None], dict]  # its name, an estimate, how it is drawn


def of_cuts(task: str) -> Callable[[dict], Iterator[Point]]:
    """Return what yields where half is lost after each cut."""

    def points(row: dict) -> Iterator[Point]:
        for cut in WITH_EXIT:
            yield cut, row["half_lost"][task][cut], {"color": COLOURS[cut], "marker": MARKERS[cut]}

    return points


def of_exit(task: str) -> Callable[[dict], Iterator[Point]]:
    """Return what yields the answers after the exit that costs half of a task."""

    def points(row: dict) -> Iterator[Point]:
        answers = row["exit"][task] or {}
        for name, look in ANSWERS.items():
            yield NAMES[name], with_ends(answers.get(name)), look

    return points


def of_depths(row: dict) -> Iterator[Point]:
    """Yield the depths at which the answer can be read, and is a letter, as shares of all."""
    for name, look in READ.items():
        depth = (row["depth"] or {}).get(name) or {}
        share = {end: value / row["layers"] for end, value in depth.items() if value is not None}
        yield PLACES[name], share or None, look


def with_ends(score: dict | None) -> dict | None:
    """Return a score with the ends of its 95 % interval."""
    if score is None:
        return None
    reach = NORMAL * score["standard_error"]
    return {"value": score["value"], "low": score["value"] - reach, "high": score["value"] + reach}


PANELS = {
    "half lost, ARC-Easy by letter": of_cuts("arc_easy_letters"),
    "half lost, ARC-Easy by content": of_cuts("arc_easy"),
    "half lost, MMLU by letter": of_cuts("mmlu"),
    "ARC-Easy by letter, an exit": of_exit("arc_easy_letters"),
    "MMLU by letter, an exit": of_exit("mmlu"),
    "depth of the answer, ARC-Easy": of_depths,
}
XLABELS = ["fraction of the layers dropped"] * 3 + ["accuracy"] * 2 + ["share of all layers"]


def figure_rows(rows: Mapping[str, dict]) -> Figure:
    """Draw all rows, by the names of their files: a line a model, the deepest models last."""
    names = sorted(rows, key=lambda name: (rows[name]["layers"], name))
    table = pd.DataFrame(_records(rows, names))
    with plt.rc_context(STYLE):
        size = WIDTH, 2.4 + 2 * (0.5 + 0.4 * len(names))
        figure, axes = plt.subplots(2, 3, figsize=size, sharey=True, squeeze=False)
        panels = zip(axes.flat, PANELS.items(), XLABELS, strict=True)
        for axis, (title, points), xlabel in panels:
            for place, name in enumerate(names):
                _draw(axis, place, list(points(rows[name])))
            axis.set_title(title, loc="left", fontsize=8)
            axis.set_xlabel(xlabel, fontsize=8)
            axis.set_yticks(range(len(names)), [labels(rows)[name] for name in names])
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.set_xlim(0, 1)
        return finished(figure, table, legend=LEGEND)


def _draw(axis, place: int, points: list[Point]) -> None:
    """Draw one model's marks, nearly one below the other; say where there is none."""
    if not any(estimate for _, estimate, _ in points):
        axis.text(0.5, place, "–", color="grey", fontsize=7, ha="center", va="center")
    for number, (name, estimate, look) in enumerate(points):
        if not estimate:
            continue
        y = place + APART * (number - (len(points) - 1) / 2)
        value, low, high = (estimate.get(end) for end in ("value", "low", "high"))
        if value is None:  # beyond what was measured
            arrow = {"arrowstyle": "->", "color": look["color"]}
            axis.annotate("", (low + 0.12, y), (low, y), arrowprops=arrow)
            continue
        below = 0 if low is None else value - low
        above = (high or 1) - value
        style = {"ms": 4, "ls": "", "elinewidth": 0.8} | look
        axis.errorbar(value, y, xerr=([below], [above]), label=name, **style)


def labels(rows: Mapping[str, dict]) -> dict[str, str]:
    """Return the name of each row's model, with its weights where two rows are of one model."""
    names = {name: registry.label(row["model"]) for name, row in rows.items()}
    times = Counter(names.values())
    for name, row in rows.items():
        if times[names[name]] > 1:
            names[name] += f"\n{row['profile']}, {row['dtype']}"
    return names


def _records(rows: Mapping[str, dict], names: list[str]) -> Iterator[dict]:
    """Yield a row of the figure's table for each mark."""
    for name in names:
        for panel, points in PANELS.items():
            for mark, estimate, _ in points(rows[name]):
                estimate = estimate or {}
                ends = {end: estimate.get(end) for end in ("value", "low", "high")}
                yield {"model": rows[name]["model"], "panel": panel, "mark": mark} | ends


# ---- the table -------------------------------------------------------------------------------

COLUMNS = (
    "model",
    "whole: ARC-Easy by letter, by content; MMLU",
    "half lost by letter (ARC-Easy): similarity, exit",
    "by content",
    "after the exit (MMLU, else ARC-Easy): as given, means removed",
    "depth: options, last token, letter",
    "loss after the paper's cut of a tenth",
)


def table(rows: Mapping[str, dict]) -> str:
    """Return all rows as a table in Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for name, label in labels(rows).items():
        cells = [label.replace("\n", ", "), *_cells(rows[name])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cells(row: dict) -> Iterator[str]:
    """Yield the cells of COLUMNS after the first."""
    yield ", ".join(map(_number, row["whole"].values()))
    for task in ("arc_easy_letters", "arc_easy"):
        lost = row["half_lost"][task]
        yield ", ".join(_number(lost[cut]) for cut in ("similarity", "early exit"))
    answers = row["exit"]["mmlu"] or row["exit"]["arc_easy_letters"]
    yield (
        f"{answers['dropped']} layers: {_number(answers['as_given'])}, "
        f"{_number(answers['own_means_removed'])}"
        if answers
        else "–"
    )
    depth = row["depth"]
    of = f" of {row['layers']}"
    yield ", ".join(f"{depth[place]['value']:.0f}" for place in READ) + of if depth else "–"
    sizes = sorted((key for key in row["loss"] if key != "whole"), key=int)
    after = row["loss"][sizes[0]]["similarity"]
    yield f"{_number(row['loss']['whole'])} → {_number(after)}" if after else "–"


def _number(estimate: dict | None) -> str:
    """Return a value with two decimals; of one beyond what was measured, what is known of it."""
    if not estimate:
        return "–"
    if estimate["value"] is None:
        return f"> {estimate['low']:.2f}"
    return f"{estimate['value']:.2f}"
