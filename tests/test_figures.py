"""What figures show: lines, marks, bars; read back from what is drawn."""

from itertools import combinations, product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import Distances, note_above, score
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from lib import storage
from lib.blocks import BlockDistances
from lib.models import registry
from replication import figures, measure, paths, profiles, tables
from replication.beyond import last_layers, letters, repair
from replication.beyond.letters import depth_probe, option_ends, route, transplant
from replication.figures import curves, panels, style
from replication.measure import dose


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("name", "2 2_arc_easy 3 6 7 8 9 beyond".split())
def test_a_figure_of_a_model_without_rows_says_so(name):
    tables_of = {"7": "prompts", "8": "seeds", "9": "ranks", "beyond": "reasoning"}
    table = tables.read(
        tables_of.get(name, "unhealed"), profiles.get(profiles.DRAW_ONLY_PROFILE), []
    )
    figure = getattr(figures, f"figure_{name}")(table)
    assert [text.get_text() for text in figure.texts] == ["nothing of this is measured yet"]


def test_what_is_left_out_stands_above_the_picture():
    """What a model cannot answer even whole, and what has failed."""
    columns = {"task": "mmlu", "value": np.nan, "n": 0, "chance": 0.25}
    futile = "no answer: 60 questions do not tell the whole model from its floor"
    rows = [score(size, 0, **columns, status=futile) for size in (0, 4)]
    rows += [score(4, 0, **columns | {"task": "boolq"}, status="oom")]
    assert curves.left_out(pd.DataFrame(rows)).splitlines() == [
        "Not drawn: MMLU by letter of m: 60 questions do not tell the whole model from its floor.",
        "Not drawn: BoolQ of m: oom.",
    ]


@pytest.mark.parametrize(
    "status, gaps", [("not measured", [False, False]), ("diverged", [False, True, False])]
)
def test_a_line_passes_what_nobody_measured_and_breaks_where_measuring_failed(status, gaps):
    fixed = {"task": "boolq", "chance": 0.5, "majority": 0.6, "shots": 5, "status": "ok"}
    table = pd.DataFrame([score(size, 90, **fixed) for size in (0, 4, 8)])
    table.loc[1, ["value", "status", "n"]] = np.nan, status, 0
    (axis,) = figures.figure_6(table).axes
    assert axis.get_title("right") == "n = 100"
    dotted = [line for line in axis.lines if line.get_linestyle() == ":"]
    drawn = np.asarray(dotted[0].get_ydata(), float)
    assert np.isnan(drawn).tolist() == gaps


# ---- what is drawn, read back ----------------------------------------------------------------


def test_the_best_starts_are_marked_where_blocks_are_most_similar():
    start, stop = np.mgrid[:9, :9]
    distance = 0.01 * (stop - start) + 0.3 * (start == 0)
    matrix = np.triu(distance, 1)
    matrix[3, 5] = 0.001
    distances = BlockDistances(matrix, 0.01 * matrix, np.stack([matrix] * 4), 24)
    sizes = range(1, distances.num_layers)
    starts = [distances.best_start(size) for size in sizes]
    (axis, *_) = figures.figure_4({"tiny-random": distances}).axes
    (dots,) = axis.lines
    assert dots.get_ydata().tolist() == list(sizes)
    assert dots.get_xdata().tolist() == starts


def test_a_line_does_not_pass_a_size_that_was_not_measured():
    """Where another line does, and the lines of one size stand side by side, the whole model in
    every column."""
    sizes = {"none": [0], "similarity": [1, 3], "early exit": [1, 2]}
    rows = [
        {"row": "nats", "column": strategy, "line": line, "block_size": size, "value": size + 1.0}
        for strategy, line in product(sizes, ("first", "second"))
        for size in sizes[strategy]
    ]
    rows.append(rows[-1] | {"column": "similarity"})  # of the second line, size 2
    drawn = pd.DataFrame(rows).assign(model="m", standard_error=0.1, n=9)
    drawn = drawn.assign(treatment="unpruned", chance=0.2, floor=0.3, majority=0.3, task="mmlu")
    drawn["column"] = drawn.column.where(drawn.block_size > 0)
    looks = {"first": {"marker": "o"}, "second": {"marker": "s"}}
    similar, early = panels.cut_panels(drawn, looks, drawn).axes
    first, second = (container.lines[0] for container in similar.containers)
    gap = [1, 2, np.nan, 4]
    np.testing.assert_array_equal(first.get_ydata().astype(float), gap)
    assert first.get_xdata()[1] < 1 < second.get_xdata()[1]
    of_exit = early.containers[0].lines[0]
    assert of_exit.get_ydata().tolist() == [1, 2, 3]
    assert {"chance", "floor"} < {line.get_label() for line in early.lines}


