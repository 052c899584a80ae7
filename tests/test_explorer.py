"""What the explorer's page knows of its maps, and that it is one file that needs nothing else."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_site import write_run

from lib.blocks import BlockDistances
from replication import paths
from replication.analysis import islands
from replication.measure import damage
from replication.show import explorer
from replication.show.explorer import Explored

OPENED = ["qwen2.5-coder-1.5b", "smollm2-135m"]


def a_map(num_layers: int, seed: int = 0) -> BlockDistances:
    rng = np.random.default_rng(seed)
    return of_folds(np.triu(rng.random((16, num_layers + 1, num_layers + 1)), 1))


def of_folds(upper: np.ndarray) -> BlockDistances:
    """The map of 16 folds, of which the upper triangles are given."""
    folds = upper + upper.transpose(0, 2, 1)
    return BlockDistances(folds.mean(0), folds.std(0, ddof=1) / 4, folds, 32)


def a_damage_map(num_layers: int) -> pd.DataFrame:
    blocks = [(l, n) for n in range(1, num_layers) for l in range(num_layers - n + 1)]
    table = pd.DataFrame(blocks, columns=["block_start", "block_size"])
    value = table.block_size + 0.01 * table.block_start
    return table.assign(value=value, standard_error=0.1)


@pytest.fixture(scope="module")
def maps():
    few = a_map(3)
    few = BlockDistances(few.matrix, few.standard_error, few.folds[:4], 4)
    return {"small": a_map(6), "large": a_map(9, seed=1), "few </script>": few}


@pytest.fixture(scope="module")
def page(maps):
    explored = {name: Explored(name, distances) for name, distances in maps.items()}
    large = Explored("large", maps["large"], damage=a_damage_map(9))
    return explorer.page(explored | {"large": large})


@pytest.fixture(scope="module")
def data(page):
    """What the page holds; a label does not end its script."""
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_knows_every_block(data, maps):
    for name, distances in maps.items():
        by_size, layers = data["maps"][name], distances.num_layers
        for block in damage.all_blocks(layers):
            value = by_size["distance"][block.size - 1][block.start]
            assert value == pytest.approx(distances.of(block), abs=1e-5)
            error = by_size["error"][block.size - 1][block.start]
            expected = distances.standard_error[block.start, block.stop]
            assert error == pytest.approx(expected, abs=1e-5)
        without = [row.count(None) for row in by_size["distance"]]
        assert without == list(range(layers - 1))
    assert "damage" not in data["maps"]["small"]
    assert data["maps"]["large"]["damage"][2][:3] == [3, 3.01, 3.02]


def test_the_page_has_the_islands_of_every_threshold(data, maps):
    distances, whole = maps["large"], data["maps"]["large"]["whole"]
    assert islands.THRESHOLD in data["thresholds"]
    for place in (0, 9, 30):
        threshold = data["thresholds"][place]
        regions = islands.regions(distances.matrix, threshold)
        np.testing.assert_array_equal(whole["regions"][place], regions)
        expected = islands.islands(distances, threshold)
        table = pd.DataFrame(whole["islands"][place], columns=explorer.ISLAND)
        assert table.block_start.tolist() == expected.block_start.tolist()
        np.testing.assert_allclose(table.stability.astype(float), expected.stability, atol=1e-5)
        again = islands.resampled(distances.folds, threshold)
        share = 100 * (again > islands.BAND).mean(0)
        np.testing.assert_allclose(whole["share"][place], share, atol=0.51)


def test_without_the_first_layer_the_map_is_that_of_the_others(data, maps):
    without = data["maps"]["large"]["without"]
    alone = islands.regions(maps["large"].matrix[1:, 1:], 0.1)
    np.testing.assert_array_equal(np.array(without["regions"][9])[:, 1:], alone)
    assert not np.any(np.array(without["regions"][9])[:, 0])
    rows = np.array(without["rescaled"], float)
    assert np.isnan(rows[:, 0]).all()
    assert np.nanmin(rows, axis=1).tolist() == [0] * 7 and np.nanmax(rows, axis=1).max() == 1
    cut = {name: getattr(maps["large"], name)[..., 1:, 1:] for name in explorer.ARRAYS}
    expected = islands.islands(replace(maps["large"], **cut), 0.1)
    table = pd.DataFrame(without["islands"][9])
    assert len(table)
    for start in ("first_start", "last_start", "block_start"):
        assert table[start].tolist() == (expected[start] + 1).tolist()
    few = data["maps"]["few </script>"]  # too few layers to leave one out, too few folds to draw
    assert few["without"] == few["whole"] and few["whole"]["share"][0] == [[None] * 3]


def test_maps_at_hand(output):
    """Those of the recorded runs with damage, scores and texts, and of each of your runs."""
    write_run(output / "data" / "tables" / "smoke")
    explored = explorer.maps()
    *recorded, last = explored
    assert list(explorer.maps(own=False)) == recorded and last == "m (your run smoke)"
    models = [explored[label].model for label in recorded]
    assert len(set(models)) == len(models)  # none twice
    assert [explored[label].model for label in explorer.opening(explored)] == OPENED
    mine = explored[last]
    assert mine.source == "4 texts of 24 tokens, bfloat16" and mine.damage is None
    treatments = ["unpruned", "unhealed", "healed for 8 steps, rank 4, seed 1"]
    assert set(mine.scores.treatment) == set(treatments)

    of_record = explored["SmolLM2-135M (recorded run overnight)"]
    scores = of_record.scores.set_index(explorer.SCORE)
    assert scores.index.is_unique
    whole = scores.sort_index().loc[0, 0]
    otherwise = scores.sort_index().loc[(10, 9, "c4", "")]
    plain = "healed for 512 steps, rank 8"  # each recipe by itself, none in another's place
    assert set(otherwise.index) >= {plain, f"{plain}, seed 1", f"{plain}, from layer 10"}
    assert whole.loc[("arc_easy", ", 0-shot", "unpruned"), "n"] == 565  # the most questions
    assert len(of_record.prompts) == len(of_record.texts[11, 1])


def test_ablations_are_not_scores_of_a_block(tmp_path):
    for changes in ({"shot_order": 1}, {"patched": 0}):
        measured = write_run(tmp_path / str(changes), **changes)
        assert explorer._scores(measured).empty


def test_scores_are_listed_and_have_a_map(maps):
    rows = [(0, 0, ", 0-shot", "unpruned", 0.7), (2, 1, ", 0-shot", "unhealed", 0.5)]
    rows += [(1, 3, ", 0-shot", "unhealed", 0.4), (2, 1, ", 0-shot", "healed for 2 steps", 0.6)]
    rows += [(4, 1, ", 5-shot", "unhealed", 0.3)]  # fewer blocks have it
    scores = pd.DataFrame(rows, columns=[*explorer.BLOCK, "shots", "treatment", "value"])
    scores = scores.assign(task="arc_easy", standard_error=0.01)
    explored = Explored("small", maps["small"], scores=scores)
    data = explorer.contents({"small": explored})["maps"]["small"]
    listed = {key: [row["value"] for row in rows] for key, rows in data["scores"].items()}
    assert listed == {"0,0": [0.7], "2,1": [0.5, 0.6], "1,3": [0.4], "4,1": [0.3]}
    assert data["scores"]["2,1"][0]["task"] == "ARC-Easy by content, 0-shot"
    assert data["scored"].keys() == {"ARC-Easy by content"}
    grid = data["scored"]["ARC-Easy by content"]
    values = {(l, n + 1): v for n, row in enumerate(grid) for l, v in enumerate(row) if v}
    assert values == {(2, 1): 0.5, (1, 3): 0.4}


def test_texts_are_those_of_the_very_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RECORDED", tmp_path)
    weights = {"model": "m", "revision": "1", "quantization": None}
    lines = [weights | {"prompts": ["a"]}, {"block": [0, 0], "texts": ["b"]}]
    paths.continuations("m").write_text("\n".join(map(json.dumps, lines)))
    assert explorer._texts(weights) == (("a",), {(0, 0): ["b"]})
    for other in ({"revision": "2"}, {"quantization": "nf4"}, {"model": "none"}):
        assert explorer._texts(weights | other) == ((), {})
