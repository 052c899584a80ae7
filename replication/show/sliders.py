"""Pictures that sliders change: `slide(figures.figure_islands, maps, threshold=[0.1, 0.2])`.

A picture is a function of tables and of the sliders' values that returns a figure, and computes no
score. Where there is no kernel (GitHub, a web page) the first picture stands.
"""

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
from IPython.display import Markdown
from ipywidgets import Image, SelectionSlider, VBox
from matplotlib.figure import Figure

from replication.figures.style import STYLE, png

FIXED = {"savefig.bbox": "standard"}  # one size, so that a picture does not jump


def slide(picture: Callable[..., Figure], *tables, **choices: Sequence) -> VBox | Markdown:
    """Return `picture(*tables, **values)` below a slider for each of `choices`.

    It is at the middle of numbers, at the first of words. Where there is nothing to choose from, as
    in the job of one depth, a sentence says so.
    """
    image, sliders = Image(format="png"), {}
    for name, values in choices.items():
        if not len(values):
            return Markdown(f"Nothing of this was measured here: no {name} to choose.")
        start = values[0 if isinstance(values[0], str) else len(values) // 2]
        sliders[name] = SelectionSlider(options=values, value=start, description=name)

    def draw(_change=None) -> None:
        values = {name: slider.value for name, slider in sliders.items()}
        with plt.rc_context(STYLE):
            image.value = png(picture(*tables, **values), **FIXED)

    draw()
    for slider in sliders.values():
        slider.observe(draw, "value")
    box = VBox([*sliders.values(), image])
    live = box._repr_mimebundle_
    box._repr_mimebundle_ = lambda **kwargs: live(**kwargs) | {"image/png": bytes(image.value)}
    return box
