import json

import pytest

from lib import curves, models, profiles, results
from lib.pruning import UNPRUNED, Block

PARAMS = {"model": "tiny", "revision": "abc", "block_start": 3, "version": 1}


def test_keys_do_not_drift():
    """A changed key makes every stored result unreachable: change this line only knowingly."""
    expected = "9808ec356857f2393931"
    assert results.key("scores", PARAMS)[:20] == expected


def test_every_parameter_is_in_the_key():
    keys = {results.key("scores", PARAMS | {name: "other"}) for name in PARAMS}
    assert len(keys | {results.key("scores", PARAMS), results.key("x", PARAMS)}) == len(PARAMS) + 2


def test_computed_once(output):
    calls = []

    def compute():
        calls.append(1)
        return {"value": 0.5}

    first = results.load_or_compute("scores", PARAMS, compute)
    assert results.load_or_compute("scores", PARAMS, compute) == first
    assert len(calls) == 1
    assert first["params"] == PARAMS and first["environment"]["torch"]


@pytest.mark.parametrize("damage", ["", "{", '{"schema": 1}', "[]", "\x00"])
def test_a_damaged_result_is_absent(output, damage):
    results.save("scores", PARAMS, {"value": 1.0}, 0)
    results.location("scores", PARAMS).write_text(damage)
    assert results.load("scores", PARAMS) is None


def test_a_result_of_other_parameters_is_absent(output):
    record = results.save("scores", PARAMS | {"version": 2}, {"value": 1.0}, 0)
    results.location("scores", PARAMS).write_text(json.dumps(record))
    assert results.load("scores", PARAMS) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(output, value):
    with pytest.raises(ValueError, match="not finite"):
        results.save("scores", PARAMS, {"value": [value]}, 0)
    assert not results.location("scores", PARAMS).exists()


def test_names_cannot_leave_the_folder(output):
    for model in ("../../etc/passwd", "/abs", "..", "a/b"):
        place = results.location("scores", PARAMS | {"model": model})
        assert place.parent == results.location("scores", PARAMS).parent


def test_each_depth_has_its_own_score(output):
    """A cache that is not keyed by the block gives every depth the unpruned score."""
    smoke = profiles.get("smoke")
    table = curves.measure("tiny-random", smoke, [Block(1, 2), Block(3, 2)], ["c4"])
    again = curves.measure("tiny-random", smoke, [Block(3, 2), Block(1, 2)], ["c4"])
    assert table.value.nunique() == 3
    assert again.value.tolist() == [table.value[0], table.value[2], table.value[1]]
    assert len(list((output / "data/results/scores").iterdir())) == 3


def test_only_what_is_missing_is_measured(output, monkeypatch):
    smoke = profiles.get("smoke")
    curves.measure("tiny-random", smoke, [Block(1, 2)], ["c4"])
    asked = []
    real = curves.sweep

    def spy(model, tokenizer, blocks, tasks, batch_tokens):
        asked.extend(blocks)
        return real(model, tokenizer, blocks, tasks, batch_tokens)

    monkeypatch.setattr(curves, "sweep", spy)
    curves.measure("tiny-random", smoke, [Block(1, 2), Block(2, 2)], ["c4"])
    assert asked == [Block(2, 2)]
    monkeypatch.setattr(models, "base", lambda *a, **k: pytest.fail("loaded again"))
    table = curves.measure("tiny-random", smoke, [Block(1, 2), Block(2, 2), UNPRUNED], ["c4"])
    assert len(table) == 3
