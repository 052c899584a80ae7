"""How every figure looks and is stored: one style, one colour a meaning, a PNG next to its CSV.

colours.csv has every colour but the neutral ones, and the marker beside it: black is the unpruned
model, greys are references (chance, the floor) and what an axis shows behind its data.
"""

import io
import json
import textwrap
from itertools import product
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from IPython import display
from matplotlib.figure import Figure
from PIL import Image

from lib import storage
from lib.models import registry
from replication import paths
from replication.analysis import curves
from replication.profiles import Profile
from replication.tables import RECORD_PREFIX

SHEET = Path(__file__).with_name("style.mplstyle")
STYLE = matplotlib.rc_params_from_file(SHEET, use_default_template=False)
TABLE = Path(__file__).with_name("colours.csv")
COLOURS = {row["name"]: row["colour"] for row in storage.rows(TABLE)}
MARKERS = {row["name"]: row["marker"] for row in storage.rows(TABLE)}
UNSHOWN = [  # too long, or another each time
    *("examples", "weights", "choices", "answers", "losses"),
    *("took", "request", "environment", "prompt_digest"),
]
LETTERS_AN_INCH = 15  # of a note above the panels
WIDTH = 7.3  # inches: as wide as a web page shows a picture, so that no text is scaled down
AT_LEAST = (0.2, 0.6)  # what every axis of accuracies shows, so that noise looks like noise
NORMAL = 1.96  # standard errors to either side: a 95 % interval
RECORD_ABOVE = f"{RECORD_PREFIX.strip()}\n"  # where a name has little room
PALE = 0.35  # opacity of the record behind a run's own points
FEW = 4_000  # colours of lines and text, with their soft edges; a map has more


def label(model: str) -> str:
    """A model's name in figures, also of a recorded one behind a run."""
    return RECORD_PREFIX * is_recorded(model) + registry.label(model.removeprefix(RECORD_PREFIX))


def names_of_panels(models: pd.Series) -> pd.Series:
    """The name of each row's model; a recorded one has no panel of its own."""
    return models.str.removeprefix(RECORD_PREFIX).map(label)


def family(model: str) -> str:
    """The family in whose panel a model is drawn."""
    return registry.family(model.removeprefix(RECORD_PREFIX))


def is_recorded(model: str) -> bool:
    """Whether a model's rows are those of the recorded run, behind a run's own."""
    return model.startswith(RECORD_PREFIX)


def has_own(panel: pd.DataFrame) -> bool:
    """Whether a panel has a point of the run itself: of a cut, if it shows cuts."""
    measured = panel[panel.value.notna()]
    cuts = measured[measured.block_size > 0]
    return not (measured if cuts.empty else cuts).model.map(is_recorded).all()


def opacity(model: str, panel: pd.DataFrame) -> float:
    """How a model is drawn in a panel: the record pale behind the run's own points, in full
    strength where there are none."""
    return PALE if is_recorded(model) and has_own(panel) else 1.0


def recorded_first(panel: pd.DataFrame) -> pd.DataFrame:
    """The scores in the order in which they are drawn: the run's over the record's."""
    is_own = ~panel.model.map(is_recorded).astype(bool)
    return panel.loc[is_own.sort_values(kind="stable").index]


def name_pale(axis, model: str, panel: pd.DataFrame) -> None:
    """Say in the legend whose lines are pale, if those of the model are."""
    if opacity(model, panel) < 1:
        axis.plot([], [], color="0.8", lw=3, label=f"pale: {label(model)}")


def only_recorded(panels: dict[tuple[str, str], pd.DataFrame], reason: str = "") -> str:
    """Return the line that says where the run has no point of its own, so that all is recorded.

    panels: scores by (row, column). reason: what is said of it already.
    """
    without = [place for place, panel in panels.items() if not has_own(panel)]
    if not without:
        return ""
    if len(without) == len(panels):
        why = "" if reason else "This run measures none of this: "
        return f"{why}all points are the recorded run's.".capitalize()
    names = []
    for place in without:
        wholly = [
            name
            for side, name in enumerate(place)
            if all(other in without for other in panels if other[side] == name)
        ]
        names.append(wholly[-1] if wholly else ", ".join(place))
    named = "; ".join(dict.fromkeys(" ".join(name.split()) for name in names))
    return f"{named.replace(RECORD_PREFIX, '')}: all points are the recorded run's."


