import pytest
import torch
from conftest import measured_scores
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib import sweep
from lib.blocks import UNPRUNED, Block
from lib.healing import training
from lib.models import loading, registry
from replication import measure, paths, profiles, tables
from replication.measure import cache, distance_maps, fetching, request, scores

SMOKE = profiles.get("smoke")
PARAMS = {"model": "tiny", "revision": "abc", "block_start": 3, "version": 1}


def measured(*blocks: Block, recipe=None):
    """The losses of the tiny model without each of `blocks`, measured if they are not there."""
    return measured_scores("tiny-random", SMOKE, list(blocks), ["c4"], recipe)


def test_keys_do_not_drift():
    """A changed key makes every stored result unreachable: change this line only knowingly."""
    expected = "9808ec356857f2393931"
    assert cache.key("scores", PARAMS)[:20] == expected


def test_keys_of_real_measurements_do_not_drift(output, monkeypatch):
    """Model and data revision, prompt, dtype, block, recipe, versions: all are in it."""
    monkeypatch.setattr(loading, "default_device", lambda: "cpu")
    params_of = {}

    def instead_of_computing(kind, params, compute):
        params_of[kind] = params
        raise tables.NotMeasured

    monkeypatch.setattr(results, "load_or_compute", instead_of_computing)
    with pytest.raises(tables.NotMeasured):
        distance_maps.of_model("tiny-random", SMOKE)
    with pytest.raises(tables.NotMeasured):
        scores.heal("tiny-random", SMOKE, Block(1, 2), profiles.recipe("tiny-random", SMOKE))
    (score,) = fetching.keyed_by_machine([request.score("tiny-random", SMOKE, "mmlu", Block(1, 2))])
    params_of["scores"] = score.params
    assert {kind: cache.key(kind, params)[:12] for kind, params in params_of.items()} == {
        "similarity": "61f54f82eac5",
        "healing": "0f96b9ec0993",
        "scores": "9453e27a1a9b",
    }


def test_every_parameter_is_in_the_key():
    keys = {cache.key("scores", PARAMS | {name: "other"}) for name in PARAMS}
    assert len(keys | {cache.key("scores", PARAMS), cache.key("x", PARAMS)}) == len(PARAMS) + 2


def test_computed_once(output):
    calls = []

    def compute():
        calls.append(1)
        return {"value": 0.5}

    first = cache.load_or_compute("scores", PARAMS, compute)
    assert cache.load_or_compute("scores", PARAMS, compute) == first
    assert len(calls) == 1
    assert first["params"] == PARAMS and first["environment"]["torch"]


def test_a_measurement_may_know_itself_how_long_it_took(output):
    """A healing that was interrupted, or began with a shorter one's steps, counts all of them."""
    record = cache.load_or_compute("healing", PARAMS, lambda: {"losses": [1.0], "seconds": 99.5})
    assert record["seconds"] == 99.5 and record["values"] == {"losses": [1.0]}
    assert cache.load("healing", PARAMS) == record


DAMAGED = {
    **{text or "empty": lambda whole, text=text: text for text in ("", "{", "[]", "\x00", "null")},
    "not finite": lambda whole: whole.replace("0.25", "NaN"),
    "of another key": lambda whole: whole.replace('"block_start":3', '"block_start":4'),
    "another schema": lambda whole: whole.replace('"schema":', '"schema":9'),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_result_is_set_aside(output, damage):
    """Each time it is damaged, under a name of its own, and made again."""
    whole = cache.save("scores", PARAMS, {"value": 0.25}, 0)["values"]
    file = cache.location("scores", PARAMS)
    for times in (1, 2):
        damaged = DAMAGED[damage](file.read_text())
        file.write_text(damaged)
        assert cache.load("scores", PARAMS) is None and not file.exists()
        aside = [copy.read_text() for copy in file.parent.glob("*.corrupt")]
        assert len(aside) == times and damaged in aside
        assert cache.load_or_compute("scores", PARAMS, lambda: whole)["values"] == whole


VALUES = st.dictionaries(
    st.text(max_size=5), st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4)
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=VALUES, data=st.data())
def test_a_result_is_read_back_whole_or_not_at_all(output, values, data):
    record = cache.save("scores", PARAMS, values, 0)
    assert cache.load("scores", PARAMS) == record
    file = cache.location("scores", PARAMS)
    content = file.read_bytes()
    file.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    assert cache.load("scores", PARAMS) is None
    assert cache.load_or_compute("scores", PARAMS, lambda: values)["values"] == values


