"""Pictures that sliders change: `slide(figures.figure_islands, maps, threshold=[0.1, 0.2])`.

A picture is a function of tables and of the sliders' values that returns a figure, and computes no
score. A headless run leaves all of them in its notebook, for web pages without a kernel; where
neither moves (GitHub) the first picture stands.
"""

import base64
import os
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown
from ipywidgets import Image, SelectionSlider, VBox
from jinja2 import Template
from matplotlib.figure import Figure

from replication import paths
from replication.figures.style import STYLE, WIDTH, label, png

FIXED = {"savefig.bbox": "standard"}  # one size, so that a picture does not jump
PAGE = Path(__file__).with_name("slider.html.j2")
SCORES = {"arc_easy": "ARC-Easy, accuracy", "c4": "C4 loss, nats"}
MOST_FRAMES = 32  # of a page: each takes a fifth of a second, and 20 kB


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

    def drawn(**values) -> bytes:
        with plt.rc_context(STYLE):
            return png(picture(*tables, **values), **FIXED)

    def draw(_change=None) -> None:
        image.value = drawn(**{name: slider.value for name, slider in sliders.items()})

    draw()
    for slider in sliders.values():
        slider.observe(draw, "value")
    box = VBox([*sliders.values(), image])
    live = box._repr_mimebundle_
    page = {"text/html": embedded(drawn, sliders)} if paths.FRAMES in os.environ else {}
    box._repr_mimebundle_ = lambda **kwargs: (
        live(**kwargs) | page | {"image/png": bytes(image.value)}
    )
    return box


def embedded(drawn: Callable[..., bytes], sliders: dict[str, SelectionSlider]) -> str:
    """Return sliders and all their pictures as HTML that needs no kernel.

    A slider moves as long as there are at most MOST_FRAMES pictures; else it stays at its start.
    """
    moved, fixed, count = {}, {}, 1
    for name, slider in sliders.items():
        is_moved = count * len(slider.options) <= MOST_FRAMES
        count *= len(slider.options) if is_moved else 1
        (moved if is_moved else fixed)[name] = slider.value
    frames = []
    for values in product(*(sliders[name].options for name in moved)):
        chosen = dict(zip(moved, values, strict=True))
        frames.append((chosen, base64.b64encode(drawn(**chosen, **fixed)).decode()))
    template = Template(PAGE.read_text(encoding="utf-8"), autoescape=True)
    return template.render(sliders=sliders, moved=moved, fixed=fixed, frames=frames)


# ---- pictures -------------------------------------------------------------------------------


def one_question(cuts: pd.DataFrame, number: int, question: dict, n: int) -> Figure:
    """Notebook 02: the log-likelihood of each choice of a question after dropping n layers.

    cuts: scores of one model on one task, all with their choices; the question is number `number`
    of it. A panel for each strategy.
    """
    strategies = cuts.strategy[cuts.strategy != "none"].unique()
    figure, axes = plt.subplots(
        1, len(strategies), figsize=(WIDTH, 2.6), sharey=True, squeeze=False
    )
    texts = list(question["choices"])
    texts[question["answer"]] += " (right)"
    lowest = min(choices[number].min() for choices in cuts.choices)
    for axis, strategy in zip(axes[0], strategies, strict=True):
        rows = cuts[(cuts.block_size == n) & cuts.strategy.isin([strategy, "none"])]
        for row in rows.itertuples():
            likelihoods = row.choices[number]
            bars = axis.barh(texts, likelihoods, color="0.75")
            bars[likelihoods.argmax()].set_color("gold")
        axis.set(xlim=(1.05 * lowest, 0), xlabel="log-likelihood (nats)")
        axis.set_title(f"{strategy}, n = {n}" + (": not measured" if rows.empty else ""))
    axes[0, 0].invert_yaxis()
    return figure


def one_dose(doses: pd.DataFrame, n: int, steps: int) -> Figure:
    """Notebook 03: what so many steps of healing bring back, after dropping n layers by similarity.

    doses: the scores of one model in measure/dose.py.
    """
    tasks = doses.task.unique()
    figure, axes = plt.subplots(1, len(tasks), figsize=(WIDTH, 2.8), squeeze=False)
    figure.suptitle(f"{label(doses.model.iloc[0])}, n = {n}, {steps} steps", fontsize=9)
    is_plain = doses.strategy.isin(["none", "similarity"]) & (doses.treatment != "control")
    plain = doses[is_plain]
    chosen = plain[plain.block_size.isin([0, n]) & plain.steps.isin([0, steps])]
    for axis, task in zip(axes[0], tasks, strict=True):
        scores = chosen[chosen.task == task]
        bars = axis.bar(scores.treatment, scores.value, yerr=scores.standard_error, color="0.7")
        axis.bar_label(bars, fmt="%.2f", label_type="center")
        highest = plain.value[plain.task == task].max()  # the same whatever n and steps are
        axis.set(title=SCORES.get(task, task), ylim=(0, 1.1 * highest))
    return figure
