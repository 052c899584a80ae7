"""Tables: measured, written and read, and the cache filled again from them."""

import json
import re
import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest

from replication import notebook, paths, tables
from replication.measure import cache, restore, scores
from replication.measure.request import Request

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
    assert params["kind"] == "scores"
    assert params["model"] == NAME
    assert params["block_size"] == 2
    assert row.value == pytest.approx(np.average(row.examples, weights=row.weights))
    likeliest = [choices.argmax() for choices in row.choices]
    assert row.value == pytest.approx(np.mean(np.equal(likeliest, row.answers)))


def test_cells_that_run_the_model_show_what_the_table_has(smoke_run, run):
    """Notebook 02's: the choices of the first question, added up by hand, and few questions."""
    copy = nbformat.read(smoke_run / "papermill_runs/smoke/02_pruning_curves.ipynb", 4)
    by_hand, swept = (c.outputs for c in copy.cells if c.source.startswith(notebook.LIVE))
    nats = re.findall(r"(\S+) nats", "".join(output.get("text", "") for output in by_hand))
    few = re.findall(r"^\d +(\d+) +8 +(\S+)", swept[-1].data["text/plain"], re.MULTILINE)
    table = pd.read_parquet(run / "unhealed.parquet")
    rows = table[(table.task == "arc_easy") & (table.strategy != "simple")].set_index("block_size")
    np.testing.assert_allclose(np.array(nats, float), rows.choices[1][0], atol=0.06)
    assert [float(value) for _, value in few] == [rows.value[int(size)] for size, _ in few]
    assert len(few) == 2


def test_the_cache_is_filled_again_from_tables(run, tmp_path, monkeypatch):
    """In a clean clone few things are measured twice: no score, no healing, no distances."""
    for name in ("similarity", "test_split", "trainings", "linear_maps", "translated"):
        shutil.copy(run / f"{name}.parquet", tmp_path)
    measured = {}
    for kind in restore.VALUES:
        measured |= {record["key"]: record for record in cache.stored(kind)}
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    restore.restore(tmp_path)
    for kind in restore.VALUES:
        restored = list(cache.stored(kind))
        assert restored
        for record in restored:
            assert record.pop("restored")
            first = measured[record["key"]]
            values = record.pop("values")
            assert record == {name: first[name] for name in record}
            assert {"choices", "answers"} & first["values"].keys() <= values.keys()
            for name in values.keys() - {"adapter"}:
                expected = first["values"][name]
                if name in tables.ARRAYS:
                    np.testing.assert_allclose(values[name], expected, rtol=1e-12)
                else:
                    assert values[name] == expected, (kind, name)
    healed = next(one for one in cache.stored("scores") if "recipe" in one["params"])
    cache.location("scores", healed["params"]).unlink()  # whose adapter is not restored
    request = Request("scores", healed["params"], {"profile": "smoke"})
    (again,) = scores.fetch([request])
    assert again["values"]["value"] == pytest.approx(healed["values"]["value"], abs=1e-6)
