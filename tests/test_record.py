"""The lines of an export, read back; what prose quotes of the record; runs beside it."""

import json
import re
import shutil

import nbformat
import pandas as pd
import pytest
from conftest import measured_scores

from lib.blocks import Block
from lib.models import loading
from replication import paths, profiles
from replication.measure import cache
from replication.run import notebooks
from scripts import numbers, record

PARAMS = {"model": "tiny-random", "block_start": 1, "block_size": 2}
SMOKE = profiles.get("smoke")


@pytest.fixture
def recorded(output, monkeypatch):
    monkeypatch.setattr(paths, "RECORDED", output / "recorded")
    monkeypatch.setattr(profiles, "RECORDED", "smoke")
    return output / "recorded" / "smoke"


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.glob("*.jsonl")}


def description(folder):
    """What run.json says."""
    return results.archive(folder).run


def test_a_failed_notebook_is_recorded_as_failed(recorded, capsys):
    assert record.record("smoke", ["99"]) == 1
    assert description(recorded)["notebooks"]["99"]["exit_status"] == 2


# ---- results as lines ----------------------------------------------------------------------

HEALED = PARAMS | {"task": "c4", "recipe": {"rank": 8, "seed": 0}, "learning_rate": 1e-3}
SCORES = "scores.tiny-random.c4.healed.jsonl"
VALUES = {"value": 0.1234567891, "n": 3, "examples": [1.0, 0.0, 2 / 3], "weights": [1 / 3] * 3}


@pytest.fixture
def measured(recorded, monkeypatch):
    """Two results in the workplace; in another environment than the recording began with: one."""
    monkeypatch.setattr(paths, "RESULTS", record.workplace("smoke") / "data" / "results")
    record.describe("smoke", "01", 0, 60)
    cache.save("scores", HEALED, VALUES, 1.5)
    monkeypatch.setattr(results, "environment", lambda: {"torch": "another"})
    cache.save("healing", HEALED, {"status": "diverged", "losses": []}, 0, "diverged")
    assert record.export("smoke") == 0
    return recorded


def test_a_line_says_only_what_follows_from_nothing_else(measured):
    line = json.loads((measured / SCORES).read_text())
    assert line == {
        "params": HEALED,
        "status": "ok",
        "values": VALUES
        | {"value": 0.1234568, "examples": [1.0, 0.0, 0.6666667]}
        | {"weights": 0.3333333},
        "seconds": 1.5,
    }
    (other,) = (measured / SCORES.replace("scores", "healing")).read_text().splitlines()
    assert json.loads(other)["environment"] == {"torch": "another"}


def test_a_restored_result_is_found_and_exported_as_it_was(measured):
    first, live = contents(measured), cache.load("scores", HEALED)
    shutil.rmtree(paths.RESULTS)
    assert record.restore("smoke") == 2
    restored = cache.load("scores", HEALED)
    rounded = {"value": 0.1234568, "examples": [1.0, 0.0, 0.6666667], "weights": [0.3333333] * 3}
    assert restored == live | {"values": VALUES | rounded, "restored": True}
    assert cache.load("healing", HEALED)["environment"] == {"torch": "another"}
    assert cache.load("healing", HEALED)["status"] == "diverged"
    assert record.export("smoke") == 0 and contents(measured) == first


def test_what_the_workplace_still_holds_is_not_replaced_by_rounded_numbers(measured):
    live = cache.load("scores", HEALED)
    record.restore("smoke")
    assert cache.load("scores", HEALED) == live


def test_the_committed_run_is_restored_and_exported_as_it_is(recorded):
    """Every line: its key, and so its file, follows from its parameters."""
    committed = paths.ROOT / "data" / "recorded" / "overnight"
    shutil.copytree(committed, recorded)
    assert record.restore("smoke") == sum(
        map(len, map(bytes.splitlines, contents(committed).values()))
    )
    for kind in ("similarity", "scores", "damage"):
        assert list((record.workplace("smoke") / "data/results" / kind / "smollm2-135m").iterdir())
    next(recorded.glob("scores.*.jsonl")).unlink()
    assert record.export("smoke") == 0 and contents(recorded) == contents(committed)


def test_only_valid_results_are_restored(measured, caplog):
    file, described = measured / SCORES, measured / "run.json"
    (measured / SCORES.replace("scores", "healing")).unlink()
    shutil.rmtree(paths.RESULTS)
    whole, description = file.read_text(), described.read_text()
    damages = (
        "\n",
        whole[:40],
        "[]\n",
        whole.replace("0.1234568", "NaN"),
        whole.replace("8", "Infinity", 1),
        whole.replace('"examples"', '"weight"'),
        whole.replace('"status"', '"state"', 1),
        whole.replace('"seconds"', '"schema":0,"seconds"'),
    )
    for damaged in damages:
        caplog.clear()
        file.write_text(damaged)
        assert record.restore("smoke") == 0 and len(caplog.records) == 1, damaged
        assert f"{SCORES}, line 1," in caplog.text and not paths.RESULTS.exists()
    file.write_text(whole)
    described.write_text(description.replace('"schema": 1', '"schema": 0'))
    assert record.restore("smoke") == 0
    described.write_text(description)
    file.write_text(damages[1] + "\n" + whole)
    assert record.restore("smoke") == 1