QUICK, RECORDED = profiles.get("quick"), profiles.get("recorded")
OF_TABLES = {  # figures that draw scores, and the tables of each
    **{name: ("unhealed", "healed") for name in "1d 2 2_arc_easy 3 5 6".split()},
    **{"7": ("prompts",), "8": ("seeds",), "9": ("ranks",), "beyond": ("reasoning",)},
    **{"letters": ("forms",), "cuts": ("exits", "forms"), "last_layers": ("last_layers", "exits")},
    **{"repair": ("linear_maps",), "dose": ("doses",)},
    **{"options": ("option_ends",), "transplants": ("transplants",)},
}
MODULES = (figures, letters, last_layers, repair, option_ends, transplant)


def drawn_beside_record(name: str, own) -> Figure:
    """Return a figure of scores as `quick` draws it; own: the run's rows of a recorded table."""
    tabs = [
        tables.with_record(own(tables.read(table, RECORDED)), QUICK, table)
        for table in OF_TABLES[name]
    ]
    if OF_TABLES[name][0] == "unhealed":
        tabs = [pd.concat(tabs, ignore_index=True)]
    of_models = [QUICK.shown_models] if name in ("1d", "5") else []
    draw = [getattr(of, f"figure_{name}") for of in MODULES if hasattr(of, f"figure_{name}")]
    return draw[0](*tabs, *of_models)


@pytest.mark.parametrize("name", OF_TABLES)
def test_without_a_point_of_the_run_the_record_is_drawn_in_full_and_it_is_said_once(name):
    figure = drawn_beside_record(name, lambda table: table.iloc[:0])
    assert note_above(figure).count("all points are the recorded run's") == 1
    shades = {line.get_alpha() for axis in figure.axes for line, *_ in axis.containers if line}
    assert shades <= {1, None}
    assert not [text for axis in figure.axes for text in axis.texts]  # no label on a curve


@pytest.mark.parametrize("name", [*OF_TABLES, "depth", "route"])
def test_a_figure_of_two_models_draws_and_names_both(name):
    """The record's clearest model, and the same scores as another's."""
    of_tables = OF_TABLES | {"depth": ("depths",), "route": ("option_ends", "transplants")}
    tabs = [tables.read(table, RECORDED) for table in of_tables[name]]
    measured = tabs[-1][(tabs[-1].block_size > 0) & tabs[-1].value.notna()]
    model = (
        "qwen2.5-coder-1.5b" if "qwen2.5-coder-1.5b" in set(measured.model) else QUICK.main_model
    )
    own = [table[table.model == model] for table in tabs]
    tabs = [pd.concat([table, table.assign(model="phi-2")], ignore_index=True) for table in own]
    if of_tables[name][0] == "unhealed":
        tabs = [pd.concat(tabs, ignore_index=True)]
    of_models = [(model, "phi-2")] if name in ("1d", "5") else []
    places = (*MODULES, depth_probe, route)
    draw = [getattr(of, f"figure_{name}") for of in places if hasattr(of, f"figure_{name}")]
    figure = draw[0](*tabs, *of_models)
    shown = " ".join(text.get_text() for text in figure.findobj(Text))
    assert registry.label(model) in shown and "Phi-2" in shown
    values = figure.table[figure.table.value.notna()].groupby("model").value.count()
    assert values[model] == values["phi-2"] > 0


ONE_SCORE_A_PLACE = [name for name in OF_TABLES if name != "last_layers"]
OF_STRATEGIES = [name for name in OF_TABLES if hasattr(figures, f"figure_{name}")]


@pytest.mark.parametrize("name", ONE_SCORE_A_PLACE)
def test_two_points_at_one_place_of_a_line_are_refused(name):
    """A second measurement would make one zigzag of two lines."""

    def twice(table: pd.DataFrame) -> pd.DataFrame:
        cuts = table[table.block_size > 0]
        return pd.concat([table, cuts.assign(value=cuts.value + 0.01)])

    with pytest.raises(ValueError, match="Two points of the line"):
        drawn_beside_record(name, twice)


