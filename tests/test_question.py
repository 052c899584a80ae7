"""The question that replication/README adds, as its reader would: one file and one row."""

import ast
import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from replication import beyond, measure, paths, plan, profiles
from replication.run import jobs, notebooks

SMOKE = profiles.get("smoke")
BLOCKS = (paths.ROOT / "replication" / "README.md").read_text("utf-8").split("```python\n")[1:]
FILE, ROW = (block.split("```")[0] for block in BLOCKS[:2])


@pytest.fixture
def position(monkeypatch):
    """The file of the README, as a module of `beyond`."""
    module = ModuleType("replication.beyond.position")
    exec(compile(FILE, "position.py", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(beyond, "position", module, raising=False)
    return module


def test_a_question_is_at_most_sixty_lines():
    tree = ast.parse(FILE)
    assert len(FILE.splitlines()) <= 60 and ast.get_docstring(tree)


def test_a_question_is_measured_and_drawn(position, output):
    maps, profile = measure.distances(SMOKE)
    table = measure.table(position.requests, maps, profile)
    rises = position.rises(table)
    (distances,) = maps.values()
    sizes = profile.healed_sizes(distances.num_layers)
    assert list(zip(rises.block_size, rises.place, strict=True)) == [
        (size, place) for size in sizes for place in position.PLACES
    ]
    whole = table[table.place == "none"].iloc[0]
    for row in table[table.place != "none"].itertuples():
        rise = rises[(rises.block_start == row.block_start) & (rises.block_size == row.block_size)]
        assert rise.value.iloc[0] == pytest.approx(row.value - whole.value, abs=1e-6)
    position.figure_position(rises, profile)
    drawn = pd.read_csv(output / "figures" / "smoke" / "figure_position.csv")
    assert np.allclose(drawn.value, rises.value)


def test_its_row_makes_it_part_of_a_run(position, monkeypatch):
    added = eval(f"{{{ROW}}}", {"Notebook": notebooks.Notebook, "position": position})
    monkeypatch.setitem(notebooks.NOTEBOOKS, "16", added["16"])
    of_map, job = jobs.by_job("tiny-random", SMOKE, ["16"], plan.Guess(8))
    assert of_map.is_map and job.name == "tiny-random-16-unhealed"
