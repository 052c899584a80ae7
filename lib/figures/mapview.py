"""The explorer's plotly figure: distance maps side by side, and what a size n changes in it.

A change is the three arguments of plotly's `update`: of traces, of the layout, and which traces.
"""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lib.analysis import islands
from lib.blocks import BlockDistances, similarity_block
from lib.models import registry

Maps = dict[str, BlockDistances]
Damage = dict[str, pd.DataFrame] | None  # of some models: block_start, block_size and value
VIEWS = ("row-normalised", "raw")
HOVER = (
    "l = %{x}, n = %{y}<br>d = %{customdata[0]:.4f} ± %{customdata[1]:.4f}"
    "<br>drops layers range(%{x}, %{customdata[2]})<extra></extra>"
)
MAP = {"hovertemplate": HOVER, "hoverongaps": False, "coloraxis": "coloraxis"}
GREYS = [[0, "lightgrey"], [1, "black"]]
COUNTS = {"colorscale": GREYS, "showscale": False, "hovertemplate": "%{z} blocks<extra></extra>"}
TRACES = {  # of a model, in order: the row of the figure, and the style
    "map": (1, MAP),
    "band": (1, {"mode": "lines", "line_color": "black", "hoverinfo": "skip"}),
    "islands": (1, {"mode": "lines", "line_color": "red", "hoverinfo": "skip"}),
    "best starts": (1, {"mode": "markers", "marker": {"color": "black", "size": 3}}),
    "cursor": (1, {"mode": "lines", "line_color": "black", "hoverinfo": "skip"}),
    "curve": (2, {"mode": "lines+markers", "line_color": "teal"}),
    "lowest": (2, {"mode": "markers", "marker": {"color": "red", "size": 9}}),
    "damage": (3, COUNTS),
    "damage at n": (3, {"mode": "markers", "marker_color": "red"}),
}
BINS = (60, 40)  # of all blocks in distance against damage
MOVING = ("cursor", "curve", "lowest", "damage at n")  # those that follow n
Y_TITLES = {1: "block size n (layers)", 2: "distance d(l, l+n)", 3: "damage"}
NO_DAMAGE = pd.DataFrame(columns=["block_start", "block_size", "value"])


def figure(maps: Maps, damage: Damage = None) -> go.Figure:
    """A column a model: its map with band and islands, the curve d(·, n), distance and damage.

    damage: of some of the models block_start, block_size and value. Raises ValueError if a table
    lacks one of these columns.
    """
    rows = 3 if damage else 2
    first, _ = sizes(maps)
    drawing = make_subplots(
        rows,
        len(maps),
        subplot_titles=[registry.label(name) for name in maps] + _sentences(first, maps),
        row_heights=[0.6, 0.4, 0.4][:rows],
        vertical_spacing=0.24 / rows,
    )
    for column, (name, distances) in enumerate(maps.items(), start=1):
        drawn = _still(distances, _table(damage, name))
        drawn |= _moving(first, distances, _table(damage, name))
        for trace in _names(damage):
            row, style = TRACES[trace]
            kind = go.Heatmap if "z" in drawn[trace] else go.Scatter
            drawing.add_trace(kind(name=trace, **style, **drawn[trace]), row, column)
        _label_axes(drawing, column, distances, rows)
    drawing.update_layout(height=360 * rows, showlegend=False, template="plotly_white")
    drawing.update_layout(modebar_remove=["sendChartToCloud", "select2d", "lasso2d"])
    drawing.update_coloraxes(colorscale="Viridis", reversescale=True)
    drawing.plotly_relayout(in_view(VIEWS[0], maps, damage)[1])
    return drawing