def colour(name: str) -> str:
    """The colour of a model, cut, question form, … in every figure; of a model without a row by the
    letters of its name."""
    name = name.removeprefix(RECORD_PREFIX)
    by_letters = f"C{sum(map(ord, name)) % 10}"  # of matplotlib's ten
    return COLOURS.get(name, by_letters)


def look(name: str) -> dict:
    """Colour and marker of what `colour` names."""
    return {"color": colour(name), "marker": MARKERS.get(name, "o")}


def check_one_point_each(points: pd.DataFrame, x: str, line: str) -> None:
    """Raise ValueError for two points at one place of a line: it would be a zigzag of two lines.

    x: the column of a point's place. line: its name.
    """
    measured = points[points.value.notna()]
    twice = measured[x][measured[x].duplicated()]
    if len(twice):
        raise ValueError(
            f"Two points of the line {line!r} lie at {x} {twice.iloc[0]:g}: its scores are of more "
            "than one measurement, so choose those of one before they are drawn."
        )


def panel_grid(
    places: list[tuple[str, str]],
    xlabel: str,
    sharey: str | bool = False,
) -> tuple[Figure, dict]:
    """Return a figure and its axes by (row, column), for these places of the grid only.

    Each row is named on its left, each column above its first panel, x below its last.
    """
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*places, strict=True))
    size = max(WIDTH, 1.9 * len(columns)), 1 + 1.9 * len(rows)
    shape = {"figsize": size, "squeeze": False, "sharex": True, "sharey": sharey}
    figure, axes = plt.subplots(len(rows), len(columns), **shape)
    drawn = {}
    for place, axis in zip(product(rows, columns), axes.flat, strict=True):
        if place not in places:
            axis.remove()
            continue
        row, column = place
        if not any(row == other for other, _ in drawn):
            axis.set_ylabel(row.replace(RECORD_PREFIX, RECORD_ABOVE))
            axis.tick_params(labelleft=True)
        if not any(column == other for _, other in drawn):
            axis.set_title(column.replace(RECORD_PREFIX, RECORD_ABOVE), loc="left")
        if place == [other for other in places if other[1] == column][-1]:
            axis.tick_params(labelbottom=True)
            axis.set_xlabel(xlabel, fontsize=8)
        drawn[place] = axis
    return figure, drawn


def legend_below(figure: Figure, title: str) -> None:
    """Draw one legend a figure, below it, of all that the axes label."""
    handles = {}
    for axis in figure.axes:
        labelled, texts = axis.get_legend_handles_labels()
        handles |= zip(texts, labelled, strict=True)
    longest = max(map(len, handles), default=0)
    columns = int(figure.get_figwidth() / (0.7 + 0.055 * longest))
    figure.legend(
        handles.values(),
        handles.keys(),
        title=title,
        title_fontsize=8,
        loc="outside lower center",
        ncols=max(1, min(columns, len(handles))),
    )


def level(axes: list) -> None:
    """Give all axes the range of those with numbers, and shade where the paper's models fall."""
    limits = [AT_LEAST, *(axis.get_ylim() for axis in axes)]
    lows, highs = zip(*limits, strict=True)
    published = json.loads((paths.DATA / "published.json").read_text(encoding="utf-8"))
    _, *ranges = published["transitions"].values()  # the first one is their source
    first, last = min(map(min, ranges)), max(map(max, ranges))
    named = f"the paper's range, {first:.2f}–{last:.2f}"
    for axis in axes:
        axis.set_ylim(min(lows), max(highs))
        axis.axvspan(first, last, color="0.94", zorder=-1, label=named)


