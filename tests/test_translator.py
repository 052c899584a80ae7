"""A translator at the exit: every exit is scored as it is, and with a map."""

from dataclasses import replace

import pytest
from conftest import Distances
from test_repair import by_hand, mapped_loss

from lib import evaluation
from lib.blocks import Block
from lib.data import sets
from lib.models import loading
from replication import profiles
from replication.beyond import translator
from replication.measure import request

SMOKE = profiles.get("smoke")


def test_every_exit_is_scored_as_it_is_and_translated(output):
    """The translated loss is that of the exit where a hook adds x A, for A by NumPy."""
    requests = translator.translated("tiny-random", Distances(start=1), SMOKE)
    table = translator.table(requests)
    assert table.value.notna().all()
    fitted = table[table.repair == "full map"]
    assert set(fitted.fit_texts) == {6} and fitted.error.lt(1).all() and fitted.ridge.gt(0).all()
    c4 = table[table.task == "c4"].pivot(index="block_size", columns="repair", values="value")
    gains = translator.gains(table).set_index(["task", "measure", "block_size"])
    base = loading.load("tiny-random", dtype="float32")
    texts = sets.c4("train", "wheels", 6)
    tokens = base[1](texts, truncation=True, max_length=SMOKE.map_tokens).input_ids
    assert set(fitted.fit_tokens) == {sum(map(len, tokens))}
    profile = replace(SMOKE, c4_sequences=2, c4_tokens=SMOKE.damage_tokens)
    task = evaluation.task_of(request.of_task("c4", profile))
    for size in (3, 7):
        block = Block(8 - size, size)
        change, *_ = by_hand(base[0], block, "full", tokens)
        plain, mapped = (mapped_loss(base, block, "full", a, task) for a in (0 * change, change))
        assert c4.loc[size, ["plain cut", "full map"]].tolist() == pytest.approx([plain, mapped])
        assert gains.gain["c4", "loss", size] == pytest.approx(mapped - plain, abs=1e-5)