def test_a_failed_write_leaves_nothing(output, monkeypatch):
    cache.save("scores", PARAMS, {"value": 1.0}, 0)
    before = cache.location("scores", PARAMS).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache.save("scores", PARAMS, {"value": 2.0}, 0)
    assert [f.read_bytes() for f in paths.RESULTS.rglob("*") if f.is_file()] == [before]


def test_out_of_memory_holds_until_the_next_run(output, monkeypatch):
    """Twice tried at most: within a run it is not tried again, the next run does so."""
    calls = []
    recipe = profiles.recipe("tiny-random", SMOKE)

    def out_of_memory(*arguments):
        calls.append(1)
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(training, "_train", out_of_memory)
    rows = measured(Block(1, 2), recipe=recipe)
    assert rows.status.tolist() == ["oom"] and rows.value.isna().all()
    micro_batches = len(calls)
    assert scores.heal("tiny-random", SMOKE, Block(1, 2), recipe)["status"] == "oom"
    assert len(calls) == micro_batches
    cache.forget_out_of_memory()
    scores.heal("tiny-random", SMOKE, Block(1, 2), recipe)
    assert len(calls) == 2 * micro_batches


def test_a_pass_that_only_draws_measures_nothing(output, monkeypatch):
    measured(Block(1, 2))
    monkeypatch.setenv("DEEPER_LAYERS_DRAW_ONLY", "1")
    monkeypatch.setattr(loading, "load_cached", lambda *a, **k: pytest.fail("loaded"))
    rows = measured(Block(1, 2), Block(3, 2))
    assert rows.status.tolist() == ["ok", "ok", "not measured"]
    assert rows.value.isna().tolist() == [False, False, True]
    recipe = profiles.recipe("tiny-random", SMOKE)
    healed = measured(Block(1, 2), recipe=recipe)
    assert healed.status.tolist() == ["not measured"]
    with pytest.raises(tables.NotMeasured):
        measure.distances(SMOKE)


def test_models_that_cannot_be_had_are_named(output):
    smoke = profiles.get("smoke", models=["nobody/absent", "tiny-random"])
    maps, left = measure.distances(smoke)
    assert list(maps) == ["tiny-random"] and left.models == ("tiny-random",)
    assert left.missing == (("nobody/absent", "skipped: not available"),)
    with pytest.raises(registry.ModelError, match="nobody/absent"):
        measure.distances(smoke, ["nobody/absent"])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(output, value):
    with pytest.raises(ValueError, match="not finite"):
        cache.save("scores", PARAMS, {"value": [value]}, 0)
    assert not cache.location("scores", PARAMS).exists()


def test_names_cannot_leave_the_folder(output):
    for model in ("../../etc/passwd", "/abs", "..", "../b", "~/c", "a\x00b"):
        place = cache.location("scores", PARAMS | {"model": model})
        assert place.resolve().parent.parent == (paths.RESULTS / "scores").resolve()
        with pytest.raises((registry.ModelError, ValueError)):
            registry.resolve(model)


SCORE = {"model": "tiny", "task": "mmlu", "shots": 5, "block_start": 13, "block_size": 6}
HEALED = {"recipe": {"rank": 8, "seed": 0, "steps": 32}}


# ---- many results --------------------------------------------------------------------------


