"""The damage map: every block, its work counted, and where it and the distances disagree."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lib.blocks import Block, BlockDistances
from lib.data import sets
from lib.evaluation import Task
from lib.pruning import dropped
from lib.sweep import sweep
from replication import measure, paths, profiles, tables
from replication.analysis import choice
from replication.beyond import which_block
from replication.measure import cache, damage

SMOKE = replace(profiles.get("smoke"), damage_sequences=10, damage_tokens=20)


def test_damage_is_the_rise_of_the_loss_without_the_block(loaded_llama, tokenizer):
    damages = measure.table(damage.damage, ["tiny-random"], SMOKE)
    texts = sets.c4("validation", "wheels", SMOKE.damage_sequences)
    task = Task("c4", tuple({"text": t, "max_tokens": SMOKE.damage_tokens} for t in texts))
    whole = sweep(loaded_llama, tokenizer, [], [task]).value[0]
    for block in (Block(0, 1), Block(2, 3), Block(1, 5)):
        with dropped(loaded_llama, block):
            loss = sweep(loaded_llama, tokenizer, [], [task]).value[0]
        (row,) = damages[
            (damages.block_start == block.start) & (damages.block_size == block.size)
        ].itertuples()
        assert row.loss == pytest.approx(loss, abs=1e-5)
        assert row.value == pytest.approx(loss - whole, abs=1e-5)
        assert row.n == SMOKE.damage_sequences


def test_only_missing_chunks_are_swept(loaded_llama, monkeypatch):
    whole = measure.table(damage.damage, ["tiny-random"], SMOKE)
    chunks = sorted(paths.RESULTS.glob("damage/*/*.json"))
    assert len(chunks) == 2
    chunks[1].unlink()
    with monkeypatch.context() as drawing, pytest.raises(tables.NotMeasured):
        drawing.setenv(cache.DRAW_ONLY, "1")
        measure.table(damage.damage, ["tiny-random"], SMOKE)
    swept = []
    monkeypatch.setattr("lib.sweep.sweep", lambda *args: swept.append(1) or sweep(*args))
    whole = whole.drop(columns="took")
    pd.testing.assert_frame_equal(
        measure.table(damage.damage, ["tiny-random"], SMOKE).drop(columns="took"), whole
    )
    assert len(swept) == 1


def synthetic(rises: np.ndarray, matrix: np.ndarray, texts: int = 12, noise: float = 0.0):
    """A damage table and the map of a model with len(matrix) - 1 layers."""
    draw, rows = np.random.default_rng(1), []
    for block in damage.all_blocks(len(matrix) - 1):
        rise = rises[block.start, block.stop]
        row = {"model": "m", "block_start": block.start, "block_size": block.size, "value": rise}
        row |= {"examples": rise + noise * draw.standard_normal(texts), "weights": np.ones(texts)}
        rows.append(row)
    return pd.DataFrame(rows), {"m": BlockDistances(matrix, 0 * matrix, np.stack([matrix] * 4), 4)}


def test_rank_correlation_can_come_out_either_way():
    matrix = np.random.default_rng(0).random((9, 9))
    for rises, sign in ((matrix**3, 1), (-matrix, -1)):
        table = choice.rank_correlation(*synthetic(rises, matrix), resamples=5)
        assert table.rank_correlation.tolist() == pytest.approx([sign, sign])


def test_updates_are_weighted_by_the_tokens_they_are_of():
    """All but the first token; the first token's own update counts once a text."""
    keys = [*which_block.CRITERIA, "update", "update_first"]
    values = dict.fromkeys(keys, [[which_block.SCALE, 3 * which_block.SCALE]])
    values |= {"blocks": [[0, 1]], "tokens": [2, 4]}
    table = pd.DataFrame(which_block._rows("m", values)).set_index("criterion")
    expected = {
        "last token": (1 + 3) / 2,
        "all tokens": (2 * 1 + 4 * 3) / 6,
        "block influence": (2 * 1 + 4 * 3) / 6,
        "update": (1 * 1 + 3 * 3) / 4,
        "update, first token": (1 + 3) / 2,
    }
    assert table.value.to_dict() == pytest.approx(expected)


def test_residuals_name_the_block_that_misleads():
    """Block (2, 1) is the most similar of its size and the most damaging."""
    matrix = np.ones((9, 9)) + np.arange(9) / 100
    rises = matrix.copy()
    matrix[2, 3], rises[2, 3] = 0.1, 5.0
    table, maps = synthetic(rises, matrix, noise=0.01)
    beside = choice.beside_distances(table, maps)
    worst = beside.loc[beside.residual.idxmax()]
    assert (worst.block_start, worst.block_size, worst.residual) == (2, 1, 1.0)
    rows = judged(table, maps).set_index(["criterion", "block_size"])
    assert rows.starts["paper", 1] == [2, 2] and rows["rank"]["paper", 1] == 8
    assert rows.excess["paper", 1] == pytest.approx(5.0 - 1.01, abs=0.05)
    assert abs(rows.excess["paper", 4]) < 0.05


def judged(table: pd.DataFrame, maps: dict, sink: int = 1) -> pd.DataFrame:
    """The criteria head to head, where those that read states see the distances of `maps`, and the
    first token's state changes in layer `sink` and in the first one."""
    blocks = zip(table.block_start, table.block_size, strict=True)
    seen = [np.full(len(table.weights[0]), maps["m"].matrix[l, l + n]) for l, n in blocks]
    states = table.assign(examples=seen, criterion="last token")
    updates = table[table.block_size == 1].assign(criterion="update, first token")
    updates["value"] = updates.block_start.map({0: 9.0, sink: 2.0}).fillna(0.1)
    states = pd.concat([states, updates])
    return which_block.head_to_head(table, states, maps)


def test_the_most_similar_block_can_spare_the_sink_layer():
    """Block (2, 2) is the most similar of its size, (5, 2) that without layer 3."""
    matrix = np.ones((9, 9)) + np.arange(9) / 100
    matrix[2, 4], matrix[5, 7] = 0.1, 0.2
    rows = judged(*synthetic(matrix, matrix), sink=3).set_index(["criterion", "block_size"])
    assert rows.starts["paper", 2] == [2, 2] and rows.starts[which_block.SPARED, 2] == [5, 5]
    assert rows.value[which_block.SPARED, 2] == pytest.approx(0.2)
    apart = judged(*synthetic(matrix, matrix), sink=5).set_index(["criterion", "block_size"])
    assert apart.starts[which_block.SPARED, 2] == [2, 2]


def test_the_error_of_a_rise_is_paired_on_texts():
    """Texts differ by far more than what the block does to each; the last has twice the tokens."""
    whole, rises, tokens = np.array([1.0, 5.0, 9.0]), np.array([0.5, 0.6, 0.7]), np.array([1, 1, 2])
    losses = np.stack([whole, whole + rises])
    (row,) = damage.rises("m", [[0, 0], [2, 1]], losses, tokens).to_dict("records")
    assert row["value"] == pytest.approx((0.5 + 0.6 + 2 * 0.7) / 4)
    assert row["loss"] == pytest.approx((1.5 + 5.6 + 2 * 9.7) / 4)
    squares = 0.125**2 + 0.025**2 + (2 * 0.075) ** 2
    assert row["standard_error"] == pytest.approx((3 / 2 * squares) ** 0.5 / 4)
