"""Tables: measured, written and read, and the cache filled again from them."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from replication import figures, paths, profiles, tables
from replication.measure import cache, restore

SMOKE = profiles.get("smoke")
NAME = "tiny-random"


@pytest.fixture
def run(smoke_run, monkeypatch):
    """The folder of the tables of a whole run; its results and tables are at hand."""
    monkeypatch.setattr(paths, "RESULTS", smoke_run / "data/results")
    monkeypatch.setattr(paths, "TABLES", smoke_run / "data/tables")
    return smoke_run / "data/tables/smoke"


def test_a_table_says_what_pandas_reads(run):
    """A student's way: no code of ours."""
    table = pd.read_parquet(run / "unhealed.parquet")
    row = table[(table.task == "arc_easy") & (table.block_size == 2)].iloc[0]
    params = json.loads(row.request)
    assert (params["kind"], params["model"], params["block_size"]) == ("scores", NAME, 2)
    assert row.value == pytest.approx(np.average(row.examples, weights=row.weights))
    likeliest = [choices.argmax() for choices in row.choices]
    assert row.value == pytest.approx(np.mean(np.equal(likeliest, row.answers)))
    assert json.loads(row.environment)["torch"]


def test_the_cache_is_filled_again_from_tables(run, tmp_path, monkeypatch):
    """In a clean clone few things are measured twice: no score, no healing, no distances."""

    def by_key() -> dict[str, dict]:
        stored = (record for kind in restore.VALUES for record in cache.stored(kind))
        return {record["key"]: record for record in stored}

    measured = by_key()
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    restore.restore(run)
    again = by_key()
    assert again.keys() <= measured.keys() and again
    lost = measured.keys() - again.keys()
    assert {measured[key]["kind"] for key in lost} <= {"healing"}  # whose scores are there
    for key, record in again.items():
        first, values = measured[key], record.pop("values")
        assert record.pop("restored") and record == {name: first[name] for name in record}
        for name in values.keys() - {"adapter"}:
            if name in tables.ARRAYS:
                pair = np.array(values[name]), np.array(first["values"][name])
                np.testing.assert_allclose(*pair, rtol=1e-12)
            else:
                assert values[name] == first["values"][name], (record["kind"], name)


def test_a_table_that_is_not_there_is_said(output):
    with pytest.raises(tables.NotMeasured, match="unhealed"):
        tables.read("unhealed", SMOKE)


def test_a_figure_is_drawn_from_its_table_by_six_files(output):
    """Of ours, all that are entered between the table on the disk and the picture beside it."""
    profile, entered = profiles.get(profiles.DRAWN), set()
    sys.setprofile(lambda frame, event, _: entered.add(frame.f_code.co_filename))
    try:
        table = tables.read("unhealed", profile)
        figures.save(figures.figure_2(table), "figure_2", profile)
    finally:
        sys.setprofile(None)
    rooms = tuple(str(paths.ROOT / room) for room in ("lib", "replication"))
    ours = {name for name in entered if name.startswith(rooms)}
    assert len(ours) <= 6, ours
