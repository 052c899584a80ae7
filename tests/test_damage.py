"""The damage map: every block, its work counted, and where it and the distances disagree."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import LAYERS, Characters, tiny

from lib import paths, profiles, results
from lib.analysis import choice
from lib.blocks import Block, BlockDistances
from lib.data import sets
from lib.evaluation import Task
from lib.measure import damage
from lib.models import decoder, loading
from lib.pruning import dropped
from lib.sweep import sweep

SMOKE = replace(profiles.get("smoke"), damage_sequences=10, damage_tokens=20)


@pytest.fixture
def small(output, monkeypatch):
    """A tiny model and its tokenizer in the place of the profile's."""
    model = tiny("llama")
    monkeypatch.setattr(loading, "loaded", lambda *name, **how: (model, Characters()))
    return model


def test_layer_applications_are_the_layers_after_every_cut(small):
    """L for the unpruned model, and for each block only what comes after it; per batch of texts."""
    applied = []
    for layer in decoder.decoder_layers(small):
        layer.register_forward_hook(lambda *_: applied.append(1))
    damage.of_model("tiny-random", SMOKE)
    blocks = damage.all_blocks(LAYERS)
    assert len(blocks) == LAYERS * (LAYERS + 1) // 2 - 1
    chunks = -(-SMOKE.damage_sequences // damage.CHUNK)
    assert len(applied) == chunks * (LAYERS + sum(LAYERS - block.stop for block in blocks))


def test_damage_is_the_rise_of_the_loss_without_the_block(small):
    found = damage.of_model("tiny-random", SMOKE)
    texts = sets.c4("validation", "wheels", SMOKE.damage_sequences)
    task = Task("c4", tuple({"text": t, "max_tokens": SMOKE.damage_tokens} for t in texts))
    whole = sweep(small, Characters(), [], [task]).value[0]
    for block in (Block(0, 1), Block(2, 3), Block(1, 5)):
        with dropped(small, block):
            loss = sweep(small, Characters(), [], [task]).value[0]
        row = found[(found.block_start == block.start) & (found.block_size == block.size)].iloc[0]
        assert row.loss == pytest.approx(loss, abs=1e-5)
        assert row.value == pytest.approx(loss - whole, abs=1e-5)
        assert row.n == SMOKE.damage_sequences


def test_only_missing_chunks_are_swept(small, monkeypatch):
    whole = damage.measure(["tiny-random"], SMOKE)
    chunks = sorted(paths.RESULTS.glob("damage/*/*.json"))
    assert len(chunks) == 2
    chunks[1].unlink()
    with results.drawing_only(), pytest.raises(results.NotMeasured):
        damage.measure(["tiny-random"], SMOKE)
    swept = []
    monkeypatch.setattr(damage, "sweep", lambda *args: swept.append(1) or sweep(*args))
    pd.testing.assert_frame_equal(damage.measure(["tiny-random"], SMOKE), whole)
    assert len(swept) == 1


def test_a_model_that_cannot_be_had_leaves_the_damage_of_the_others(output, caplog):
    found = damage.measure(["nobody/knows", "tiny-random"], SMOKE)
    assert set(found.model) == {"tiny-random"} and "Without nobody/knows" in caplog.text


def synthetic(rises: np.ndarray, matrix: np.ndarray, texts: int = 12, noise: float = 0.0):
    """A damage table and the map of a model with len(matrix) - 1 layers."""
    blocks = damage.all_blocks(len(matrix) - 1)
    draw = np.random.default_rng(1)
    rows = [
        {
            "model": "m",
            "block_start": b.start,
            "block_size": b.size,
            "value": rises[b.start, b.stop],
            "examples": rises[b.start, b.stop] + noise * draw.standard_normal(texts),
            "weights": np.ones(texts),
        }
        for b in blocks
    ]
    return pd.DataFrame(rows), {"m": BlockDistances(matrix, 0 * matrix, np.stack([matrix] * 4), 4)}


def test_rank_correlation_can_come_out_either_way():
    matrix = np.random.default_rng(0).random((9, 9))
    for rises, sign in ((matrix**3, 1), (-matrix, -1)):
        found = choice.rank_correlation(*synthetic(rises, matrix), resamples=5)
        assert found.rank_correlation.tolist() == pytest.approx([sign, sign])
        assert found.low.tolist() == pytest.approx([sign, sign])
    unrelated = np.random.default_rng(2).random((9, 9))
    found = choice.rank_correlation(*synthetic(unrelated, matrix, noise=0.1), resamples=50)
    assert (found.rank_correlation.abs() < 0.6).all() and (found.low < found.high).all()


def test_residuals_and_regret_name_the_block_that_misleads():
    """Block (2, 1) is the most similar of its size and the most damaging."""
    matrix = np.ones((9, 9)) + np.arange(9) / 100
    rises = matrix.copy()
    matrix[2, 3], rises[2, 3] = 0.1, 5.0
    table, maps = synthetic(rises, matrix, noise=0.01)
    beside = choice.beside_distances(table, maps)
    worst = beside.loc[beside.residual.idxmax()]
    assert (worst.block_start, worst.block_size, worst.residual) == (2, 1, 1.0)
    found = choice.regret(table, maps).set_index("block_size")
    assert found.similarity_start[1] == 2
    assert found.regret[1] == pytest.approx(5.0 - 1.01, abs=0.05)
    assert abs(found.regret[7]) < 0.05


def test_regret_is_not_fooled_by_luck():
    """Where all blocks are equally damaging, choosing the luckiest on the same texts looks good."""
    matrix = np.random.default_rng(0).random((25, 25))
    table, maps = synthetic(np.ones((25, 25)), matrix, texts=8, noise=1.0)
    found = choice.regret(table, maps)
    naive = [
        np.stack(rows.examples).mean(1)[maps["m"].best_start(size)]
        - np.stack(rows.examples).mean(1).min()
        for size, rows in table.groupby("block_size")
    ]
    assert np.mean(naive) > 0.3 and abs(found.regret.mean()) < 0.2
