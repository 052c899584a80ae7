"""The fastest format is measured once, kept with the results, and can be asked for otherwise."""

import json
import logging
from threading import Thread

import pytest
import torch

from lib.models import loading, machine, registry
from replication import __main__ as run
from replication import paths, profiles
from replication.plan import assumptions, estimates
from replication.run import notebooks
from scripts import record


@pytest.fixture
def clock(output, monkeypatch):
    """Seconds of each format, as a test says; and which were timed."""
    times, asked = {"bfloat16": 2.0, "float32": 1.0}, []

    def seconds(dtype):
        asked.append(dtype)
        return times[dtype]

    monkeypatch.setattr(machine, "seconds", seconds)
    monkeypatch.setattr(loading, "default_device", lambda: "cpu")
    monkeypatch.setattr(machine, "processor", lambda device="cpu": "Abacus 9")
    return times, asked


@pytest.mark.parametrize("slow, fast", [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_the_faster_format_is_taken_and_remembered(clock, slow, fast):
    times, asked = clock
    times |= {slow: 3.0, fast: 1.0}
    assert loading.default_dtype("cpu") == fast
    times |= {slow: 1.0, fast: 3.0}  # a busy moment later
    count = len(asked)
    quick = profiles.get("quick")
    assert (
        loading.default_dtype("cpu")
        == loading.weights_identity("tiny-random", **quick.load_kwargs)["dtype"]
        == fast
    )
    assert loading.load("tiny-random")[0].dtype == getattr(torch, fast)
    assert len(asked) == count


def test_a_run_that_resumes_on_another_processor_keeps_its_format(clock, monkeypatch, caplog):
    times, _ = clock
    loading.default_dtype("cpu")
    monkeypatch.setattr(machine, "processor", lambda device="cpu": "Loom 2")
    times |= {"bfloat16": 0.1}
    with caplog.at_level(logging.WARNING):
        assert [loading.default_dtype("cpu") for _ in range(3)] == ["float32"] * 3
    [told] = caplog.records
    assert "stay in float32" in told.message and "Abacus 9, this is Loom 2" in told.message


def test_a_dtype_that_is_asked_for_overrides_it(clock):
    _, asked = clock
    profile = profiles.get("quick", dtype="bfloat16")
    assert loading.weights_identity("tiny-random", **profile.load_kwargs)["dtype"] == "bfloat16"
    assert loading.load_cached("tiny-random", **profile.load_kwargs)[0].dtype == torch.bfloat16
    assert not asked and not machine.remembered()


def test_the_first_of_several_processes_decides(clock, monkeypatch):
    times, _ = clock
    found = []
    threads = [Thread(target=lambda: found.append(machine.fastest())) for _ in range(8)]

    def seconds(dtype):
        times["bfloat16"] = -times["bfloat16"]  # no two measurements agree
        return times[dtype]

    monkeypatch.setattr(machine, "seconds", seconds)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and set(found) == {machine.remembered()["dtype"]}


@pytest.mark.parametrize("damage", ["{", "{}", '{"dtype": "int3", "processor": "x"}', "[]"])
def test_a_damaged_memory_is_set_aside(clock, caplog, damage):
    loading.default_dtype("cpu")
    file = paths.RESULTS / "format.json"
    file.write_text(damage)
    assert loading.default_dtype("cpu") == "float32"
    assert file.with_name("format.json.corrupt").read_text() == damage
    assert json.loads(file.read_text())["dtype"] == "float32" and "set aside" in caplog.text


def test_both_formats_are_timed_in_turn(clock):
    _, asked = clock
    found = machine.measured()
    assert asked == list(machine.TRIED) * (machine.TURNS + 1)
    assert found == {"dtype": "float32", "seconds": {"bfloat16": 2.0, "float32": 1.0}}


def test_the_clock_runs_while_matrices_are_multiplied():
    assert all(machine.seconds(dtype) > 0 for dtype in machine.TRIED)


def test_unknown_names_are_one_sentence(capsys):
    for wrong in ("int3", 1, ""):
        with pytest.raises(ValueError, match="Unknown dtype .*: choose one of bfloat16, float32"):
            profiles.get("quick", dtype=wrong)
    with pytest.raises(registry.ModelError, match="Unknown dtype 'int3'"):
        loading.load("tiny-random", dtype="int3")
    assert run.main(["--dtype", "int3"]) == 2
    said = capsys.readouterr()
    assert said.err == "Unknown dtype 'int3': choose one of bfloat16, float32, float16.\n"


def test_every_notebook_takes_a_dtype(monkeypatch):
    told = []
    monkeypatch.setattr(run, "run", lambda options, *rest: told.append(rest) or 0)
    assert run.main(["--profile", "smoke", "--dtype", "bfloat16"]) == 0
    [(profile, numbers, parameters)] = told
    assert profile.dtype == parameters["DTYPE"] == "bfloat16" and numbers == list(
        notebooks.NOTEBOOKS
    )
    for notebook in notebooks.NOTEBOOKS.values():
        source = (paths.NOTEBOOKS / f"{notebook.file}.ipynb").read_text(encoding="utf-8")
        call = source[source.index("profiles.get(") :]
        assert "DTYPE" in call[: call.index(")")]


def test_a_plan_measures_nothing_and_counts_what_is_kept(clock):
    _, asked = clock
    assert assumptions.get("cpu").element == 2 and not asked
    loading.default_dtype("cpu")
    assert assumptions.get("cpu").element == 4
    asked_for = profiles.get("quick", dtype="bfloat16")
    assert estimates.adjusted(assumptions.get("cpu"), asked_for).element == 2


def test_a_recording_keeps_its_format(clock, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "RECORDED", tmp_path / "recorded")
    kept = record.workplace("smoke") / "data" / "results" / "format.json"
    kept.parent.mkdir(parents=True)
    begun = {"dtype": "float32", "processor": "Abacus 9"}
    kept.write_text(json.dumps(begun))
    record.describe("smoke", "02", 0, 60.0)
    kept.unlink()
    record.restore("smoke")
    assert json.loads(kept.read_text()) == begun


@pytest.mark.parametrize("supported, expected", [(True, "bfloat16"), (False, "float32")])
def test_a_gpu_without_bf16_computes_in_fp32(monkeypatch, supported, expected):
    asked = []
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda **how: asked.append(how) or supported
    )
    assert loading.default_dtype("cuda") == expected
    assert asked == [{"including_emulation": False}]  # or a V100 would say that it can
