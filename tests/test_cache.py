"""The cache of measurements: a result is found by its key, whole or not at all, and made once."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import measured_scores

from lib import sweep
from lib.blocks import Block
from lib.healing import lora, training
from lib.models import loading
from lib.pruning import dropped
from replication import measure, paths, profiles, tables
from replication.measure import cache, fetching, request, scores

SMOKE, NAME, BLOCK = profiles.get("smoke"), "tiny-random", Block(1, 2)
RECIPE = profiles.recipe(NAME, SMOKE)
HEALED = request.score(NAME, SMOKE, "c4", BLOCK, RECIPE)
PARAMS = {"model": "tiny", "revision": "abc", "block_start": 3, "block_size": 1}


def measured(*blocks: Block, recipe=None):
    """Return the losses of the tiny model without each of `blocks`, measured if missing."""
    return measured_scores(NAME, SMOKE, blocks, ["c4"], recipe)


def test_keys_do_not_drift(monkeypatch):
    """A changed key makes every stored result unreachable: change it only knowingly."""
    monkeypatch.setattr(loading, "default_device", lambda: "cpu")
    healed = request.score(NAME, SMOKE, "c4", BLOCK, replace(RECIPE, batch=16))
    (keyed,) = fetching.keyed_by_machine([healed.healing])
    assert cache.key(keyed.kind, keyed.params)[:12] == "0f96b9ec0993"


def saved(**other) -> bytes:
    """Store a score and return what its file has; other: parameters."""
    cache.save("scores", PARAMS | other, [{"value": 0.25}], 0)
    return cache.location("scores", PARAMS | other).read_bytes()


def test_a_damaged_result_is_set_aside_and_made_again(output, monkeypatch, caplog):
    """Each under a name of its own."""
    with monkeypatch.context() as patch:
        patch.setattr(cache, "SCHEMA", 3)
        newer = saved()
    file, whole = cache.location("scores", PARAMS), saved()
    damaged = {
        "Parquet magic bytes": whole[: len(whole) // 2],
        "CRC checksum": whole.replace(np.float64(0.25).tobytes(), bytes(8)),
        "has not schema 2": newer,
        "is of other parameters": saved(block_start=4),
    }
    for problem, content in damaged.items():
        file.write_bytes(content)
        assert cache.load("scores", PARAMS) is None and not file.exists()
        assert problem in caplog.text
    assert {copy.read_bytes() for copy in file.parent.glob("*.corrupt")} == {*damaged.values()}
    saved()
    assert cache.load("scores", PARAMS)[0]["value"] == 0.25


def test_a_failed_write_leaves_what_was_there(output, monkeypatch):
    """A table is written so, too."""

    def full(*_):
        raise OSError(28, "No space left on device")

    before, file = saved(), cache.location("scores", PARAMS)
    with pytest.raises(ValueError, match="not finite"):
        cache.save("scores", PARAMS, [{"examples": np.array([np.inf])}], 0)
    monkeypatch.setattr(os, "fsync", full)
    for write in (saved, lambda: tables.write(pd.DataFrame(), "unhealed", SMOKE)):
        with pytest.raises(OSError, match="No space left"):
            write()
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_only_what_is_missing_is_measured(output, monkeypatch):
    """Each depth has its own score."""
    swept = []
    real = sweep.sweep

    def noted(model, tokenizer, blocks, *rest):
        swept.extend(blocks)
        return real(model, tokenizer, blocks, *rest)

    first = measured(BLOCK)
    monkeypatch.setattr(sweep, "sweep", noted)
    both = measured(Block(2, 2), BLOCK)
    assert swept == [Block(2, 2)]
    assert both.value.nunique() == 3
    unpruned, _, again = both.value
    assert [unpruned, again] == first.value.tolist()


def test_a_healed_score_is_that_of_the_cut_with_its_adapter(output, tmp_path):
    """As by healing the cut, loading its adapter and sweeping; and not as without it."""
    recipe = replace(RECIPE, learning_rate=0.05)
    unhealed, healed = measured(BLOCK).value[1], measured(BLOCK, recipe=recipe).value.item()
    model, tokenizer = loading.load(NAME, dtype=SMOKE.dtype)
    task = request.load_task(request.task_params("c4", SMOKE))
    with dropped(model, BLOCK):
        by_hand = training.heal(model, tokenizer, recipe, tmp_path / "by hand")
        with lora.load_lora(model, by_hand.adapter):
            expected = sweep.sweep(model, tokenizer, [], [task]).value.item()
    assert healed == pytest.approx(expected, abs=1e-5)
    assert abs(healed - unhealed) > 0.01
    ((stored,),) = cache.stored("healing")
    assert (stored["epochs"], stored["tokens"]) == (by_hand.epochs, by_hand.real_tokens)


def test_a_block_of_two_strategies_is_healed_once_and_its_score_outlives_the_adapter(
    output, monkeypatch
):
    """Adapters may be deleted once all is scored; a new score heals again."""
    train, folders = training._train, []

    def counted(wrapped, collate, sequences, recipe, folder, *rest):
        folders.append(folder)
        return train(wrapped, collate, sequences, recipe, folder, *rest)

    monkeypatch.setattr(training, "_train", counted)
    tasks = ["c4", "arc_easy"]
    both = [
        request.score(NAME, SMOKE, tasks[0], BLOCK, RECIPE, strategy=strategy)
        for strategy in ("similarity", "simple")
    ]
    first = scores.table(both)
    shutil.rmtree(paths.RESULTS / "adapters")
    assert scores.table(both).value.tolist() == first.value.tolist()
    assert len(folders) == 1
    again = request.score(NAME, SMOKE, tasks[1], BLOCK, RECIPE)
    assert scores.table([again]).status.tolist() == ["ok"]
    assert folders == 2 * folders[:1]


def test_out_of_memory_holds_until_the_next_run(output, monkeypatch):
    """Within a run it is not tried again; the next one, or its own job, does so."""
    calls = []

    def out_of_memory(*_):
        calls.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(training, "_train", out_of_memory)
    for _ in range(2):
        rows = measured(BLOCK, recipe=RECIPE)
        assert rows.status.tolist() == ["oom"] and rows.value.isna().all()
        assert rows.tokens.item() == RECIPE.steps * RECIPE.batch * RECIPE.max_tokens
        assert (rows.seed.item(), rows["rank"].item()) == (RECIPE.seed, RECIPE.rank)
    tries = len(calls)
    cache.save("healing", PARAMS, [{}], 0, "oom")
    (keyed,) = fetching.keyed_by_machine([HEALED.healing])
    cache.forget_out_of_memory([keyed.params])
    assert cache.load("healing", PARAMS)
    measured(BLOCK, recipe=RECIPE)
    assert len(calls) == 2 * tries
    cache.forget_out_of_memory()
    assert not list(cache.stored("healing"))


def test_models_that_cannot_be_had_are_named(output):
    smoke = profiles.get("smoke", models=["nobody/absent", NAME])
    maps, left = measure.distances(smoke)
    assert list(maps) == [NAME]
    assert left.models == (NAME,)
    assert left.missing == (("nobody/absent", "skipped: not available"),)
