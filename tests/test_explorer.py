"""What the explorer's page knows of its maps, and that it is one file that needs nothing else."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from replication.figures.explorer import Explored

from lib.blocks import BlockDistances
from replication import explore, paths, profiles
from replication.analysis import islands
from replication.figures import explorer, heatmaps, looks
from replication.measure import damage, distance_maps
from scripts import explorer as picture

SMOKE = profiles.get("smoke")
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


@pytest.fixture
def maps():
    return {"small": a_map(6), "large": a_map(9, seed=1)}


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_knows_every_block(maps):
    table = a_damage_map(9)
    explored = {
        "small": Explored("small", maps["small"]),
        "large": Explored("large", maps["large"], damage=table),
    }
    data = data_of(explorer.page(explored))["maps"]
    for name, distances in maps.items():
        by_size, layers = data[name], distances.num_layers
        for block in damage.all_blocks(layers):
            value = by_size["distance"][block.size - 1][block.start]
            assert value == pytest.approx(distances.of(block), abs=1e-5)
            error = by_size["error"][block.size - 1][block.start]
            expected = distances.standard_error[block.start, block.stop]
            assert error == pytest.approx(expected, abs=1e-5)
        without = [row.count(None) for row in by_size["distance"]]
        assert without == list(range(layers - 1))
    assert "damage" not in data["small"]
    assert data["large"]["damage"][2][:3] == [3, 3.01, 3.02]
    with pytest.raises(ValueError, match="A damage map lacks value"):
        explorer.page(
            {"large": Explored("large", maps["large"], damage=table.drop(columns="value"))}
        )


def test_the_page_has_the_islands_of_every_threshold(maps):
    distances = maps["large"]
    data = data_of(explorer.page({"large": Explored("large", distances)}))
    assert islands.THRESHOLD in data["thresholds"]
    whole = data["maps"]["large"]["whole"]
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


def test_without_the_first_layer_the_map_is_that_of_the_others(maps):
    distances = maps["large"]
    data = data_of(explorer.page({"large": Explored("large", distances)}))["maps"]["large"][
        "without"
    ]
    alone = islands.regions(distances.matrix[1:, 1:], 0.1)
    np.testing.assert_array_equal(np.array(data["regions"][9])[:, 1:], alone)
    assert not np.any(np.array(data["regions"][9])[:, 0])
    rows = np.array(data["rescaled"], float)
    assert np.isnan(rows[:, 0]).all()
    assert np.nanmin(rows, axis=1).tolist() == [0] * 7 and np.nanmax(rows, axis=1).max() == 1
    cut = {name: getattr(distances, name)[..., 1:, 1:] for name in distance_maps.ARRAYS}
    expected = islands.islands(replace(distances, **cut), 0.1)
    table = pd.DataFrame(data["islands"][9])
    assert len(table)
    for start in ("first_start", "last_start", "block_start"):
        assert table[start].tolist() == (expected[start] + 1).tolist()


def test_few_folds_and_few_layers():
    few = a_map(3)
    few = BlockDistances(few.matrix, few.standard_error, few.folds[:4], 4)
    data = data_of(explorer.page({"few": Explored("few", few)}))["maps"]["few"]
    assert data["whole"]["share"][0] == [[None] * 3]
    assert data["without"] == data["whole"]


def test_the_page_of_80_layers_is_small_and_self_contained():
    start, stop = np.mgrid[:81, :81]
    upper = np.triu(0.05 * np.sqrt(np.maximum(stop - start, 0)) * (1.2 - start / 80), 1)
    deep = of_folds(upper + 0.002 * np.triu(a_map(80).folds, 1))
    page = explorer.page({"deep": Explored("deep", deep, damage=a_damage_map(80))})
    assert len(page.encode()) < 8e6
    assert not re.search(r"<(script|img|iframe)[^>]+src=|<link[^>]+href=\"(?!data:)", page)


def test_a_label_cannot_end_the_script(maps):
    page = explorer.page({"</script><b>": Explored("small", maps["small"])})
    assert list(data_of(page)["maps"]) == ["</script><b>"]
    assert "</script><b>" not in page


def test_maps_at_hand(output):
    """Those of the recorded runs with damage, scores and texts, and this machine's."""
    distances = distance_maps.of_model("tiny-random", SMOKE)
    explored = explore.maps()
    *recorded, last = explored
    assert list(explore.maps(own=False)) == recorded and "your results" in last
    models = [explored[label].model for label in recorded]
    assert len(set(models)) == len(models)  # none twice
    assert [explored[label].model for label in explorer.opening(explored)] == OPENED
    np.testing.assert_array_equal(explored[last].distances.matrix, distances.matrix)

    (label,) = [label for label in explored if "recorded run" in label and "SmolLM2" in label]
    scores = explored[label].scores.set_index([*explorer.BLOCK, "task", "shots", "treatment"])
    assert scores.index.is_unique
    whole = scores.sort_index().loc[0, 0]
    treatments = set(whole.index.get_level_values("treatment"))
    assert {"unpruned", "healed for 16 steps, rank 8"} <= treatments  # a control is healed, too
    otherwise = scores.sort_index().loc[(10, 9, "c4", "")]
    healed = {text for text in otherwise.index if text.startswith("healed for 512 steps")}
    plain = "healed for 512 steps, rank 8"  # each recipe by itself, none in another's place
    assert healed >= {plain, f"{plain}, seed 1", f"{plain}, from layer 10"}
    assert whole.loc[("arc_easy", ", 0-shot", "unpruned"), "n"] == 565
    assert len(explored[label].prompts) == len(explored[label].texts[11, 1])