@pytest.mark.parametrize("name", OF_STRATEGIES)
def test_a_strategy_that_has_no_row_is_refused(name):
    """And not drawn into another's line."""

    def another(table: pd.DataFrame) -> pd.DataFrame:
        cuts = table[table.strategy == "similarity"]
        return pd.concat([table, cuts.assign(strategy="middle")])

    with pytest.raises(ValueError, match="No strategy 'middle' is known"):
        drawn_beside_record(name, another)


def test_a_known_strategy_is_not_drawn_into_the_line_of_another(monkeypatch):
    """Figure 2 is of similarity-informed blocks, whatever else a table has."""
    monkeypatch.setitem(curves.CHOOSE, "middle", None)
    unhealed = tables.read("unhealed", RECORDED)
    cuts = unhealed[unhealed.strategy == "similarity"]
    more = pd.concat([unhealed, cuts.assign(strategy="middle", value=0.5)])
    assert len(figures.figure_2(more).table) == len(figures.figure_2(unhealed).table)


@pytest.mark.parametrize("name", ["3", "7", "8", "9", "repair", "dose"])
def test_behind_a_point_of_the_run_the_record_is_pale(name):
    """With the model that both have measured; the whole picture has one scale."""
    figure = drawn_beside_record(name, lambda table: table[table.model == "smollm2-135m"])
    shades = {line.get_alpha() for axis in figure.axes for line, *_ in axis.containers if line}
    assert shades == {1, style.PALE}
    assert "recorded run's" not in note_above(figure)
    names = [text.get_text() for text in figure.legends[0].texts]
    assert any("recorded: SmolLM2-135M" in name for name in names)


def test_figure_9_has_the_differences_of_a_run_from_its_own_lowest_rank():
    """The record behind it has a lower one."""
    ranks = tables.read("ranks", RECORDED)
    own = ranks[ranks.variant.isin(["rank 8", "rank 64"])]
    table = figures.figure_9(tables.to_draw(own, QUICK, "ranks")).table
    healed = table[(table.treatment == "healed") & (table.task == "c4")]
    by_model = healed.dropna(subset="difference").groupby("model").variant.agg(set)
    assert by_model["smollm2-135m"] == {"rank 64"}
    assert by_model["recorded: smollm2-135m"] == {"rank 8", "rank 64"}


def test_figure_9_says_that_its_ranks_are_at_few_depths():
    ranks = tables.read("ranks", RECORDED)
    few = profiles.PAPER_PROFILES[1]
    said = note_above(figures.figure_9(ranks.assign(profile=few)))
    assert "ranks are healed at 3 of the 8 depths" in said
    assert "RANKS=few" not in note_above(figures.figure_9(ranks))


def test_figure_depth_is_three_cuts_and_its_table_all():
    depths = tables.read("depths", RECORDED)
    depths = depths[(depths.task == "arc_easy_letters") & depths.block_size.isin([0, 3])]
    figure = depth_probe.figure_depth(depths)
    titles = [axis.get_title("left") for axis in figure.axes]
    assert titles == ["Qwen2.5-Coder-1.5B\nwhole", "similarity, 3 layers", "simple, 3 layers"]
    (probe,) = [of[0] for of in figure.axes[0].containers if of.get_label() == depth_probe.PROBE]
    assert probe.get_ydata()[16] - probe.get_ydata()[15] > 0.3  # PREREGISTERED: layer 16
    end = depth_probe.at_the_end(figure.table)
    model, task = "qwen2.5-coder-1.5b", "arc_easy_letters"
    assert end.loc[model, task, "similarity", 3][depth_probe.PROBE] == pytest.approx(
        0.669, abs=5e-4
    )
    assert end.loc[model, task, "simple", 3][depth_probe.PROBE] == pytest.approx(0.804, abs=5e-4)
    assert len(end) == 3
    figure = depth_probe.figure_depth(depths.assign(model=tables.RECORD_PREFIX + depths.model))
    assert (
        note_above(figure) == "This run measures none of this: all points are the recorded run's."
    )