def test_an_archive_finds_what_was_asked_whatever_machine_and_version(output):
    machine = {"dtype": "float32", "device": "cpu", "threads": 2}
    for n, version in ((1, 1), (3, 2), (2, 2)):
        params = SCORE | machine | {"version": version, "threads": n}
        cache.save("scores", params, {"n": n}, 0)
    cache.save("healing", SCORE | machine | HEALED, {"losses": []}, 0, "diverged")
    archive = results.archive(paths.RESULTS)
    params = SCORE | {"dtype": None, "device": "cuda", "processor": "another"}
    assert archive.find("scores", params | {"version": 1})["values"]["n"] == 1
    assert archive.find("scores", params | {"version": 3})["values"]["n"] == 3
    assert archive.find("healing", params | HEALED | {"healing_version": 7})["status"] == "diverged"
    assert archive.find("scores", params | {"block_size": 5}) is None
    assert archive.find("scores", params | HEALED) is None and archive.find("toy", params) is None
    assert len(list(archive.records())) == 4 and len(list(archive.records("healing"))) == 1


def test_an_archive_never_takes_other_weights_for_those_asked_for(output):
    """Two dtypes, two states of a folder, or two formats, are two measurements."""
    params = SCORE | {"dtype": "float32", "revision": "a", "quantization": None}
    for n, other in enumerate(
        ({}, {"dtype": "bfloat16"}, {"revision": "b"}, {"revision": "c", "quantization": "nf4"})
    ):
        cache.save("scores", params | other, {"n": n}, 0)
    archive = results.archive(paths.RESULTS)

    def number_of(**weights):
        params = SCORE | {"dtype": None, "quantization": None} | weights
        record = archive.find("scores", params)
        return record and record["values"]["n"]

    assert number_of(dtype="float32", revision="a") == 0
    assert number_of(dtype="bfloat16") == 1 and number_of(dtype="float16") is None
    assert number_of(revision="b") == 2
    assert number_of(revision="c", quantization="nf4") == 3 and number_of(revision="c") is None
    for weights in ({}, {"dtype": "float32"}, {"revision": "a"}):
        with pytest.raises(results.AmbiguousError, match="say which"):
            number_of(**weights)


def test_an_archive_leaves_out_what_is_not_valid(output):
    cache.save("scores", SCORE, {"n": 1}, 0)
    healed = paths.RESULTS / "adapters" / "0123" / "healed.json"
    healed.parent.mkdir(parents=True)
    healed.write_text("{}")
    assert len(list(results.archive(paths.RESULTS).records())) == 1
    file = cache.location("scores", SCORE)
    whole = file.read_text()
    for damaged in ("", whole[:40], "[]", whole.replace('"block_start":13', '"block_start":14')):
        file.write_text(damaged)
        assert not list(results.archive(paths.RESULTS).records()) and file.exists()


def test_each_depth_has_its_own_score(output):
    """A cache that is not keyed by the block gives every depth the unpruned score."""
    table = measured(Block(1, 2), Block(3, 2))
    again = measured(Block(3, 2), Block(1, 2))
    assert table.value.nunique() == 3
    assert again.value.tolist() == [table.value[0], table.value[2], table.value[1]]
    assert len(list((output / "data/results/scores/tiny-random").iterdir())) == 3


def test_only_what_is_missing_is_measured(output, monkeypatch):
    measured(Block(1, 2))
    swept = []
    real = sweep.sweep

    def noted(model, tokenizer, blocks, *rest):
        swept.extend(blocks)
        return real(model, tokenizer, blocks, *rest)

    monkeypatch.setattr(sweep, "sweep", noted)
    measured(Block(1, 2), Block(2, 2))
    assert swept == [Block(2, 2)]
    monkeypatch.setattr(loading, "load_cached", lambda *a, **k: pytest.fail("loaded again"))
    table = measured(Block(1, 2), Block(2, 2), UNPRUNED)
    assert len(table) == 3
