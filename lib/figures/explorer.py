"""Distance maps to explore: in JupyterLab with widgets, or as one HTML file that works offline.

Both show the figure of `mapview`, and make the same changes in it: the one by widgets, as they are
asked for, the other by plotly's own slider and buttons, which hold all changes beforehand.
"""

from pathlib import Path

import ipywidgets as widgets
import plotly.graph_objects as go

from lib import paths
from lib.analysis import islands
from lib.figures import mapview
from lib.figures.mapview import Damage, Maps
from lib.models import registry
from lib.profiles import Profile

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>
body {{font-family: sans-serif}} h1 {{font-size: 1.3em}}
.wide {{overflow-x: auto}} .plot {{min-width: 800px}}
table {{border-collapse: collapse; font-size: 0.85em}} td, th {{padding: 0.1em 0.5em}}
</style></head><body>
<h1>{title}</h1>
<p>Yellow blocks are similar. Black dots: the best start l*(n) of each size; black outline: the deep
band; red outline: islands (rescaled distance of at most {threshold}, sizes up to half the
layers). Move the slider to another size; point at a block to see what it would drop.</p>
<div class="wide"><div class="plot">{plot}</div></div>
<h2>Islands</h2>
<div class="wide">{islands}</div>
</body></html>
"""


def explore(maps: Maps, damage: Damage = None) -> widgets.VBox:
    """The explorer for JupyterLab: maps side by side, raw or row-normalised, a slider for n.

    damage: for some of the models a table of blocks (block_start, block_size, and as value the
    damage that dropping the block does), which is then shown against the distance.
    """
    drawing = go.FigureWidget(mapview.figure(maps, damage))
    first, last = mapview.sizes(maps)
    size = widgets.IntSlider(first, 1, last, description="block size n", layout={"width": "50%"})
    view = widgets.ToggleButtons(options=mapview.VIEWS)
    for control, change in ((size, mapview.at_size), (view, mapview.in_view)):

        def update(event, change=change):
            drawing.plotly_update(*change(event["new"], maps, damage))

        control.observe(update, "value")
    return widgets.VBox([widgets.HBox([size, view]), drawing])


def save_html(maps: Maps, profile: Profile, damage: Damage = None) -> Path:
    """Write the explorer as figures/<profile>/explorer.html: one file, no network, no kernel."""
    drawing = mapview.figure(maps, damage).update_layout(_controls(maps, damage))
    options = {"responsive": True, "displaylogo": False}
    found = islands.tabled(maps)
    table = found.to_html(index=False, border=0, float_format="{:.4g}".format)
    page = PAGE.format(
        title="Distance maps: " + " and ".join(map(registry.label, maps)),
        plot=drawing.to_html(full_html=False, include_plotlyjs=True, config=options),
        threshold=islands.THRESHOLD,
        islands=table if len(found) else "<p>None.</p>",
    )
    file = paths.FIGURES / profile.name / "explorer.html"
    paths.write_whole(file, page.encode())
    return file


def _controls(maps: Maps, damage: Damage) -> dict:
    """Plotly's own slider and buttons, as entries of a layout."""
    first, last = mapview.sizes(maps)

    def entry(label, change: list) -> dict:
        return {"label": str(label), "method": "update", "args": change}

    steps = [entry(n, mapview.at_size(n, maps, damage)) for n in range(1, last + 1)]
    buttons = [entry(view, mapview.in_view(view, maps, damage)) for view in mapview.VIEWS]
    shown = {"prefix": "block size n = "}
    place = {"x": 0, "y": 1.1, "xanchor": "left", "yanchor": "bottom", "direction": "right"}
    return {
        "sliders": [{"steps": steps, "active": first - 1, "currentvalue": shown, "pad": {"t": 60}}],
        "updatemenus": [{"buttons": buttons, "type": "buttons"} | place],
    }
