"""Pictures that sliders change: each shows what its values say."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib import colors

from replication import paths
from replication.show import sliders


def test_a_slider_draws_the_picture_of_its_values_and_leaves_one_without_a_kernel():
    drawn = []

    def picture(n: int, cut: str):
        drawn.append((n, cut))
        return plt.figure(figsize=(0.2, 0.2))

    box = sliders.slide(picture, n=[1, 2, 3], cut=["a", "b"])
    first, *_ = box.children
    first.value = 3
    assert drawn == [(2, "a"), (3, "a")]
    assert box._repr_mimebundle_()["image/png"].startswith(b"\x89PNG")
    assert "no n to choose" in sliders.slide(picture, n=[]).data


def test_a_run_leaves_every_picture_of_a_slider(monkeypatch):
    """Without a kernel; a second slider that makes too many pictures stays at its start."""
    drawn = []

    def picture(n: int, cut: str):
        drawn.append((n, cut))
        return plt.figure(figsize=(0.2, 0.2))

    assert "text/html" not in sliders.slide(picture, n=[1], cut=["a"])._repr_mimebundle_()
    monkeypatch.setenv(paths.FRAMES, "1")
    monkeypatch.setattr(sliders, "MOST_FRAMES", 5)
    drawn.clear()
    html = sliders.slide(picture, n=[1, 2, 3], cut=["a", "b"])._repr_mimebundle_()["text/html"]
    assert drawn == [(2, "a"), (1, "a"), (2, "a"), (3, "a")]  # first, where a reader begins
    hidden = ["hidden" in frame for frame in html.split("<img")[1:]]
    assert hidden == [True, False, True]
    assert "cut: a." in html


@pytest.mark.parametrize(("n", "gold"), [(0, [0, 0]), (2, [1, 2])])
def test_the_gold_bar_is_the_answer_of_that_cut(n, gold):
    def row(strategy, size, *choices):
        return {"strategy": strategy, "block_size": size, "choices": [np.zeros(3), choices]}

    whole, similar = row("none", 0, -1, -2, -3), row("similarity", 2, -3, -1, -2)
    cuts = pd.DataFrame([whole, similar, row("simple", 2, -3, -2, -1)])
    cuts["choices"] = [[np.array(of) for of in choices] for choices in cuts.choices]
    question = {"choices": [" a", " b", " c"], "answer": 1}
    figure = sliders.one_question(cuts, 1, question, n)
    yellow = colors.to_rgba("gold")
    shown = [[bar.get_facecolor() for bar in axis.patches].index(yellow) for axis in figure.axes]
    assert shown == gold
    plt.close("all")


@pytest.mark.parametrize("steps", [4, 8])
def test_a_dose_shows_the_scores_of_its_steps(steps):
    columns = ["task", "strategy", "treatment", "block_size", "steps", "value"]
    rows = [
        ("c4", "none", "unpruned", 0, 0, 3.0),
        ("c4", "none", "control", 0, steps, 2.9),
        ("c4", "similarity", "unhealed", 2, 0, 6.0),
        ("c4", "similarity", "unhealed", 3, 0, 9.0),
        ("c4", "similarity", "healed", 2, 4, 5.4),
        ("c4", "similarity", "healed", 2, 8, 5.8),
        ("c4", "simple", "healed", 2, steps, 7.0),
    ]
    doses = pd.DataFrame(rows, columns=columns).assign(standard_error=0.1, model="smollm2-135m")
    (axis,) = sliders.one_dose(doses, 2, steps).axes
    heights = [bar.get_height() for bar in axis.patches]
    assert heights == [3.0, 6.0, {4: 5.4, 8: 5.8}[steps]]
    plt.close("all")