def sizes(maps: Maps) -> tuple[int, int]:
    """The size that is shown first, a fifth of the smallest model, and the largest one."""
    layers = [distances.num_layers for distances in maps.values()]
    return max(1, min(layers) // 5), max(layers) - 1


def at_size(size: int, maps: Maps, damage: Damage = None) -> list:
    """The change of `figure` that shows blocks of `size`: lines, curves, texts."""
    moving = {name: _moving(size, d, _table(damage, name)) for name, d in maps.items()}
    names = [name for name in _names(damage) if name in MOVING]
    points = [of_model[name] for of_model in moving.values() for name in names]
    texts = {
        f"annotations[{i}].text": text
        for i, text in enumerate(_sentences(size, maps), start=len(maps))
    }
    keys = {"x": "x", "y": "y", "error_y_array": "error_y.array"}
    traces = {path: [p.get(key) for p in points] for key, path in keys.items()}
    return [traces, texts, _places(names, maps, damage)]


def in_view(view: str, maps: Maps, damage: Damage = None) -> list:
    """The change of `figure` that shows the maps raw or row-normalised (one of VIEWS)."""
    scale = {f"coloraxis.{key}": value for key, value in _scale(maps, view).items()}
    values = {"z": [_view(distances, view) for distances in maps.values()]}
    return [values, scale, _places(["map"], maps, damage)]


# ---- the traces of one model ----------------------------------------------------------------


def _still(distances: BlockDistances, damage: pd.DataFrame) -> dict[str, dict]:
    """The traces that do not follow n."""
    regions = islands.regions(distances.matrix)
    block_sizes = list(range(1, distances.num_layers))
    best = [distances.best_start(n) for n in block_sizes]
    stop = np.add(*np.mgrid[1 : distances.num_layers, : distances.num_layers])
    hovered = [islands.by_size(m) for m in (distances.matrix, distances.standard_error)]
    return {
        "map": {
            "z": _view(distances, VIEWS[0]),
            "y": block_sizes,
            "customdata": _rounded(np.stack([*hovered, stop], axis=-1)),
        },
        "band": _outline(regions == islands.BAND),
        "islands": _outline(regions > islands.BAND),
        "best starts": {"x": best, "y": block_sizes},
        "damage": _density(**_damaged(distances, damage)),
    }


def _moving(size: int, distances: BlockDistances, damage: pd.DataFrame) -> dict[str, dict]:
    """The traces that follow n; without points if the model has no block of that size."""
    if size >= distances.num_layers:
        return {name: {"x": [], "y": []} for name in MOVING}
    row, best = distances.row(size), distances.best_start(size)
    error = np.diagonal(distances.standard_error, size)
    return {
        "cursor": {"x": [0, best, len(row) - 1], "y": [size] * 3},
        "curve": {"x": list(range(len(row))), "y": _rounded(row), "error_y_array": _rounded(error)},
        "lowest": {"x": [best], "y": _rounded(row[[best]])},
        "damage at n": _damaged(distances, damage[damage.block_size == size]),
    }


def _damaged(distances: BlockDistances, blocks: pd.DataFrame) -> dict:
    """Distance (x) and damage (y) of some blocks."""
    starts, lengths = (blocks[c].to_numpy(int) for c in ("block_start", "block_size"))
    found = distances.matrix[starts, starts + lengths]
    return {"x": _rounded(found), "y": _rounded(blocks.value.to_numpy(float))}


def _density(x: list, y: list) -> dict:
    """How many blocks lie where: thousands of markers would take a browser too long to redraw."""
    counts, *edges = np.histogram2d(x, y, BINS)
    centres = [_rounded((edge[1:] + edge[:-1]) / 2) for edge in edges]
    shown = np.where(counts, counts, np.nan)
    return {"x": centres[0], "y": centres[1], "z": _rounded(shown.T)}


def _outline(mask: np.ndarray) -> dict:
    return dict(zip("xy", map(_rounded, islands.outline(mask)), strict=True))


def _names(damage: Damage) -> list[str]:
    """The traces of a model, in order: those of damage only where some is shown."""
    return [name for name, (row, _) in TRACES.items() if row < 3 or damage]


def _places(names: list[str], maps: Maps, damage: Damage) -> list[int]:
    """Where these traces of all models stand in the figure."""
    drawn = _names(damage)
    return [i * len(drawn) + drawn.index(name) for i in range(len(maps)) for name in names]


def _table(damage: Damage, name: str) -> pd.DataFrame:
    """A model's damage map, without rows if there is none."""
    table = (damage or {}).get(name, NO_DAMAGE)
    if missing := set(NO_DAMAGE) - set(table):
        raise ValueError(f"The damage map of {name} lacks {', '.join(sorted(missing))}.")
    return table


# ---- texts, axes and colours ----------------------------------------------------------------


def _sentences(size: int, maps: Maps) -> list[str]:
    """What each model's best block of `size` is."""
    told = []
    for distances in maps.values():
        if size < distances.num_layers:
            block = similarity_block(distances, size)
            error = distances.standard_error[block.start, block.stop]
            told.append(
                f"n = {size}: l* = {block.start}, drops range({block.start}, {block.stop})"
                f"<br>d = {distances.of(block):.4f} ± {error:.4f}"
            )
        else:
            told.append(f"n = {size}: the model has {distances.num_layers} layers")
    return told


def _label_axes(drawing: go.Figure, column: int, distances: BlockDistances, rows: int) -> None:
    starts = [-0.5, distances.num_layers - 0.5]
    drawing.update_xaxes(range=starts, row=1, col=column)
    drawing.update_xaxes(range=starts, title="block start l (layer)", row=2, col=column)
    drawing.update_yaxes(range=[0, 1.05 * distances.matrix.max()], row=2, col=column)
    if rows == 3:
        drawing.update_xaxes(title=Y_TITLES[2], row=3, col=column)
    for row in range(1, rows + 1):
        drawing.update_yaxes(title=Y_TITLES[row] if column == 1 else "", row=row, col=column)


def _view(distances: BlockDistances, view: str) -> list[list]:
    """The map [n-1][l], raw or row-normalised."""
    rows = islands.by_size(distances.matrix)
    return _rounded(rows if view == "raw" else islands.rescaled(rows))


def _scale(maps: Maps, view: str) -> dict:
    """The colour scale of a view, one for all maps."""
    if view != "raw":
        return {"cmin": 0, "cmax": 1, "colorbar.title.text": "rescaled<br>distance"}
    highest = max(float(distances.matrix.max()) for distances in maps.values())
    return {"cmin": 0, "cmax": highest, "colorbar.title.text": "distance"}


def _rounded(values: np.ndarray) -> list:
    """As (nested) lists for JSON, with None for NaN."""
    values = np.round(values, 5)
    return np.where(np.isnan(values), None, values).tolist()