def test_scores_are_listed_and_have_a_map(maps):
    rows = [(0, 0, ", 0-shot", "unpruned", 0.7), (2, 1, ", 0-shot", "unhealed", 0.5)]
    rows += [(1, 3, ", 0-shot", "unhealed", 0.4), (2, 1, ", 0-shot", "healed for 2 steps", 0.6)]
    rows += [(4, 1, ", 5-shot", "unhealed", 0.3)]  # fewer blocks have it
    scores = pd.DataFrame(rows, columns=[*explorer.BLOCK, "shots", "treatment", "value"])
    scores = scores.assign(task="arc_easy", standard_error=0.01)
    explored = Explored("small", maps["small"], scores=scores)
    data = data_of(explorer.page({"small": explored}))["maps"]["small"]
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
    assert explore._texts(weights) == (("a",), {(0, 0): ["b"]})
    for other in ({"revision": "2"}, {"quantization": "nf4"}, {"model": "none"}):
        assert explore._texts(weights | other) == ((), {})


def test_it_opens_on_two_models_of_which_most_is_known(maps):
    table = a_damage_map(9)
    plain = {"a": Explored("x", maps["small"]), "b": Explored("x", maps["small"])}
    assert explorer.opening(plain) == ["a", "a"]  # one model
    known = {"c": Explored("y", maps["large"], damage=table), "d": Explored("z", maps["large"])}
    assert explorer.opening(plain | known) == ["a", "c"]
    known["e"] = Explored("z", maps["large"], damage=table)
    assert explorer.opening(plain | known) == ["c", "e"]
    with pytest.raises(ValueError, match="no map to explore"):
        explorer.page({})


def test_a_layer_that_costs_more_than_its_neighbours_is_a_look(maps):
    """Not the first or last one, and not by less than the error."""
    table = a_damage_map(9)
    assert looks.costly_layer(Explored("m", maps["large"], damage=table)) is None
    assert looks.costly_layer(Explored("m", maps["large"])) is None
    alone, holding = table.block_size == 1, table.block_start == 4
    peak = table.assign(value=table.value + 3 * (holding & (table.block_size <= 3)))
    seen = looks.costly_layer(Explored("m", maps["large"], damage=peak))
    assert seen["form"] == {"view": looks.DAMAGE, "n": 1, "l": 4}
    assert "costs 4.04 nats, dropping a neighbour at most 1.05; up to n = 3 " in seen["text"]
    unsure = peak.assign(standard_error=1.0)
    assert looks.costly_layer(Explored("m", maps["large"], damage=unsure)) is None
    ends = table.assign(value=table.value + 9 * (alone & table.block_start.isin([0, 8])))
    assert looks.costly_layer(Explored("m", maps["large"], damage=ends)) is None


def test_a_jump_of_the_best_start_is_a_look():
    matrix = np.ones((13, 13))
    start, stop = np.mgrid[:13, :13]
    matrix -= 0.2 * np.isin(start, [7]) + 0.1 * np.isin(start, [1])  # while a block fits there
    distances = of_folds(np.broadcast_to(np.triu(matrix * (stop - start), 1), (16, 13, 13)))
    seen = looks.jump(Explored("m", distances))
    assert seen["form"] == {"view": looks.RESCALED, "n": 6, "l": 1}
    assert "l = 7 for n = 5 and at l = 1 for n = 6, where the distance is 5.400" in seen["text"]
    never = of_folds(np.broadcast_to(np.triu(1.0 * (stop - start) * (20 - start), 1), (16, 13, 13)))
    assert looks.jump(Explored("m", never)) is None


def test_the_first_layer_is_a_look_where_its_blocks_are_the_least_similar(maps):
    assert looks.first_layer(Explored("m", maps["large"])) is None
    far = maps["large"].matrix.copy()
    far[0, 1:] = far[1:, 0] = 5
    seen = looks.first_layer(Explored("m", replace(maps["large"], matrix=far)))
    assert seen["form"]["without"] == "on"
    assert "the least similar at 8 of 8 sizes" in seen["text"]
    whole, without = (looks._similar(part) for part in (far, far[1:, 1:]))
    assert whole > without and f"{without:.0%} of the blocks are" in seen["text"]


@pytest.mark.record
def test_the_looks_of_the_record_and_its_picture():
    """If it fails: `python -m scripts.explorer` takes figures/overnight/explorer.png again."""
    contents = explorer.contents(explore.maps(own=False))
    first, second, third = contents["looks"]
    assert first["name"] == "Layer 11 of SmolLM2-135M"
    assert {key: second["state"][key] for key in ("side", "n", "l")} == {
        "side": "right",
        "n": 12,
        "l": 2,
    }
    assert third["state"]["without"] == "on"
    assert picture.DIGEST.read_text().strip() == picture.digest(contents)


def test_the_static_figure_tells_each_blocks_region(output, maps):
    heatmaps.figure_islands(maps)
    table = pd.read_csv(paths.FIGURES / "smoke" / "figure_islands.csv")
    for name, distances in maps.items():
        regions = islands.regions(distances.matrix)
        mine = table[table.model == name]
        searched = mine[mine.block_size <= len(regions)]
        assert list(searched.region) == list(regions[searched.block_size - 1, searched.block_start])
        assert mine[mine.block_size > len(regions)].region.isna().all()
        assert searched.region.max() == islands.BAND + len(islands.islands(distances))


def test_recorded_map_and_its_provenance():
    distances, provenance = distance_maps.recorded("qwen2.5-coder-0.5b")
    assert distances.num_layers == provenance["layers"] == 24
    assert distances.num_sequences == 256 and len(distances.folds) == 16
    np.testing.assert_array_equal(distances.matrix, distances.matrix.T)
    np.testing.assert_allclose(distances.folds.mean(0), distances.matrix, atol=1e-6)
    with pytest.raises(ValueError, match="'nope'"):
        distance_maps.recorded("nope")
