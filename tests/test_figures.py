"""What figures show: lines, marks, bars; read back from what is drawn."""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import Distances

from lib.blocks import BlockDistances
from replication import figures, measure, paths, profiles, tables
from replication.beyond import depth_probe, dose, letters, panels, repair
from replication.figures.curves import in_units_of_chance

CHANCE = {"mmlu": 0.25, "arc_easy": 0.25, "boolq": 0.5, "c4": 10.0}
UNPRUNED = {"mmlu": 0.3, "arc_easy": 0.6, "boolq": 0.8, "c4": 3.0}  # MMLU: no signal


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def scores(treatments=("unhealed", "healed")) -> pd.DataFrame:
    """Return every task, unpruned and at two depths of both strategies and each treatment."""
    cuts = [("none", "unpruned", 0)]
    cuts += product(("similarity", "simple"), treatments, (8, 16))
    rows = [
        {
            "task": task,
            "strategy": strategy,
            "treatment": treatment,
            "block_size": size,
            "fraction": size / 32,
            "chance": CHANCE[task],
            "value": UNPRUNED[task] * (0.7 if size else 1),
        }
        for task, (strategy, treatment, size) in product(UNPRUNED, cuts)
    ]
    fixed = {"model": "qwen-7b", "standard_error": 0.02, "n": 500, "shots": 5}
    return pd.DataFrame(rows).assign(majority=np.nan, status="ok", **fixed)


def test_only_losses_are_drawn_in_units_of_chance():
    table = in_units_of_chance(scores()[lambda rows: rows.block_size == 0])
    assert table.value.tolist() == [0.3, 0.6, 0.8, 0.3]
    assert table.standard_error.tolist() == [0.02, 0.02, 0.02, 0.002]


@pytest.mark.parametrize(
    "status, gaps", [("not measured", [False, False]), ("diverged", [False, True, False])]
)
def test_a_line_passes_what_nobody_measured_and_breaks_where_measuring_failed(status, gaps):
    table = scores(treatments=["unhealed"]).assign(status="ok")
    missing = (table.block_size == 8) & (table.strategy == "similarity")
    table.loc[missing, "value"] = np.nan
    table.loc[missing, "status"] = status
    table.loc[missing, "n"] = 0
    (axis,) = figures.figure_6(table).axes
    assert axis.get_title("right") == "n = 500"
    line = next(line for line in axis.lines if line.get_linestyle() == ":")
    drawn = np.asarray(line.get_ydata(), float)
    assert np.isnan(drawn).tolist() == gaps


# ---- what is drawn, read back ----------------------------------------------------------------


def test_the_best_starts_are_marked_where_blocks_are_most_similar():
    start, stop = np.mgrid[:9, :9]
    matrix = 0.01 * (stop - start) + 0.3 * (start == 0)
    matrix = np.triu(matrix, 1)
    matrix[3, 5] = 0.001
    distances = BlockDistances(matrix, 0.01 * matrix, np.stack([matrix] * 4), 24)
    sizes = range(1, distances.num_layers)
    starts = [distances.best_start(size) for size in sizes]
    (dots,) = figures.figure_4({"tiny-random": distances}).axes[0].lines
    assert dots.get_ydata().tolist() == list(sizes)
    assert dots.get_xdata().tolist() == starts
    lines = figures.figure_1c("tiny-random", distances, 7).axes[0].lines
    (best,) = [line for line in lines if line.get_label().startswith("best start")]
    assert list(best.get_xdata()) == starts
    assert list(best.get_ydata()) == [distances.row(size).min() for size in sizes]


def test_a_line_does_not_pass_a_size_that_was_not_measured():
    """And the lines of one size stand side by side, the whole model in every column."""
    sizes = {"none": [0], "similarity": [1, 3], "early exit": [1, 2]}
    rows = [
        {"row": "nats", "column": strategy, "line": line, "block_size": size, "value": size + 1.0}
        for strategy, line in product(sizes, ("first", "second"))
        for size in sizes[strategy]
    ]
    drawn = pd.DataFrame(rows).assign(model="m", standard_error=0.1, n=9)
    drawn["column"] = drawn.column.where(drawn.block_size > 0)
    looks = {"first": {"marker": "o"}, "second": {"marker": "s"}}
    similar, early = panels.cut_panels(drawn, looks, drawn).axes
    first, second = (container.lines[0] for container in similar.containers)
    assert first.get_ydata().astype(float) == pytest.approx([1, 2, np.nan, 4], nan_ok=True)
    assert first.get_xdata()[1] < 1 < second.get_xdata()[1]
    assert early.containers[0].lines[0].get_ydata().astype(float) == pytest.approx([1, 2, 3])


def test_a_single_healed_point_is_a_mark():
    table = scores()
    single = (table.treatment == "healed") & (table.block_size == 16)
    table.loc[single, "value"] = np.nan
    (axis,) = figures.figure_6(table.assign(status="not measured")).axes
    (healed,) = [
        line for line in axis.lines if line.get_linestyle() == "-" and len(line.get_xdata())
    ]
    assert list(healed.get_xdata()) == [0.25]


