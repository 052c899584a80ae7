"""Pictures that sliders change: each shows what its values say."""

import matplotlib.pyplot as plt

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
