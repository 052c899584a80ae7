"""What the explorer's page knows of its maps."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_maps import a_map

from lib.blocks import BlockDistances
from lib.models import registry
from replication import paths, tables
from replication.analysis import islands
from replication.measure import damage
from replication.show import explorer
from replication.show.explorer import ModelMap


def write_run(folder: Path, model: str = "m", **changes) -> None:
    """Write what a run measures: distances, and the loss whole, cut and healed.

    changes: of the requests of losses.
    """
    weights = {"model": model, "revision": "1", "dtype": "bfloat16", "quantization": None}
    weights["profile"] = "smoke"
    params = weights | {"max_tokens": 24, "data": "file:/home/notes.txt", "data_revision": "1a2b"}
    rows = []
    for size, recipe in ((0, {}), (2, {}), (2, {"recipe": {"steps": 8, "rank": 4, "seed": 1}})):
        block = {"block_start": 1, "block_size": size}
        request = {"kind": "scores", "task": "c4"} | params | block | recipe | changes
        row = {
            "task": "c4",
            "value": 4.5,
            "standard_error": 0.6,
            "n": 4,
            "examples": [3.0, 4.0, 6.0, 5.0],
            "request": json.dumps(request),
        }
        rows.append(weights | block | row)
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "unhealed.parquet")
    similarity = pd.DataFrame(tables.rows_of(at_random(4, folds=4)))
    request = json.dumps({"kind": "similarity"} | params)
    similarity = similarity.assign(request=request, **weights)
    similarity.to_parquet(folder / "similarity.parquet")


def at_random(num_layers: int, folds: int = 16) -> BlockDistances:
    """A map of noise alone, about 1."""
    return a_map(lambda l, n: 1.0, 0.2, num_layers, folds)


@pytest.fixture(scope="module")
def maps():
    """The last has too few folds for a stability, and a label that must not end a script."""
    return {
        "small": at_random(6),
        "large": at_random(9),
        "few </script>": at_random(3, folds=4),
        "turns": a_map(lambda l, n: 0.03 * (l + n), 0, 7, folds=4),  # more, the deeper a layer
    }


@pytest.fixture(scope="module")
def page(maps):
    model_maps = {name: ModelMap(name, distances) for name, distances in maps.items()}
    return explorer.page(model_maps)


@pytest.fixture(scope="module")
def data(page):
    """What the page holds; a label does not end its script."""
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])


def test_the_page_knows_every_block(data, maps):
    for name, distances in maps.items():
        by_size = data["maps"][name]
        for block in damage.all_blocks(distances.num_layers):
            value = by_size["distance"][block.size - 1][block.start]
            error = by_size["error"][block.size - 1][block.start]
            expected = distances.standard_error[block.start, block.stop]
            assert value == pytest.approx(distances.of(block), abs=1e-5)
            assert error == pytest.approx(expected, abs=1e-5)
        without = [row.count(None) for row in by_size["distance"]]
        assert without == list(range(distances.num_layers - 1))
    assert data["maps"]["small"]["damage"] == []


@pytest.mark.parametrize("place", [0, 9, 30])
def test_the_page_has_the_islands_of_every_threshold(data, maps, place):
    drawn, threshold = data["maps"]["large"]["whole"], data["thresholds"][place]
    regions = islands.regions(maps["large"].matrix, threshold)
    np.testing.assert_array_equal(drawn["regions"][place], regions)
    expected = islands.islands(maps["large"], threshold)
    table = pd.DataFrame(drawn["islands"][place], columns=explorer.ISLAND)
    assert table.block_start.tolist() == expected.block_start.tolist()
    np.testing.assert_allclose(table.stability.astype(float), expected.stability, atol=1e-5)


def test_the_growth_only_twin_of_a_map_is_in_the_page(data, maps):
    """Its cosines are products of those of the layers; an island that it has is not its map's."""
    for name, distances in maps.items():
        shown = data["maps"][name]
        turns = np.minimum(np.diagonal(distances.matrix, 1), islands.RIGHT_ANGLE)
        for size, row in enumerate(shown["twin"]["distance"], start=1):
            for start, value in enumerate(row[: len(turns) - size + 1]):
                product = np.prod(np.cos(np.pi * turns[start : start + size]))
                assert value == pytest.approx(np.arccos(product) / np.pi, abs=1e-5)
        assert all(of["by_growth"] for table in shown["twin"]["whole"]["islands"] for of in table)
    in_maps = [of for one in data["maps"].values() for t in one["whole"]["islands"] for of in t]
    assert not all(of["by_growth"] for of in in_maps)