def test_bars_are_as_long_as_the_key_says():
    figure = figures.figure_6(scores())
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "bars: ±1 s.e."
    (axis,) = figure.axes
    bars = [bar for container in axis.containers for bar in container.lines[2]]
    ends = [segment[:, 1] for bar in bars for segment in bar.get_segments()]
    assert len(ends) > 2
    assert np.diff(ends, axis=1) == pytest.approx(2 * 0.02)


def test_the_line_of_the_layers_left_falls_with_the_fraction_dropped():
    rows = [
        {"task": task, "fraction": fraction, "ratio": 1 - fraction}
        for task in ("weights", "prefill", "decode")
        for fraction in (0.0, 0.25, 0.75)
    ]
    fixed = {"model": "m", "quantization": None, "dtype": "float32", "status": "ok"}
    table = pd.DataFrame(rows).assign(value=2.0, n=3, **fixed)
    table[["low", "high", "ratio_low", "ratio_high"]] = np.nan
    lines = [line for axis in figures.figure_cost(table).axes for line in axis.lines]
    left = [line for line in lines if line.get_label() == "layers left"]
    assert len(left) == 3
    for line in left:
        assert line.get_xydata().tolist() == [[0, 1], [0.75, 0.25]]


def test_seeds_of_one_cut_and_two_lengths_of_healing_are_not_crossed():
    """And a seed that scores more than the first is drawn above 0, beside the scores."""
    rows = [
        ("seeds", "seed 0", 512, "healed", 1.0),
        ("seeds", "seed 1", 512, "healed", 1.25),
        ("seeds", "unhealed", 0, "unhealed", 4.0),
        ("more seeds", "seed 0", 64, "healed", 2.0),
        ("more seeds", "seed 1", 64, "healed", 2.5),
        ("more seeds", "unhealed", 0, "unhealed", 4.0),
    ]
    columns = ["ablation", "variant", "steps", "treatment", "value"]
    table = pd.DataFrame(rows, columns=columns)
    fixed = {"block_size": 2, "fraction": 0.2, "n": 4, "standard_error": 0.1, "chance": 10.0}
    table = table.assign(model="m", task="c4", strategy="similarity", status="ok", **fixed)
    table["examples"] = [np.full(4, value) for value in table.value]
    table["weights"] = [np.ones(4)] * len(table)
    figure = figures.figure_8(table)
    assert figure.table.difference.fillna(0).tolist() == [0, 0.25, 3, 0, 0.5, 2]
    (_, differences) = figure.axes
    assert differences.containers[0].lines[0].get_ydata().tolist() == [0.25, 0.5]


def cuts(**lines) -> pd.DataFrame:
    """MMLU by letter of one model: the score of 1, 2, … layers dropped, of 10, by strategy."""
    whole = {"strategy": "none", "block_size": 0, "value": 0.5, "commonest": 0.3}
    rows = [whole]
    for strategy, values in lines.items():
        for size, value in enumerate(values, start=1):
            row = {"strategy": strategy.replace("_", " "), "block_size": size, "value": value}
            rows.append(row | {"commonest": 1.0 if value < 0.3 else 0.3})
    table = pd.DataFrame(rows).assign(model="qwen-7b", task="mmlu", shots=5, n=500, chance=0.25)
    treatment = np.where(table.block_size > 0, "unhealed", "unpruned")
    more = {"fraction": table.block_size / 10, "standard_error": 0.02, "majority": 0.25}
    return table.assign(treatment=treatment, **more)


FALLS = [0.4, 0.35, 0.3, 0.3, 0.3]


def test_the_model_with_most_to_lose_is_shown():
    weak, strong = cuts(similarity=FALLS), cuts(similarity=FALLS).assign(model="phi-2")
    weak.loc[weak.block_size == 0, "value"] = 0.3
    assert set(letters.clearest(pd.concat([weak, strong]), ["model"]).model) == {"phi-2"}
    unmeasured = strong.assign(value=strong.value.where(strong.block_size == 0))
    assert set(letters.clearest(pd.concat([weak, unmeasured]), ["model"]).model) == {"qwen-7b"}


def test_a_run_of_which_only_the_map_is_left_is_drawn_as_not_measured(output, monkeypatch):
    """As where each job failed: the last pass only draws, and must get through."""
    maps, profile = {"tiny-random": Distances()}, profiles.get("smoke", limit=4)
    monkeypatch.setenv(paths.DRAW_ONLY, "1")
    drawn = [figures.figure_training(measure.table(dose.trainings, maps, profile))]
    doses = measure.table(dose.doses, maps, profile)
    drawn.append(dose.figure_dose(doses))
    forms = measure.table(letters.forms, maps, profile)
    drawn.append(letters.figure_letters(forms))
    drawn.append(letters.figure_cuts(measure.table(letters.exits, maps, profile), forms))
    drawn.append(depth_probe.figure_depth(measure.table(depth_probe.depths, maps, profile)))
    drawn.append(repair.figure_repair(measure.table(repair.linear_maps, maps, profile)))
    for figure in drawn:
        assert figure.table.status.eq(tables.NotMeasured.status).all()