def test_published_starts_are_marked_in_maps_of_their_models():
    """And figure_starts has l*(n) of both as fractions: of Llama-2-7B 23 of 32 at n = 1."""
    matrix = np.triu(np.ones((33, 33)), 1)
    matrix[9, 10] = 0.5
    distances = BlockDistances(matrix, 0.01 * matrix, np.stack([matrix] * 4), 24)
    for name, marked in {"llama-2-7b": True, "smollm2-135m": False}.items():
        drawn = figures.figure_1c(name, distances, 20), figures.figure_4({name: distances})
        for figure, (start, n) in zip(drawn, [(23, 20), (23, 24)], strict=True):
            marks = [
                line
                for line in figure.axes[0].lines
                if line.get_label() == "$l^*(n)$ of third-party scripts"
            ]
            assert len(marks) == marked
            if marked:
                assert marks[0].get_xdata()[0] == start and len(marks[0].get_xdata()) == n
    small = BlockDistances(matrix[:5, :5], matrix[:5, :5], np.stack([matrix[:5, :5]] * 4), 24)
    figure = figures.figure_4({"llama-2-7b": small})  # a copy of 4 layers: none fits
    assert not [line for line in figure.axes[0].lines if "third-party" in str(line.get_label())]
    table = figures.figure_starts({"smollm2-135m": distances}).table.set_index("source")
    measured, published = table.loc["measured"].iloc[0], table.loc["published"].iloc[0]
    assert (measured.start_fraction, measured.fraction) == (9 / 32, 1 / 32)
    assert (published.model, published.start_fraction) == ("llama-2-7b", 23 / 32)


def test_figure_8_has_what_a_seed_scores_more_than_seed_0():
    fixed = {"task": "mmlu", "chance": 0.25, "status": "ok", "majority": 0.3, "shots": 0}
    fixed |= {"ablation": "seeds"}
    rows = [score(2, 50, **fixed, variant="seed 0"), score(2, 60, **fixed, variant="seed 1")]
    made = pd.DataFrame(rows)
    made["examples"] = [answers.astype(float) for answers in made.examples]
    table = figures.figure_8(made).table
    assert table.difference.fillna(0).tolist() == pytest.approx([0, 0.1])
    error = (0.1 * 0.9 / 99) ** 0.5  # of a mean of 100 differences, 10 of which are 1
    assert table.high[1] - table.low[1] == pytest.approx(2 * 1.96 * error, rel=1e-4)


@pytest.mark.parametrize(
    "name, first, other", [("8", "seed 0", "seed 1"), ("9", "rank 2", "rank 8")]
)
@pytest.mark.parametrize(
    "unhealed, right, why",
    [
        (30, 60, "{1} scores as {0}, so no difference is drawn"),
        (59, 64, "healing changed nothing for certain, so no difference is drawn"),
        (30, 64, ""),
    ],
)
def test_a_difference_that_healing_did_not_make_is_not_drawn(
    name, first, other, unhealed, right, why
):
    """No bar of length zero, and none of what healing did not change; the scores are drawn."""
    fixed = {"task": "arc_easy", "chance": 0.25, "majority": 0.3, "shots": 0, "status": "ok"}
    fixed |= {"ablation": "similarity"}
    rows = [score(2, unhealed, **fixed, variant="unhealed", rank=np.nan)]
    for variant, of_variant in {first: 60, other: right}.items():
        healed = {"variant": variant, "rank": float(variant[-1]), "treatment": "healed"}
        rows.append(score(2, of_variant, **fixed | healed))
    made = pd.DataFrame(rows)
    made["examples"] = [answers.astype(float) for answers in made.examples]
    figure = getattr(figures, f"figure_{name}")(made)
    assert note_above(figure) == (
        f"m, ARC-Easy by content: {why.format(first, other)}" if why else ""
    )
    assert len(figure.axes) == (1 if why else 2)
    differences = figure.table.set_index("variant").difference
    assert differences[other] == pytest.approx(np.nan if why else 0.04, nan_ok=True)
    assert differences["unhealed"] == pytest.approx((unhealed - 60) / 100)


def test_losses_are_drawn_in_units_of_chance_with_bars_of_one_error():
    """A single healed point stands by itself, and no line leads to it."""
    fixed = {"task": "c4", "chance": 10.0, "floor": 10.0, "majority": np.nan, "shots": np.nan}
    fixed |= {"status": "ok", "standard_error": 0.5}
    losses = {0: 3.0, 2: 4.0, 4: 5.0}
    rows = [score(size, 0, **fixed, value=loss) for size, loss in losses.items()]
    rows.append(score(4, 0, **fixed, value=3.5, treatment="healed"))
    unhealed, healed = figures.figure_3(pd.DataFrame(rows)).axes
    for axis, points in ((unhealed, [0.3, 0.4, 0.5]), (healed, [0.35])):
        (drawn,) = axis.containers
        assert drawn.lines[0].get_ydata().tolist() == pytest.approx(points)
        bars = [bar[:, 1] for bar in drawn.lines[2][0].get_segments()]
        assert np.diff(bars).ravel() == pytest.approx(2 * 0.05)