def test_a_matrix_of_anybody_is_a_map(output, maps, monkeypatch):
    """By the lines of the README. Half of it is enough. Islands and regions are those of the map
    that it was taken from."""
    matrix = maps["large"].matrix / 2
    measured = replace(maps["large"], matrix=matrix)
    expected, here = islands.islands(measured), islands.islands(np.triu(matrix))
    unknown = ["standard_error", "stability"]
    pd.testing.assert_frame_equal(here.drop(columns=unknown), expected.drop(columns=unknown))
    assert here[unknown].isna().all().all()
    readme = (paths.ROOT / "replication" / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n([^`]*explorer\.write.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(output)
    monkeypatch.setattr(explorer, "maps", lambda own: {})  # the recorded ones take seconds
    np.save("distances.npy", matrix)
    exec(lines, {})
    page = (output / "mine.html").read_text()
    data = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    assert data["opened"] == ["mine", "mine"]
    assert data["maps"]["mine"]["whole"]["regions"][9] == islands.regions(matrix, 0.1).tolist()


@pytest.mark.parametrize(
    "matrix, reason",
    [
        (np.ones((3, 4)), r"shape \(3, 4\)"),
        (np.ones(9), "shape"),
        (np.zeros((9, 9)), "not all 0"),
        (np.full((9, 9), 30.0), "half turns"),
        (np.full((9, 9), -0.1), "half turns"),
        (np.full((9, 9), np.nan), "half turns"),
    ],
)
def test_what_is_no_map_is_refused_in_a_sentence(matrix, reason):
    with pytest.raises(ValueError, match=reason):
        islands.islands(matrix)


def test_maps_at_hand(output):
    """Those of the recorded run with damage, scores and texts, and of each of your runs."""
    write_run(output / "data" / "tables" / "smoke")
    explored = explorer.maps()
    mine = explored["m (your run smoke)"]
    assert mine.damage is None
    assert mine.scores.value.tolist() == [4.5, 4.5, 4.5]

    recorded = explored["SmolLM2-135M (recorded run overnight)"]
    scores = recorded.scores.set_index(explorer.KEY).sort_index()
    assert scores.index.is_unique
    treatments = scores.loc[(10, 9, "c4", "")].index
    plain = "healed for 512 steps, rank 8"  # each recipe by itself, none in another's place
    assert set(treatments) >= {plain, f"{plain}, seed 1"}
    unpruned = scores.loc[(0, 0, "arc_easy", ", 0-shot", "unpruned")]
    assert unpruned.n == 565  # the most questions
    assert len(recorded.prompts) == len(recorded.texts[11, 1])


def test_ablations_are_not_scores_of_a_block(tmp_path):
    for changes in ({"shot_order": 1}, {"patched": 0}):
        write_run(tmp_path / str(changes), **changes)
        assert explorer._scores(tmp_path / str(changes)).empty


@pytest.mark.parametrize("other", [{"revision": "2"}, {"quantization": "nf4"}])
def test_texts_are_those_of_the_very_weights(tmp_path, monkeypatch, other):
    monkeypatch.setattr(paths, "RECORDED", tmp_path)
    weights = {"model": "m", "revision": "1", "quantization": None}
    header = weights | {"prompts": ["a"]}
    block = {"block": [0, 0], "texts": ["b"]}
    paths.continuations("m").write_text(f"{json.dumps(header)}\n{json.dumps(block)}")
    assert explorer._texts(weights) == (("a",), {(0, 0): ["b"]})
    assert explorer._texts(weights | other) == ((), {})


@pytest.mark.parametrize(
    "model, name",
    [
        ("smollm2-135m", "smollm2-135m"),
        ("owner/name", "owner/name"),
        ("/home/me/tiny", "tiny"),
        ("/home/me/tiny.gguf", "tiny.gguf"),
    ],
)
def test_the_maps_of_a_run_are_exported_without_a_path(output, monkeypatch, model, name):
    """By the name that `make prune` knows; of a folder or a file without where it lies."""
    monkeypatch.setattr(paths, "RECORDED", output / "recorded")
    write_run(output / "data" / "tables" / "smoke", model=model)
    explorer.export("smoke", output / "map.json")
    text = (output / "map.json").read_text()
    assert "/home" not in text
    ((label, exported),) = json.loads(text).items()
    assert label.endswith(" (smoke, 64 texts)")
    source = "Profile: smoke. Weights: {}revision 1, bfloat16. Texts: 64 of notes.txt (1a2b), "
    note = "Instruct; 4-bit weights (Q4_1), dequantised, " * (model in registry.MODELS)
    assert exported["source"] == f"{source.format(note)}24 tokens each."
    assert (exported["model"], exported["layers"]) == (name, 4)
    with pytest.raises(ValueError, match="Nothing of run 'quick' is there"):
        explorer.export("quick", output / "map.json")
