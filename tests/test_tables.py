"""Tables: measured, written and read, and the cache filled again from them."""

import json
import re
import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest

from replication import notebook, paths, tables
from replication.measure import cache, fetching
from replication.measure.request import Request

NAME = "tiny-random"
OF_ONE_ROW = ("scores", "repair", "translator", "healing")  # kinds of result
VALUES = {"value", "examples", "weights", "choices", "answers", "losses", "folds"}
VALUES |= {"status", "environment"}


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
    assert params["kind"] == "scores"
    assert params["model"] == NAME
    assert params["block_size"] == 2
    assert row.value == pytest.approx(np.average(row.examples, weights=row.weights))
    likeliest = [choices.argmax() for choices in row.choices]
    assert row.value == pytest.approx(np.mean(np.equal(likeliest, row.answers)))


def test_cells_that_run_the_model_show_what_the_table_has(smoke_run, run):
    """Notebook 02's: the choices of the first question that the whole model answers, added up by
    hand, and few questions."""
    copy = nbformat.read(smoke_run / "papermill_runs/smoke/02_pruning_curves.ipynb", 4)
    by_hand, swept = (c.outputs for c in copy.cells if c.source.startswith(notebook.LIVE))
    nats = re.findall(r"(\S+) nats", "".join(output.get("text", "") for output in by_hand))
    few = re.findall(r"^\d +tiny-random +(\d+) +8 +(\S+)", swept[-1].data["text/plain"], re.M)
    table = pd.read_parquet(run / "unhealed.parquet")
    rows = table[(table.task == "arc_easy") & (table.strategy != "simple")].set_index("block_size")
    number = int(rows.examples[0].argmax())
    np.testing.assert_allclose(np.array(nats, float), rows.choices[1][number], atol=0.06)
    assert [float(value) for _, value in few] == [rows.value[int(size)] for size, _ in few]
    assert len(few) == 2


def test_a_run_goes_on_from_copied_tables(run, tmp_path, monkeypatch):
    """In a clean clone few things are measured twice: no score, no healing, no distances."""
    own = {kind: list(cache.stored(kind)) for kind in ("similarity", "states", *OF_ONE_ROW)}
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    shutil.copytree(run, cache.record_folder())
    for kind, results in own.items():
        pairs = [(rows, cache.load(kind, cache.params_of(rows))) for rows in results]
        assert any(again for _, again in pairs)
        for rows, again in pairs:
            assert again or kind == "healing"  # only those of notebook 03 have a table
            again = again[:1] if again and kind in OF_ONE_ROW else again  # a row a variant
            for row, other in zip(rows, again or rows, strict=True):
                for name in row.keys() & VALUES:
                    assert cache.canonical(other[name]) == cache.canonical(row[name]), name


def test_what_was_not_measured_is_no_result_of_a_record(output):
    """Nor what had no memory, which the next run tries again."""
    params = {status: {"model": NAME, "status": status} for status in ("ok", "oom", "not measured")}
    rows = [
        cache.origin("scores", of, status, 1.0, None if status == "not measured" else {"cores": 2})
        for status, of in params.items()
    ]
    tables.write_file(pd.DataFrame(rows), cache.record_folder() / "unhealed.parquet")
    assert cache.load("scores", params["ok"])[0]["took"] == 1.0
    for status in ("oom", "not measured"):
        assert cache.load("scores", params[status]) is None
        assert not cache.exists("scores", params[status])
    assert len(list(cache.stored("scores"))) == 1


def test_a_healing_without_its_adapter_is_made_again(run, tmp_path, monkeypatch):
    """It is not in the tables; a score of it that is missing needs it."""
    healed = next(of for of in cache.stored("scores") if of[0]["steps"])
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    cache.record_folder().mkdir()
    shutil.copy(run / "trainings.parquet", cache.record_folder())
    request = Request("scores", cache.params_of(healed), {"profile": "smoke"})
    ((again,),) = fetching.fetch([request])
    assert again["value"] == pytest.approx(healed[0]["value"], abs=1e-6)