def draw_baselines(axis, scores: pd.DataFrame) -> pd.DataFrame:
    """Draw chance and, where it is better, the floor (what no reading scores); return what is
    unpruned. Above: n, and which unpruned models (or variants) do not stand out from the floor, by
    name if others do."""
    unpruned = scores[scores.treatment == "unpruned"]
    for row in unpruned[unpruned.chance.notna()].itertuples():
        axis.axhline(row.chance, color="grey", ls=(0, (5, 3)), lw=1, label="chance")
        if curves.floor(row) > row.chance:
            axis.axhline(curves.floor(row), color="grey", ls="-.", lw=1, label="floor")
    silent = unpruned[[curves.no_signal(row) for row in unpruned.itertuples()]]
    recorded = scores.model.map(is_recorded).astype(bool)
    note = _counts(scores[~recorded])
    if recorded.any():
        note = "\n".join(filter(None, [f"recorded {_counts(scores[recorded])}", note]))
    if len(silent) == len(unpruned) > 0:
        note = f"not clearly above the floor\n{note}"
    elif len(silent):
        names = silent.get("variant", silent.model.map(label))
        note = f"not clearly above the floor: {', '.join(dict.fromkeys(names))}\n{note}"
    axis.set_title(note, loc="right", fontsize=8)
    above = "\n" * note.count("\n")  # beside one line of it there is room for a column's name
    axis.set_title(axis.get_title("left") + above, loc="left")
    return unpruned


def _counts(scores: pd.DataFrame) -> str:
    """Return the least and the largest n of measured scores."""
    counts = scores.n[scores.value.notna()]
    ends = sorted({counts.min(), counts.max()}) if len(counts) else []
    return "n = " + " to ".join(f"{n:.0f}" for n in ends) if ends else ""


def note_above(figure: Figure, *notes: str) -> None:
    """Write lines above all panels, if there are any, each broken at the figure's width."""
    width = int(LETTERS_AN_INCH * figure.get_figwidth())
    lines = [line for note in notes for line in note.splitlines()]
    if note := "\n".join(textwrap.fill(line, width) for line in lines):
        figure.suptitle(note, x=0, ha="left", fontsize=8)
        figure.set_figheight(figure.get_figheight() + 0.16 * len(note.splitlines()))


def nothing_measured(table: pd.DataFrame, note: str = "") -> Figure:
    """Return the figure of a run that lacks all of it, with the table of what is missing.

    note: why, if that is known.
    """
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(WIDTH, 0.6))
        note = note or "nothing of this is measured yet"
        figure.text(0.5, 0.5, note, ha="center", va="center", fontsize=8)
        return finished(figure, table)


def finished(figure: Figure, table: pd.DataFrame, legend: str | None = None) -> Figure:
    """Return a figure with the table of what it shows, as its attribute `table`.

    legend: the title of one for the whole figure.
    """
    if legend is not None:
        legend_below(figure, legend)
    figure.table = table.drop(columns=UNSHOWN, errors="ignore")
    return figure


def save(figure: Figure, name: str, profile: Profile) -> display.Image:
    """Write <name>.png and its table as .csv into the run's folder, each whole or not at all.

    Returns the picture, which a notebook shows: of a figure it would draw another one. A model that
    the profile is missing is named above the picture and is a row without a value. There it is
    said, too, if the texts are your own.
    """
    folder, table, notes = paths.FIGURES / profile.folder, figure.table, []
    if profile.has_own_texts:
        notes.append(f"your own texts, {Path(profile.source).name}, each cut at a random place")
    if profile.missing:
        absent = pd.DataFrame(profile.missing, columns=["model", "status"])
        absent["profile"] = profile.name
        table = pd.concat([table, absent], ignore_index=True)
        names = (f"{label(model)} ({status})" for model, status in profile.missing)
        notes.append(f"missing: {', '.join(names)}")
    figure.text(0, 1.02, "\n".join(notes), fontsize=8)  # no legend is there
    picture = png(figure)
    text = table.to_csv(index=False, float_format="%.10g")
    storage.atomic_write(folder / f"{name}.csv", text.encode())
    storage.atomic_write(folder / f"{name}.png", picture)
    shown = Image.open(io.BytesIO(picture)).width * STYLE["figure.dpi"] / STYLE["savefig.dpi"]
    return display.Image(picture, width=round(shown), alt=name)


def png(figure: Figure, **style) -> bytes:
    """Return the picture, with a palette where that changes no shade: a third of the bytes.

    style: settings of matplotlib beside those of STYLE.
    """
    drawn, small = io.BytesIO(), io.BytesIO()
    with plt.rc_context(STYLE | style):
        figure.savefig(drawn, format="png")
    plt.close(figure)
    image = Image.open(drawn).convert("RGB")
    if image.getcolors(FEW):
        image = image.quantize(256, dither=Image.Dither.NONE)
    image.save(small, "png", optimize=True)
    return small.getvalue()
