"""Pictures that sliders change: each shows what its values say; the widget only hands them on."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colors
from matplotlib.figure import Figure

from lib.blocks import BlockDistances
from lib.models import registry
from replication import claims, paths, profiles, sliders
from replication.analysis import islands
from replication.claims import bounds
from replication.figures.style import colour

LAYERS = 8


def made_up() -> BlockDistances:
    """A map of LAYERS layers."""
    shape = (LAYERS + 1, LAYERS + 1)
    values = np.random.default_rng(0).uniform(0.1, 0.5, shape)
    matrix = np.triu(values, 1) + np.triu(values, 1).T
    folds = np.stack([matrix] * 2)
    return BlockDistances(matrix, np.zeros(shape), folds, 16)


@settings(deadline=None, max_examples=10)
@given(n=st.integers(1, LAYERS - 1))
def test_a_curve_is_that_of_its_n_and_the_strip_its_block(n):
    made = made_up()
    strip, axis = sliders.one_curve(made, n).axes
    curve = next(line for line in axis.lines if line.get_marker() == ".")
    np.testing.assert_array_equal(curve.get_ydata(), made.row(n))
    dark = [colors.same_color(bar.get_facecolor(), colour("dropped")) for bar in strip.patches]
    start = made.best_start(n)
    assert np.flatnonzero(dark).tolist() == list(range(start, start + n))
    assert f"{180 * made.row(n).min():.0f}°" in strip.get_title()


def question_cuts(**likelihoods) -> pd.DataFrame:
    """The whole model and cuts of two layers; of each, what it finds of one question's choices."""
    rows = [
        {
            "strategy": strategy,
            "block_size": 0 if strategy == "none" else 2,
            "block_start": 3,
            "choices": [np.array(values), np.array([0.0])],
        }
        for strategy, values in likelihoods.items()
    ]
    return pd.DataFrame(rows)


def test_the_gold_bar_is_the_answer_of_that_cut():
    cuts = question_cuts(none=[-1.0, -5.0], similarity=[-9.0, -4.0])
    question = {"choices": ["yes", "no"], "answer": 0}
    for n, gold, words in ((0, 0, "no layer dropped; the answer (gold) is right"), (2, 1, "wrong")):
        figure = sliders.one_question(cuts, question, "similarity", n)
        (axis,) = figure.axes
        shades = [colors.same_color(bar.get_facecolor(), "goldenrod") for bar in axis.patches]
        assert shades == [index == gold for index in range(2)]
        assert words in figure.get_suptitle()
        assert axis.get_xlim()[0] < -9  # the same at each cut
    assert "layers 3 to 4 dropped" in figure.get_suptitle()
    assert "not measured" in sliders.one_question(cuts, question, "simple", 2).get_suptitle()


def test_a_dose_shows_whole_cut_and_healed():
    rows = []
    for task, values in {"c4": (3.0, 6.0, 5.0, 4.0), "arc_easy": (0.5, 0.3, 0.4, 0.45)}.items():
        columns = {"task": task, "block_size": [0, 4, 4, 4], "steps": [0, 0, 8, 16]}
        treatments = ["unpruned", "unhealed", "healed", "healed"]
        strategies = ["none", "similarity", "similarity", "similarity"]
        columns |= {"treatment": treatments, "strategy": strategies, "value": values}
        rows.append(pd.DataFrame({"model": "m"} | columns))
    doses = pd.concat(rows)
    titles = [axis.get_title() for axis in sliders.one_dose(doses, 4, 8).axes]
    assert titles == ["whole 3.00, cut 6.00, healed 5.00", "whole 0.50, cut 0.30, healed 0.40"]
    later = [axis.get_title() for axis in sliders.one_dose(doses, 4, 16).axes]
    assert [title.split()[-1] for title in later] == ["4.00", "0.45"]


