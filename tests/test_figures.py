"""What the figures of scores show: panels, lines, markers, references, names of files."""

from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import Distances

from lib.blocks import Block
from lib.models import registry
from replication import figures, paths, profiles, results
from replication.beyond import dose, letters, repair
from replication.figures.style import COLOURS, PALETTE, colour
from replication.measure import distance_maps, experiments
from replication.measure import scores as measured_scores

PAPER = profiles.get("paper")
SMOKE = profiles.get("smoke")
TREATMENTS = ("unhealed", "healed")
CHANCE = {"mmlu": 0.25, "arc_easy": 0.25, "boolq": 0.5, "c4": 10.0}
UNPRUNED = {"mmlu": 0.3, "arc_easy": 0.6, "boolq": 0.8, "c4": 3.0}  # MMLU: no signal


@pytest.fixture(autouse=True)
def kept(output, monkeypatch):
    """A figure's axes and lines can still be looked at when it is saved."""
    with monkeypatch.context() as patched:
        patched.setattr(plt, "close", lambda *_: None)
        yield
    plt.close("all")


def scores(models=("qwen-7b",), treatments=TREATMENTS, variants=(None,), **columns) -> pd.DataFrame:
    """Every task, unpruned and at two depths of both strategies and each treatment."""
    cuts = [("none", "unpruned", 0)]
    cuts += product(("similarity", "simple"), treatments, (8, 16))
    rows = []
    for model, task, variant, cut in product(models, UNPRUNED, variants, cuts):
        strategy, treatment, size = cut
        row = {
            "model": model,
            "task": task,
            "strategy": strategy,
            "treatment": treatment,
            "block_start": 4,
            "block_size": size,
            "fraction": size / 32,
            "value": UNPRUNED[task] * (0.7 if size else 1),
            "standard_error": 0.02,
            "n": 500,
            "shots": 5,
            "chance": CHANCE[task],
            "majority": np.nan,
        }
        rows.append(row | ({"variant": variant} if variant else {}) | columns)
    return pd.DataFrame(rows)


def test_every_model_has_a_colour_of_the_table_and_others_one_by_their_names():
    assert COLOURS.keys() == registry.MODELS.keys()
    assert set(COLOURS.values()) <= set(PALETTE)
    assert colour("smollm2-135m") == COLOURS["smollm2-135m"]
    assert colour("owner/model") in PALETTE


def test_a_picture_without_healed_lines_has_a_name_of_its_own():
    folder = paths.FIGURES / "smoke"
    figures.figure_2(scores([SMOKE.main_model]), SMOKE)
    healed = {file: file.read_bytes() for file in folder.iterdir()}
    assert {file.stem for file in healed} == {"figure_2"}
    figures.figure_2(scores([SMOKE.main_model], ["unhealed"]), SMOKE)
    assert {file: file.read_bytes() for file in healed} == healed
    assert {file.stem for file in folder.iterdir()} == {"figure_2", "figure_2_unhealed"}


def test_a_panel_of_which_nothing_is_measured_says_so():
    table = scores(["llama-2-7b", "qwen-7b"])
    unmeasured = (table.model == "qwen-7b") & (table.task == "mmlu")
    table.loc[unmeasured, ["value", "standard_error", "chance"]] = np.nan
    texts = {}
    for axis in figures.figure_2(table, PAPER).axes:
        texts[axis.get_label()] = [text.get_text() for text in axis.texts]
    assert texts["MMLU accuracy Qwen"] == ["not measured"]
    assert "not measured" not in texts["ARC-Easy accuracy Qwen"] + texts["MMLU accuracy Llama-2"]


@pytest.mark.parametrize(
    "status, gaps", [("not measured", [False, False]), ("diverged", [False, True, False])]
)
def test_a_line_passes_what_nobody_measured_and_breaks_where_measuring_failed(status, gaps):
    table = scores(treatments=["healed"]).assign(status="ok")
    missing = (table.block_size == 8) & (table.strategy == "similarity")
    table.loc[missing, ["value", "status"]] = np.nan, status
    (axis,) = figures.figure_6(table, SMOKE).axes
    (line,) = [
        line for line in axis.lines if line.get_linestyle() == "-" and line.get_marker() == "o"
    ]
    assert np.isnan(np.asarray(line.get_ydata(), float)).tolist() == gaps