def test_files_too_large_to_commit_are_left_out(recorded, capsys):
    folder = record.workplace("smoke") / "figures" / "smoke"
    folder.mkdir(parents=True)
    (folder / "figure_4.png").write_bytes(b"x")
    assert record.export("smoke") == 0
    (folder / "figure_2.png").write_bytes(b"x" * 250_001)
    assert record.export("smoke") == 1
    assert "figure_2.png has 250,001 bytes" in capsys.readouterr().err
    assert [p.name for p in (paths.FIGURES / "smoke").iterdir()] == ["figure_4.png"]


def test_what_is_committed_is_small():
    recorded = [*paths.RECORDED.rglob("*.json"), *paths.RECORDED.rglob("*.jsonl")]
    committed = [*paths.ROOT.glob(f"figures/{profiles.RECORDED}/*.png"), *recorded]
    assert committed
    for file in committed:
        assert file.stat().st_size <= record.LARGEST.get(file.suffix, 2_000_000), file


def test_every_recorded_figure_is_one_of_the_run_and_has_its_table():
    folder = paths.ROOT / "figures" / profiles.RECORDED
    for picture in folder.glob("figure_*.png"):
        assert picture.stem in notebooks.FIGURES and picture.with_suffix(".csv").exists(), picture


def test_a_reader_never_reads_the_recorded_run(recorded, monkeypatch):
    """The same scores, recorded: a reader's run measures them all the same."""
    measured_scores("tiny-random", SMOKE, [Block(1, 2)], ["c4"])
    shutil.move(paths.RESULTS, recorded)
    monkeypatch.setattr(loading, "load_cached", lambda *a, **k: pytest.fail("measured"))
    with pytest.raises(pytest.fail.Exception, match="measured"):
        measured_scores("tiny-random", SMOKE, [Block(1, 2)], ["c4"])


# ---- numbers in prose ----------------------------------------------------------------------

NUMBERED = {number: f"notebooks/{of.file}.ipynb" for number, of in notebooks.NOTEBOOKS.items()}
FINDINGS = re.compile(r"^## What we found\n(.*?)(?=^#|\Z)", re.DOTALL | re.MULTILINE)
DECIMAL = re.compile(r"(?<![\w.])\d+\.\d+(?![\dB])")  # not that of Qwen2.5 or of 0.5B
NOT_MEASURED = {  # decimals in findings that are no measurements of the record
    "05": {"0.1"},  # the bound of claim 9b
    "08": {"0.01", "0.1"},  # thresholds
    "13": {"0.25"},  # "less than"
}


def prose(page: str) -> str:
    """The text of a page; of a notebook, that of its cells without code."""
    text = (paths.ROOT / page).read_text(encoding="utf-8")
    if page.endswith(".ipynb"):
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return text


@pytest.fixture(scope="module")
def quotes():
    return numbers.read()


@pytest.mark.record
def test_the_table_of_numbers_is_what_the_record_says(quotes):
    """`python -m scripts.numbers` renews it."""
    pd.testing.assert_frame_equal(numbers.renewed(quotes), quotes, **AS_RECORDED)


def test_each_number_of_the_table_stands_on_its_page(quotes):
    for page, rows in quotes.groupby("where"):
        text = " ".join(prose(page).split())
        for row in rows.itertuples():
            quoted = rf"(?<![\w.,+-]){re.escape(row.quoted)}(?!\w|[.,]\d)"
            assert re.search(quoted, text), f"{page} does not say {row.quoted} ({row.source})"


@pytest.mark.parametrize("number", ["README", *list(NUMBERED)[1:]])  # the tour has no findings
def test_each_decimal_of_the_findings_is_in_the_table(number, quotes):
    page = NUMBERED.get(number, "README.md")
    (findings,) = FINDINGS.findall(prose(page))
    quoted = " ".join(quotes.quoted[quotes["where"] == page])
    unknown = set(DECIMAL.findall(findings)) - set(DECIMAL.findall(quoted))
    assert unknown == NOT_MEASURED.get(number, set())


@pytest.mark.parametrize(
    "quoted, value, renewed",
    [
        ("0.48", 0.475, "0.48"),
        ("6 %", 0.0615, "6 %"),
        ("20th", 9, "9th"),
        ("1,000", 2376, "2,376"),
        ("0.02", -0.031, "0.03"),
        ("-0.02", -0.0001, "0.00"),
        ("+0.02", -0.031, "-0.03"),
        ("0.02 ± 0.01", -0.031, "0.03 ± 0.02"),
        ("0.02 [0.00, 0.04]", -0.031, "0.03 [-0.01, 0.05]"),
        ("-0.02 [-0.04, 0.00]", -0.031, "-0.03 [-0.05, 0.01]"),
    ],
)
def test_a_number_is_rounded_as_it_is_quoted(quoted, value, renewed):
    measurement = {"value": value, "standard_error": 0.02, "low": -0.05, "high": 0.01}
    assert numbers.requoted(quoted, measurement) == renewed


def test_a_changed_number_is_printed(tmp_path, monkeypatch, capsys, quotes):
    monkeypatch.setattr(numbers, "FILE", tmp_path / "numbers.csv")
    source = quotes.source[0]
    quotes[:1].assign(where="a page", quoted="999.0").to_csv(numbers.FILE)
    assert numbers.main([]) == 0
    assert f"a page: 999.0 is {quotes.value[0]:.1f} now ({source})" in capsys.readouterr().out
    quotes[:1].assign(source="nothing").to_csv(numbers.FILE)
    assert numbers.main([]) == 2
    assert "no measurement is called 'nothing'" in capsys.readouterr().err
