"""Tables: measured, written and read, and the cache filled again from them."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from lib.blocks import Block
from replication import figures, measure, paths, profiles, tables
from replication.beyond import dose
from replication.measure import cache, damage, experiments, fetching, restore
from replication.measure import request as requests_of

SMOKE = profiles.get("smoke")
NAME = "tiny-random"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with the tables of a few experiments, and the cache that they were made from."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "RESULTS", folder / "results")
        patch.setattr(paths, "TABLES", folder / "tables")
        maps, profile = measure.distances(SMOKE)
        for experiment in (experiments.unhealed, dose.trainings, damage.damage):
            measure.table(experiment, maps, profile)
    return folder


def test_a_table_says_what_pandas_reads(run):
    """A student's way: no code of ours."""
    table = pd.read_parquet(run / "tables" / "smoke" / "unhealed.parquet")
    row = table[(table.task == "arc_easy") & (table.block_size == 2)].iloc[0]
    params = json.loads(row.request)
    assert (params["kind"], params["model"], params["block_size"]) == ("scores", NAME, 2)
    assert row.value == pytest.approx(np.average(row.examples, weights=row.weights))
    likeliest = [choices.argmax() for choices in row.choices]
    assert row.value == pytest.approx(np.mean(np.equal(likeliest, row.answers)))
    assert json.loads(row.environment)["torch"]


def test_distances_go_through_their_table(run, monkeypatch):
    monkeypatch.setattr(paths, "TABLES", run / "tables")
    (of_table,) = tables.maps(SMOKE).values()
    monkeypatch.setattr(paths, "RESULTS", run / "results")
    (keyed,) = fetching.keyed_by_machine([requests_of.similarity(NAME, SMOKE)])
    values = cache.load(keyed.kind, keyed.params)["values"]
    for name in tables.ARRAYS:
        np.testing.assert_allclose(getattr(of_table, name), np.array(values[name]), rtol=1e-12)


def test_the_cache_is_filled_again_from_tables(run, tmp_path, monkeypatch):
    """In a clean clone nothing is measured twice: scores, healings, distances and damage."""
    measured = {}
    monkeypatch.setattr(paths, "RESULTS", run / "results")
    for record in cache.stored():
        measured[record["key"]] = record
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    restore.restore(run / "tables" / "smoke")
    again = {record["key"]: record for record in cache.stored()}
    assert again.keys() == measured.keys()
    for key, record in again.items():
        first = measured[key]
        assert {**record, "values": 0, "restored": 0} == {**first, "values": 0, "restored": 0}
        for name in record["values"].keys() - {"adapter"}:
            values = record["values"][name], first["values"][name]
            if name in ("losses", *tables.ARRAYS):
                np.testing.assert_allclose(*map(np.array, values), rtol=1e-12)
            else:
                assert values[0] == values[1], (record["kind"], name)
    assert restore.restore(run / "tables" / "smoke") == len(again)  # what is there stays


def test_a_table_that_is_not_there_is_said_to_be_missing(output):
    with pytest.raises(tables.NotMeasured, match="unhealed"):
        tables.read("unhealed", SMOKE)


def test_what_was_not_measured_is_a_row_that_says_so(output, monkeypatch):
    monkeypatch.setenv(cache.DRAW_ONLY, "1")
    wanted = [requests_of.score(NAME, SMOKE, "c4", Block(1, 2), strategy="simple", fraction=0.2)]
    (row,) = measure.scores.table(wanted).to_dict("records")
    assert np.isnan(row["value"]) and row["status"] == "not measured" and row["fraction"] == 0.2


def test_a_figure_is_drawn_from_its_table_by_six_files(output):
    """Of ours, all that are entered between the table on the disk and the picture beside it."""
    profile, entered = profiles.get(profiles.DRAWN), set()

    def enter(frame, event, _):
        entered.add(frame.f_code.co_filename)

    sys.setprofile(enter)
    try:
        table = tables.read("unhealed", profile)
        figures.save(figures.figure_2(table), "figure_2", profile)
    finally:
        sys.setprofile(None)
    ours = {
        name for name in entered if name.startswith((f"{paths.ROOT}/lib", f"{paths.ROOT}/repl"))
    }
    assert len(ours) <= 6, ours