def test_below_figure_1d_are_the_layers_that_go():
    *_, strip = figures.figure_1d(scores(PAPER.models), PAPER).axes
    bars = {(round(bar.get_y()), round(bar.get_height())) for bar in strip.patches}
    assert bars == {(4, 8), (4, 16)} and strip.get_ylim() == (0, 32)


def test_figure_3_has_a_panel_a_treatment_and_all_models_in_both():
    left, right = figures.figure_3(scores(PAPER.models), PAPER).axes
    assert [a.get_title("left") for a in (left, right)] == list(TREATMENTS)
    for axis, style in ((left, ":"), (right, "-")):
        lines = [line for line in axis.lines if line.get_linestyle() == style]
        assert len({line.get_color() for line in lines}) == len(PAPER.models)
    assert left.get_ylim() == right.get_ylim()


@pytest.mark.parametrize("share, crossed", [(0.96, True), (0.94, False), (np.nan, False)])
def test_a_score_of_one_answer_is_crossed_out(share, crossed):
    (axis,) = figures.figure_6(scores(commonest=share), SMOKE).axes
    assert any(line.get_marker() == "x" for line in axis.lines) == crossed


def test_the_table_of_figure_1b_has_every_layer_and_its_new_number():
    figures.figure_1b(Block(40, 20), 80, SMOKE)
    table = pd.read_csv(paths.FIGURES / "smoke" / "figure_1b.csv")
    assert len(table) == 80 and table.new_index.max() == 59


@pytest.mark.parametrize("name", profiles.PROFILES)
@pytest.mark.parametrize("ablation", [experiments.seeds, experiments.ranks])
def test_unhealed_references_are_scores_of_notebook_02(name, ablation):
    """So that figures 8 and 9 measure nothing for them."""
    profile, distances = profiles.get(name), Distances(num_layers=30)
    model = (profile.ablation_models if ablation is experiments.seeds else profile.rank_models)[0]
    requests = experiments.unhealed(model, distances, profile)
    requests += experiments.test_split(model, distances, profile)
    measured = [request.params for request in requests]
    variants = ablation(model, distances, profile)
    references = [r for r in variants if r.labels["variant"] == "unhealed"]
    assert references and all(r.params in measured and r.recipe is None for r in references)


def test_a_model_may_be_called_unpruned():
    figure = figures.figure_2(scores(models=("my/llama-unpruned",)), SMOKE)
    assert [axis.get_title("left") for axis in figure.axes][0] == "llama-unpruned"
    assert figure.axes[0].has_data()


def test_a_run_of_which_only_the_map_is_left_is_drawn_as_not_measured(output, monkeypatch):
    """As where each job failed: the last pass only draws, and must get through."""
    maps, profile = distance_maps.measure(profiles.get("smoke", limit=4))
    monkeypatch.setenv(results.DRAW_ONLY, "1")
    figures.figure_training(measured_scores.healings(maps, profile), profile)
    doses = measured_scores.score_table(maps, dose.requests, profile)
    dose.figure_dose(doses, dose.gap_left(doses), profile)
    forms = measured_scores.score_table(maps, letters.forms, profile)
    measures = letters.measures(forms[forms.task.isin(["mmlu", "arc_easy"])])
    letters.figure_measures(measures, profile)
    assert letters.largest_step(measures).empty
    repair.figure_repair(repair.measure(maps, profile), profile)
    repair.figure_repair_cost(repair.measure(maps, profile, repair.healings), profile)
    drawn = {f.stem: pd.read_csv(f) for f in (paths.FIGURES / "smoke").glob("*.csv")}
    assert len(drawn) == 5
    for name, table in drawn.items():
        assert table.status.eq(results.NotMeasured.status).all(), name
