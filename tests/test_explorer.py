"""The explorer's figure, its changes, and the file that holds all of them."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lib import paths, profiles
from lib.analysis import islands
from lib.blocks import Block, BlockDistances
from lib.figures import explorer, heatmaps, mapview
from lib.measure import distance_maps

SMOKE = profiles.get("smoke")


def a_map(num_layers: int, seed: int = 0) -> BlockDistances:
    upper = np.triu(np.random.default_rng(seed).random((16, num_layers + 1, num_layers + 1)), 1)
    folds = upper + upper.transpose(0, 2, 1)
    error = folds.std(0, ddof=1) / 4
    return BlockDistances(folds.mean(0), error, folds, 32)


def a_damage_map(num_layers: int) -> pd.DataFrame:
    blocks = [(l, n) for n in range(1, num_layers) for l in range(num_layers - n + 1)]
    table = pd.DataFrame(blocks, columns=["block_start", "block_size"])
    return table.assign(value=table.block_size + 0.01 * table.block_start)


@pytest.fixture
def maps():
    return {"small": a_map(6), "large": a_map(9, seed=1)}


def traces(drawing, name: str) -> list:
    return [trace for trace in drawing.data if trace.name == name]


def test_map_and_hover_show_every_block(maps):
    drawing = mapview.figure(maps)
    for distances, heatmap in zip(maps.values(), traces(drawing, "map"), strict=True):
        hovered = np.array(heatmap.customdata, dtype=float)
        for n in range(1, distances.num_layers):
            for l in range(distances.num_layers - n + 1):
                value, error, stop = hovered[n - 1, l]
                assert value == pytest.approx(distances.of(Block(l, n)), abs=1e-5)
                assert error == pytest.approx(distances.standard_error[l, l + n], abs=1e-5)
                assert stop == l + n
            assert all(v is None for v in heatmap.z[n - 1][distances.num_layers - n + 1 :])
        assert list(heatmap.y) == list(range(1, distances.num_layers))


def test_slider_moves_curve_cursor_and_text(maps):
    box = explorer.explore(maps)
    controls, drawing = box.children
    size, _ = controls.children
    assert (size.min, size.max) == (1, 8)
    size.value = 4
    for column, distances in enumerate(maps.values()):
        best = distances.best_start(4)
        curve, lowest = traces(drawing, "curve")[column], traces(drawing, "lowest")[column]
        np.testing.assert_allclose(curve.y, distances.row(4), atol=1e-5)
        error = np.diagonal(distances.standard_error, 4)
        np.testing.assert_allclose(curve.error_y.array, error, atol=1e-5)
        assert lowest.x[0] == best and lowest.y[0] == min(curve.y)
        assert traces(drawing, "cursor")[column].y == (4, 4, 4)
        text = drawing.layout.annotations[2 + column].text
        assert text.startswith(f"n = 4: l* = {best}, drops range({best}, {best + 4})")
    size.value = 8  # more than the small model has
    assert not traces(drawing, "curve")[0].y and len(traces(drawing, "curve")[1].y) == 2
    assert drawing.layout.annotations[2].text == "n = 8: the model has 6 layers"


def test_buttons_switch_between_raw_and_rescaled(maps):
    controls, drawing = explorer.explore(maps).children
    controls.children[1].value = "raw"
    for distances, heatmap in zip(maps.values(), traces(drawing, "map"), strict=True):
        raw = np.array(heatmap.z, dtype=float)
        np.testing.assert_allclose(raw, islands.by_size(distances.matrix), atol=1e-5)
    assert drawing.layout.coloraxis.cmax == max(d.matrix.max() for d in maps.values())
    controls.children[1].value = "row-normalised"
    assert np.nanmax(np.array(traces(drawing, "map")[0].z, dtype=float)) == 1
    assert drawing.layout.coloraxis.cmax == 1


def test_distance_against_damage(maps):
    table = a_damage_map(9)
    _, drawing = explorer.explore(maps, {"large": table}).children
    empty, full = traces(drawing, "damage")
    counts = [np.nansum(np.array(trace.z, dtype=float)) for trace in (empty, full)]
    assert counts == [0, len(table)]
    drawing.plotly_update(*mapview.at_size(3, maps, {"large": table}))
    np.testing.assert_allclose(traces(drawing, "damage at n")[1].x, maps["large"].row(3), atol=1e-5)
    assert traces(drawing, "damage at n")[1].y == tuple(table.value[table.block_size == 3])
    assert not traces(mapview.figure(maps), "damage")
    with pytest.raises(ValueError, match="damage map of large lacks value"):
        explorer.explore(maps, {"large": table.drop(columns="value")})


def test_the_file_holds_the_changes_of_the_widgets(maps):
    controls = explorer._controls(maps, None)
    steps = controls["sliders"][0]["steps"]
    assert [step["label"] for step in steps] == [str(n) for n in range(1, 9)]
    assert [step["args"] for step in steps] == [mapview.at_size(n, maps) for n in range(1, 9)]


def test_html_of_80_layers_is_small_and_self_contained(output):
    maps = {"first": a_map(80), "second": a_map(80, seed=1)}
    damage = {name: a_damage_map(80) for name in maps}
    file = explorer.save_html(maps, SMOKE, damage)
    assert file == paths.FIGURES / "smoke" / "explorer.html"
    assert file.stat().st_size < 6e6 and not list(file.parent.glob("*.part"))
    page = file.read_text(encoding="utf-8")
    assert not re.search(r"<(script|img|iframe)[^>]+src=|<link", page)
    assert all(f"<td>{name}</td>" in page for name in maps)


def test_html_says_that_there_are_no_islands(output):
    flat = a_map(6)
    flat = replace(flat, matrix=np.zeros((7, 7)), folds=np.zeros((16, 7, 7)))
    assert "<p>None.</p>" in explorer.save_html({"flat": flat}, SMOKE).read_text(encoding="utf-8")


def test_the_static_figure_tells_each_blocks_region(output, maps):
    heatmaps.figure_islands(maps, SMOKE)
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
    assert "Q4_K_M" in provenance["weights"] and "matrix" not in provenance
    assert (paths.RECORDED / "qwen2.5-coder-0.5b.json").stat().st_size < 2e6
    with pytest.raises(ValueError, match="No recorded map 'nope': choose one of qwen2.5-coder"):
        distance_maps.recorded("nope")
