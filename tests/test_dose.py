"""Dose and response: the gap that is left is that of the data; the figure is drawn from a run."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from replication import figures, paths, profiles
from replication.beyond import dose
from replication.measure import distance_maps, scores

TOKENS = np.array([16, 32, 64, 128, 256, 512]) * 1024


def loss(tokens, end=3.0, exponent=0.5):
    return end + 200 * np.asarray(tokens, float) ** -exponent


def doses(n=60, chance=10.8, **ends) -> pd.DataFrame:
    """Falling losses, a line a strategy, the same noise of texts on each point; unhealed at 0."""
    noise = np.random.default_rng(0).normal(0, 0.2, n)
    rows = []
    for strategy, end in ends.items():
        for tokens in (0, *TOKENS):
            examples = (loss(tokens, end) if tokens else 15.0 - (strategy != "simple") * 8) + noise
            told = {"model": "m", "task": "c4", "strategy": strategy, "block_size": 6, "n": n}
            told |= {"treatment": "healed" if tokens else "unhealed", "chance": chance}
            told |= {"tokens": tokens, "value": examples.mean(), "examples": examples}
            rows.append(told | {"weights": np.ones(n)})
    return pd.DataFrame(rows)


def test_the_gap_is_a_share_of_what_the_cuts_leave_up_to_chance():
    found = dose.gap_left(doses(similarity=3.0, simple=3.4)).set_index("tokens")
    assert found.gap[0] == pytest.approx(10.8 - doses(similarity=3.0).value[0], abs=0.01)
    assert found.gap[TOKENS[-1]] == pytest.approx(0.4)
    assert found.share[TOKENS[-1]] == pytest.approx(0.4 / found.gap[0])
    assert found.share[0] == 1


def test_where_simple_pruning_is_the_better_cut_there_is_no_share():
    told = doses(similarity=3.0, simple=3.4)
    swapped = told.strategy.map({"similarity": "simple", "simple": "similarity"})
    found = dose.gap_left(told.assign(strategy=swapped))
    assert found.gap.notna().all() and found.share.isna().all() and found.share_low.isna().all()


def test_a_run_is_measured_and_drawn(output):
    profile = profiles.get("smoke", limit=4)
    maps, profile = distance_maps.measure(profile)
    table = scores.score_table(maps, dose.requests, profile)
    assert set(table.treatment) == {"unpruned", "unhealed", "healed", "control"}
    assert set(table.steps) == {0, *profile.dose_steps} and table.value.notna().all()
    assert (table.tokens == table.steps * profile.heal_batch * profile.heal_tokens).all()
    dose.figure_dose(table, dose.gap_left(table), profile)
    drawn = pd.read_csv(paths.FIGURES / "smoke" / "figure_dose.csv")
    assert drawn.gap.notna().any()
    other_depth = replace(profile, sizes=(4,))  # a job of a depth where nothing is dosed
    table = scores.score_table(maps, dose.requests, other_depth)
    assert set(table.treatment) == {"unpruned"}
    dose.figure_dose(table, dose.gap_left(table), other_depth)
    assert scores.score_table({"other": maps["tiny-random"]}, dose.requests, profile).empty


def test_every_training_is_drawn_step_by_step(output):
    profile = profiles.get("smoke", limit=4)
    maps, profile = distance_maps.measure(profile)
    went = scores.healings(maps, profile)
    lengths = {(row.strategy, row.block_size, row.steps) for row in went.itertuples()}
    dosed = {(s, n, steps) for s, n, steps in lengths if steps in profile.dose_steps}
    assert {s for s, *_ in dosed} == {"similarity", "simple", "none"}
    assert len(lengths) == len(went)  # none twice, although the longest dose is one of figure 1d
    healed = profile.healed_sizes(maps["tiny-random"].num_layers)
    assert {n for _, n, steps in lengths if steps == profile.heal_steps} == {0, *healed}
    assert [len(losses) for losses in went.losses] == went.steps.tolist()
    figure = figures.figure_training(went, profile)
    drawn = pd.read_csv(paths.FIGURES / "smoke" / "figure_training.csv")
    assert len(drawn) == went.steps.sum()
    assert drawn.loss.tolist() == pytest.approx(sum(went.losses, []))
    (axis,) = figure.axes
    cuts = went.groupby(["strategy", "block_size"]).ngroups
    assert len(axis.lines) == len(went) + cuts  # each step; the mean of the longest of a cut
    shown = {text for text in axis.get_legend_handles_labels()[1]}
    assert {"the rate rises", "the rate falls", "nothing dropped"} < shown


def test_training_is_smoothed_and_the_rate_is_marked(output, monkeypatch):
    """Deeper is darker; a healing that is not measured has no line; the mean is of its own line."""
    cut = {"model": "m", "block_start": 1, "status": "ok", "warmup_steps": 4}
    rows = [
        cut | {"strategy": "simple", "block_size": n, "losses": [float(n)] * 96} for n in (2, 4)
    ]
    rows.append(cut | {"strategy": "none", "block_size": 0, "losses": [1.0, 4.0, 1.0] * 32})
    rows = [row | {"steps": 96, "decay_steps": 24} for row in rows]
    rows.append(rows[0] | {"block_size": 5, "losses": [], "status": "not measured"})
    monkeypatch.setattr(plt, "close", lambda *_: None)
    figure = figures.figure_training(pd.DataFrame(rows), profiles.get("smoke"))
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 96]
    means = {line.get_label(): line for line in lines if not line.get_label().startswith("_")}
    assert set(means) == {"simple, $n$ = 2", "simple, $n$ = 4", "nothing dropped"}
    assert means["simple, $n$ = 2"].get_ydata() == pytest.approx(2)  # not mixed with the next line
    assert means["nothing dropped"].get_ydata()[1:-1] == pytest.approx(2)  # of three steps
    light = [sum(means[f"simple, $n$ = {n}"].get_color()) for n in (2, 4)]
    assert light[0] > light[1]
    spans = [
        p.get_extents().transformed(figure.axes[0].transData.inverted())
        for p in figure.axes[0].patches
    ]
    assert {(round(s.x0), round(s.x1)) for s in spans} == {(1, 4), (72, 96)}
    table = pd.read_csv(paths.FIGURES / "smoke" / "figure_training.csv")
    assert table[table.status != "ok"].loss.isna().all() and len(table) == 3 * 96 + 1
    plt.close(figure)