def test_costs_are_drawn_beside_the_layers_left():
    table = tables.read("cost", profiles.get(profiles.DRAW_ONLY_PROFILE))
    table["fraction"] /= 2  # up to a quarter
    lines = [line for axis in figures.figure_cost(table).axes for line in axis.lines]
    left = [line.get_xydata() for line in lines if line.get_label() == "layers left"]
    np.testing.assert_allclose(np.sum(left, axis=-1), np.ones((3, 2)))


def test_the_models_that_have_something_to_lose_are_shown():
    """And of each the questions by which it has most."""
    wholes = {("m", "mmlu"): 60, ("m", "arc_easy"): 70, ("n", "mmlu"): 90, ("o", "mmlu"): 30}
    made = []
    for (model, task), right in wholes.items():
        fixed = {"model": model, "task": task, "chance": 0.25, "majority": np.nan}
        made += [score(0, right, **fixed), score(2, 30, **fixed)]
    shown = letters.clearest(pd.DataFrame(made), ["model", "task"])
    assert {*zip(shown.model, shown.task, strict=True)} == {("m", "arc_easy"), ("n", "mmlu")}


def test_a_run_of_which_only_the_map_is_left_is_drawn_as_not_measured(output, monkeypatch):
    """As where each job failed: the last pass only draws, and must get through."""
    maps, profile = {"tiny-random": Distances()}, profiles.get("smoke", limit=4)
    monkeypatch.setenv(paths.DRAW_ONLY_VARIABLE, "1")

    def table(experiment) -> pd.DataFrame:
        return measure.table(experiment, maps, profile)

    forms = table(letters.forms)
    drawn = [
        figures.figure_dose(table(dose.doses)),
        letters.figure_letters(forms),
        letters.figure_cuts(table(letters.exits), forms),
        depth_probe.figure_depth(table(depth_probe.depths)),
        repair.figure_repair(table(repair.linear_maps)),
    ]
    for figure in drawn:
        assert figure.table.status.eq(tables.NotMeasured.status).all()


# ---- colours ---------------------------------------------------------------------------------

XYZ = [[0.43, 0.38, 0.19], [0.21, 0.72, 0.07], [0.02, 0.11, 0.87]]  # of linear RGB; white is 1


def lab(shade: str, red_share: float) -> np.ndarray:
    """Return a colour in CIELAB, where red and green look like one mixture if red has a share."""
    red, green, blue = ((np.array(to_rgb(shade)) + 0.055) / 1.055) ** 2.4
    if red_share:
        red = green = red_share * red + (1 - red_share) * green
    darkest = 0.009  # below, CIELAB is no cube root; what is darker counts as this
    x, y, z = np.cbrt(np.maximum(XYZ @ np.array([red, green, blue]), darkest))
    return np.array([116 * y, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("red_share, least", [(0, 15), (0.11, 8), (0.29, 8)])
def test_colours_of_one_picture_are_told_apart(red_share, least):
    """By most, by protans and by deutans (Viénot, Brettel and Mollon 1999): the distance is CIE76.

    Recorded models lie behind whatever a run draws.
    """
    recorded = profiles.get(profiles.DRAW_ONLY_PROFILE).models
    pictures = {"models": profiles.get("paper").models}
    for row in storage.rows(style.TABLE):
        if row["of"] != "model":
            pictures.setdefault(row["of"], [*recorded]).append(row["name"])
    for names in pictures.values():
        for pair in combinations(names, 2):
            first, second = (lab(style.colour(name), red_share) for name in pair)
            assert np.linalg.norm(first - second) >= least, pair


def test_a_note_above_a_figure_is_no_wider_than_the_figure():
    """A line of five panels' names made quick's figure 9 twice as wide as its panels."""
    figure = plt.figure(figsize=(style.WIDTH, 2))
    style.note_above(figure, "ARC-Easy accuracy (similarity), minus the lowest rank; " * 5)
    assert figure.get_suptitle().count("\n") > 1
    assert figure._suptitle.get_window_extent().width <= figure.bbox.width
