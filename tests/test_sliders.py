"""Pictures that sliders change: each shows what its values say."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib import colors

from replication.figures.style import colour
from replication.show import sliders


@pytest.mark.parametrize("size, gold", [(0, [True, False]), (2, [False, True])])
def test_the_gold_bar_is_the_answer_of_that_cut(size, gold):
    cuts = pd.DataFrame({"strategy": ["none", "similarity"], "block_size": [0, 2]})
    cuts["choices"] = [[np.array([-1.0, -5.0])], [np.array([-9.0, -4.0])]]  # of one question
    question = {"choices": ["yes", "no"], "answer": 0}
    (axis,) = sliders.one_question(cuts, question, "similarity", size).axes
    colours = [bar.get_facecolor() for bar in axis.patches]
    assert [colors.same_color(each, colour("given")) for each in colours] == gold
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["yes (right)", "no"]
    plt.close("all")


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
