"""Pictures that sliders change: `slide(figures.figure_islands, maps, threshold=[0.1, 0.2])`.

A picture is a function of tables and of the sliders' values that returns a figure, and computes no
score. A headless run leaves all of them in its notebook, for web pages without a kernel; elsewhere
without one (GitHub) the first picture stands.
"""

import base64
import os
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown
from ipywidgets import SelectionSlider
from jinja2 import Template
from matplotlib.figure import Figure

from replication import paths
from replication.figures.style import STYLE, WIDTH, colour, png

PAGE = Path(__file__).with_name("slider.html.j2")
MOST_FRAMES = 64  # of a page
COLOURS = 48  # of a picture, so that a page with all of them is small


def slide(picture: Callable[..., Figure], *tables, **choices: Sequence):
    """Return `picture(*tables, **values)` below a slider for each of `choices`.

    It is at the middle of numbers, at the first of words. Where there is nothing to choose from, as
    in the job of one depth, a sentence says so.
    """
    image, controls = ipywidgets.Image(format="png"), {}
    for name, values in choices.items():
        if not len(values):
            return Markdown(f"Nothing of this was measured here: no {name} to choose.")
        start = values[0 if isinstance(values[0], str) else len(values) // 2]
        controls[name] = SelectionSlider(options=values, value=start, description=name)

    def drawn(**chosen) -> bytes:
        with plt.rc_context(STYLE):
            return png(picture(*tables, **chosen), COLOURS)

    def draw(_change=None) -> None:
        image.value = drawn(**{name: control.value for name, control in controls.items()})

    draw()
    for control in controls.values():
        control.observe(draw, "value")
    box = ipywidgets.VBox([*controls.values(), image])
    bundle = box._repr_mimebundle_
    page = {"text/html": embedded(drawn, controls)} if paths.FRAMES in os.environ else {}
    box._repr_mimebundle_ = lambda **kwargs: (
        bundle(**kwargs) | page | {"image/png": bytes(image.value)}
    )
    return box


def embedded(drawn: Callable[..., bytes], controls: dict[str, SelectionSlider]) -> str:
    """Return sliders and all their pictures as HTML that needs no kernel.

    A slider moves as long as there are at most MOST_FRAMES pictures; else it stays at its start.
    """
    moved, fixed, count = {}, {}, 1
    for name, control in controls.items():
        count *= len(control.options)
        (moved if count <= MOST_FRAMES else fixed)[name] = control.value
    frames = []
    for values in product(*(controls[name].options for name in moved)):
        chosen = dict(zip(moved, values, strict=True))
        content = base64.b64encode(drawn(**chosen, **fixed)).decode()
        frames.append((chosen, content))
    template = Template(PAGE.read_text(encoding="utf-8"), autoescape=True)
    return template.render(controls=controls, moved=moved, fixed=fixed, frames=frames)


# ---- pictures -------------------------------------------------------------------------------


def one_question(cuts: pd.DataFrame, question: dict, cut: str, n: int) -> Figure:
    """Notebook 02: the log-likelihood of each choice of a question after dropping n layers.

    cuts: the scores of one model on the task whose first question it is, all with their choices.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 2.6))
    texts = list(question["choices"])
    texts[question["answer"]] += " (right)"
    is_cut = (cuts.block_size == n) & cuts.strategy.isin([cut, "none"])
    for row in cuts[is_cut].itertuples():
        likelihoods = row.choices[0]
        bars = axis.barh(texts, likelihoods, color="0.75")
        bars[likelihoods.argmax()].set_color(colour("given"))
    lowest = min(choices[0].min() for choices in cuts.choices)
    axis.set(xlim=(1.05 * lowest, 0), xlabel="log-likelihood (nats): nearer to 0 is likelier")
    axis.invert_yaxis()
    axis.set_title(f"{cut}, n = {n}" if axis.patches else f"{cut}, n = {n}: not measured")
    return figure
