"""`make prune` with a budget: the table of sizes, and the choice by it."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import LAYERS, make_in_process, stored, text, tiny

from lib import storage
from lib.evaluation import TASK_SPECS, Task
from lib.models import loading
from lib.prune import Options, prune, run, sizes, steps

TABLE = {"sizes": "table", "repair": "map", "limit": 4, "tasks": "arc_easy"}
pytestmark = pytest.mark.usefixtures("computes_in_fp32", "asks_of_every_cut")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A tiny model in bf16, a folder beside which its table lies, and the record."""
    folder = tmp_path_factory.mktemp("sizes")
    model = str(stored(tiny("llama").to(torch.bfloat16), folder / "model"))
    return model, folder / "smaller", prune(Options(model, **TABLE), folder / "smaller")


def test_each_size_has_the_block_and_the_loss_of_a_call_with_layers(measured, tmp_path):
    """Block, parameters, loss of cut and map; and nothing is written but the table."""
    model, out, record = measured
    whole, *rows = record["sizes"]
    assert [row["dropped"] for row in rows] == list(range(1, LAYERS))
    assert not out.exists()
    one = prune(Options(model, layers=2, repair="map", limit=4, tasks="arc_easy"), tmp_path / "one")
    assert rows[1]["start"] == one["block"]["start"]
    for version in one["versions"][:3]:
        row = whole if version["version"] == "whole" else rows[1]
        assert row["layers"] == version["layers"]
        assert row["parameters"] == version["parameters"]
        assert row["gb"] == version["parameters"] * 2 / 1e9  # of bf16
        for task in ("c4", "arc_easy"):
            name = f"{version['version']}_{task}"
            assert [row[name], row[f"{name}_error"]] == pytest.approx(version["scores"][task])
            apart = [row[f"{name}_rise"], row[f"{name}_rise_error"]]
            assert apart == pytest.approx(version["to_whole"][task], abs=1e-6)
    saved = pd.read_csv(storage_of(out) / "sizes.csv")
    assert list(saved.mapped_c4[1:]) == pytest.approx([row["mapped_c4"] for row in rows])


def storage_of(out):
    """The folder of the table."""
    (table,) = out.parent.glob("smaller.work/sizes-*")
    return table


def test_a_budget_takes_the_size_and_the_card_has_the_table(measured, capsys):
    """Nothing is measured again; the checkpoint is that of LAYERS, byte for byte."""
    model, out, record = measured
    gb = record["sizes"][3]["gb"]
    words = [f"MODEL={model}", f"OUT={out}", "REPAIR=map", "LIMIT=4", "TASKS=arc_easy"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sizes, "_measure", None)
        assert make_in_process(*words, f"GB={gb}") == 0
    assert f"3 of {LAYERS} layers are dropped" in capsys.readouterr().out
    card = text(out / "README.md")
    assert f"GB={gb}" in card and "## Other sizes" in card
    line = next(line for line in card.splitlines() if line.startswith("| 3 |"))
    row = record["sizes"][3]
    assert f"{row['cut_c4']:.3f} ± {row['cut_c4_error']:.3f}" in line
    assert f"{row['mapped_c4_rise']:+.3f} ± {row['mapped_c4_rise_error']:.3f}" in line
    assert (out / "sizes.png").exists() and (out / "sizes.csv").exists()
    again = out.with_name("again")
    prune(Options(model, layers=3, repair="map", limit=4, tasks="arc_easy"), again)
    assert storage.digest(out / "model.safetensors") == storage.digest(again / "model.safetensors")


