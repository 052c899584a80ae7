"""Tables: measured, written and read, and the cache filled again from them."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from lib.blocks import Block
from replication import figures, measure, paths, profiles, tables
from replication.measure import cache, fetching, request, restore
from replication.run.notebooks import NOTEBOOKS

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


def test_every_experiment_has_its_table(run):
    names = {of.__name__ for notebook in NOTEBOOKS.values() for of in notebook.experiments}
    assert names <= {*tables.names(run)}


def test_the_cache_is_filled_again_from_tables(run, tmp_path, monkeypatch):
    """In a clean clone nothing is measured twice: scores, healings, distances and damage."""
    stored = (record for kind in restore.VALUES for record in cache.stored(kind))
    measured = {record["key"]: record for record in stored}
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    restore.restore(run)
    again = {record["key"]: record for record in cache.stored()}
    lost = measured.keys() - again.keys()
    assert again.keys() <= measured.keys() and again
    assert {measured[key]["kind"] for key in lost} <= {"healing"}  # whose scores are there
    for key, record in again.items():
        first = measured[key]
        assert {**record, "values": 0, "restored": 0} == {**first, "values": 0, "restored": 0}
        for name in record["values"].keys() - {"adapter"}:
            values = record["values"][name], first["values"][name]
            if name in ("losses", *tables.ARRAYS):
                np.testing.assert_allclose(*map(np.array, values), rtol=1e-12)
            else:
                assert values[0] == values[1], (record["kind"], name)
    assert restore.restore(run) == len(again)  # what is there stays


def test_distances_go_through_their_table(run):
    (of_table,) = tables.maps(SMOKE).values()
    (keyed,) = fetching.keyed_by_machine([request.similarity(NAME, SMOKE)])
    values = cache.load(keyed.kind, keyed.params)["values"]
    for name in tables.ARRAYS:
        np.testing.assert_allclose(getattr(of_table, name), np.array(values[name]), rtol=1e-12)


def test_what_was_not_measured_is_said(output, monkeypatch):
    """A table that is not there, and a score in one: a row without a value."""
    with pytest.raises(tables.NotMeasured, match="unhealed"):
        tables.read("unhealed", SMOKE)
    monkeypatch.setenv(cache.DRAW_ONLY, "1")
    wanted = [request.score(NAME, SMOKE, "c4", Block(1, 2), strategy="simple", fraction=0.2)]
    (row,) = measure.scores.table(wanted).to_dict("records")
    assert np.isnan(row["value"]) and row["status"] == "not measured" and row["fraction"] == 0.2


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