def judged(claim: str, value: float, low: float, high: float):
    return bounds.judged(claim, "tiny-random", "c4", (value, low, high), {"texts": 90})


def test_a_bound_that_stays_turns_nothing_and_one_that_moves_does():
    verdicts = [judged("1", 0.3, 0.25, 0.35)]  # within 0.2 and 0.55
    title = sliders.one_bound(verdicts, "1", "lower", 0).axes[0].get_title(loc="left")
    assert "between 0.2 and 0.55" in title and "no verdict turns" in title
    crossed = sliders.one_bound(verdicts, "1", "lower", 3).axes[0].get_title(loc="left")
    assert "between 0.305 and 0.55" in crossed and "tiny random Llama: cannot tell" in crossed
    beyond = sliders.one_bound(verdicts, "1", "upper", -10).axes[0].get_title(loc="left")
    assert "between 0.2 and 0.2" in beyond and "tiny random Llama: differs" in beyond


@pytest.mark.parametrize("bound", sliders.BOUNDS)
def test_a_claim_with_one_bound_moves_that_one(bound):
    verdicts = [judged("2a", 0.1, 0.05, 0.14)]  # below 0.15
    title = sliders.one_bound(verdicts, "2a", bound, -5).axes[0].get_title(loc="left")
    assert "below 0.1\n" in title and "cannot tell" in title


@settings(deadline=None, max_examples=20)
@given(outside=st.integers(0, 100), dropped=st.integers(0, 80))
def test_what_lies_outside_the_layers_stays(outside, dropped):
    figure = sliders.one_memory(["llama-2-7b"], outside, dropped)
    model, yours = (bar.get_width() for bar in figure.axes[0].patches)
    share, kept = outside / 100, 1 - dropped / 100
    assert yours == pytest.approx(share + (1 - share) * kept)
    layers = registry.num_layers("llama-2-7b")
    assert kept - 0.5 / layers <= model <= 1


def test_the_islands_are_those_of_the_threshold():
    distances = made_up()
    for threshold in (0.05, 0.19):
        figure = sliders.one_threshold({"m": distances}, "m", threshold)
        count = int(islands.regions(distances.matrix, threshold).max()) - islands.BAND
        assert f"{count or 'no'} island" in figure.axes[0].get_title(loc="left")
        line, marked = figure.axes[1].lines
        drawn = dict(zip(*line.get_data(), strict=True))
        assert drawn[threshold] == count and set(marked.get_xdata()) == {threshold}


# ---- the widget -----------------------------------------------------------------------------


def bars(heights: list, shown: str, n: int) -> Figure:
    figure = Figure()
    figure.subplots().bar(range(n), heights[:n])
    return figure


def test_a_slider_hands_its_value_on():
    widget = sliders.slide(bars, [1, 2, 3, 4, 5], shown=["a", "b"], n=range(1, 6))
    assert {name: c.value for name, c in widget.controls.items()} == {"shown": "a", "n": 3}
    before = widget.image.value
    widget.controls["n"].value = 5
    assert widget.image.value != before
    widget.controls["n"].value = 3
    assert widget.image.value == before
    assert not plt.get_fignums()  # or a notebook would show it once more


def test_a_page_without_a_kernel_has_the_picture():
    bundle = sliders.slide(bars, [1, 2], shown=["a"], n=[1, 2])._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_a_job_without_values_to_choose_says_so():
    assert "no n to choose" in sliders.slide(bars, [], shown=["a"], n=[]).data


def test_every_claim_of_the_record_has_its_picture():
    archive = results.archive(paths.RECORDED / profiles.RECORDED)
    verdicts = claims.verdicts(claims.gather(profiles.get(profiles.RECORDED), archive))
    assert len(sliders.with_interval(verdicts)) > 20
    for claim in sliders.with_interval(verdicts):
        title = sliders.one_bound(verdicts, claim, "lower", 0).axes[0].get_title(loc="left")
        assert "no verdict turns" in title, claim