def test_a_table_that_was_interrupted_is_undisturbed(measured, tmp_path, monkeypatch):
    """What was measured is not measured again."""
    model, _, record = measured
    call, score = Options(model, **TABLE), steps.Work.score

    def stop(work, *arguments):
        if work.tasks[0].name == "arc_easy":
            raise KeyboardInterrupt
        score(work, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(steps.Work, "score", stop)
        with pytest.raises(KeyboardInterrupt):
            prune(call, tmp_path / "smaller")
    scored = []
    monkeypatch.setattr(
        steps.Work, "score", lambda work, *a: scored.append(work.tasks[0].name) or score(work, *a)
    )
    rows = prune(call, tmp_path / "smaller")["sizes"]
    assert scored == ["arc_easy"]
    timed = ("tokens_per_second", "speed")
    for row, expected in zip(rows, record["sizes"], strict=True):
        assert {k: v for k, v in row.items() if k not in timed} == {
            k: v for k, v in expected.items() if k not in timed
        }


ROWS = [
    {"dropped": n, "layers": 6 - n, "gb": 6 - n, "speed": 6 / (6 - n)}
    | {"cut_c4_rise": [0, 0.1, 0.3, 0.25, 2, 4][n], "mapped_c4_rise": [0, 0.05, 0.1, 0.2, 1, 3][n]}
    for n in range(6)
]


@pytest.mark.parametrize(
    "budget, expected",
    [
        ({"gb": 3.5}, 3),
        ({"gb": 4}, 2),
        ({"speed": 1.3}, 2),
        ({"loss": 0.3}, 3),
        ({"loss": 0.15}, 1),
        ({"loss": 0.15, "repair": "map"}, 2),
        ({"gb": 0.5}, "No size fits GB=0.5: after dropping 5 of 6 layers it has 1 GB"),
        ({"gb": 6}, "GB=6: the whole model has 6 GB of weights, so nothing has to go"),
        ({"speed": 7}, "No size fits SPEED=7: after dropping 5 of 6 layers it has 6.00 times"),
        ({"loss": 0.01}, r"No size fits LOSS=\+0.01: after dropping 1 of 6 layers .* \+0.100 nats"),
    ],
)
def test_a_budget_is_kept_with_the_fewest_layers_or_the_least_loss(budget, expected):
    call = Options("a", **budget)
    if isinstance(expected, int):
        assert sizes.choose(call, ROWS) == expected
    else:
        with pytest.raises(ValueError, match=expected):
            sizes.choose(call, ROWS)


@pytest.mark.parametrize(
    "gb, sentence", [(1, "the whole model has"), (1e-9, "No size fits GB=1e-09: with one layer")]
)
def test_a_size_that_cannot_be_ends_before_weights_are_read(gb, sentence, measured, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load", None)
        with pytest.raises(ValueError, match=sentence):
            prune(Options(measured[0], gb=gb), tmp_path / "smaller")


def test_speed_lies_between_what_was_measured():
    """Of the whole and of the smallest model; here the seconds are made up."""
    versions = [
        {"version": name, "start": 0, "layers": 1, "parameters": 1}
        | {"scores": {"c4": [1, 0]}, "to_whole": {"c4": [0, 0]}}
        for name in ("whole", "cut 1", "cut 2", "cut 3")
    ]
    times = {"whole": 0.4, "smallest": 0.1, "dropped": 3}
    rows = sizes._rows({"c4": versions}, times, 2)
    assert [row["tokens_per_second"] for row in rows] == pytest.approx([2.5, 10 / 3, 5, 10])
    assert [row["speed"] for row in rows] == pytest.approx([1, 4 / 3, 2, 4])


def test_questions_of_a_task_file_that_changed_are_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "check_room", lambda *_: None)
    monkeypatch.setattr(sizes, "measure", lambda work, checkpoint: [])
    checkpoint, call = SimpleNamespace(num_layers=6), Options("any", sizes="table")
    tables = []
    for question in "aba":
        task = Task("lm_eval:riddles", ({"prompt": question},), TASK_SPECS["arc_easy"])
        tables.append(run.table_of_sizes(call, checkpoint, [task], tmp_path, "revision")[1])
    assert tables[0] == tables[2] != tables[1]
