"""Pictures that sliders change: `slide(figures.figure_islands, maps, threshold=[0.1, 0.2])`.

A picture is a function of tables and of the sliders' values that returns a figure, and computes no
score. Where there is no kernel (GitHub, a web page) the first picture stands.
"""

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown
from ipywidgets import Image, SelectionSlider, VBox
from matplotlib.figure import Figure

from replication.figures.style import STYLE, WIDTH, colour, png

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
