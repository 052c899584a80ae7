"""The question that replication/README adds, as its reader would: one file and one line."""

import re
import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from conftest import Distances

from replication import figures, measure, paths, profiles, tables
from replication.beyond import QUESTIONS
from replication.measure import question, scores
from replication.run import jobs, notebooks

SMOKE = profiles.get("smoke")
PAGE = (paths.ROOT / "replication" / "README.md").read_text("utf-8")
FILE = PAGE.partition("## Add a question")[2].split("```python\n")[1].partition("```")[0]


@pytest.fixture
def position(monkeypatch):
    """The file of the README, as a module of `beyond`."""
    module = ModuleType("replication.beyond.position")
    exec(compile(FILE, "position.py", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_a_question_is_measured_and_drawn_and_part_of_a_run(position, output, monkeypatch):
    maps, profile = measure.distances(SMOKE)
    scores = measure.table(position.positions, maps, profile)
    figures.save(position.figure_position(position.rises(scores)), "figure_position", profile)
    drawn = pd.read_csv(output / "figures/smoke/figure_position.csv")
    whole = scores[scores.place == "none"].value.item()
    pruned = scores[scores.place != "none"].value
    np.testing.assert_allclose(drawn.value, pruned - whole, atol=1e-6)
    questions = (position.QUESTION,)
    question.register(questions)
    added = notebooks.with_questions(notebooks.NOTEBOOKS, questions)
    monkeypatch.setitem(notebooks.NOTEBOOKS, "16", added["16"])
    assert added["16"].file == "16_position"
    assert notebooks.drawn_by("figure_position") == ["16"]
    assert list(notebooks.captions([*QUESTIONS, *questions]))[-2:] == [
        "figure_position",
        "figure_claims",
    ]
    (distances,) = maps.values()
    of_map, job = jobs.by_job("tiny-random", SMOKE, ["16"], distances)
    assert of_map.is_map
    assert job.name == "tiny-random-16-unhealed"


EXPERIMENTS = {one.__name__: one for row in notebooks.NOTEBOOKS.values() for one in row.experiments}
TEXTS = [file.read_text("utf-8") for file in (paths.ROOT / "notebooks").glob("*.ipynb")]
OR_RECORDED = set(re.findall(r'tables\.(?:to_draw|or_recorded)\([^"]*"(\w+)\\"', "".join(TEXTS)))


@pytest.mark.parametrize("name", sorted(OR_RECORDED))
def test_of_what_a_model_cannot_answer_the_record_is_drawn(name, output, monkeypatch):
    """Every row of the run is a gap; of moved states this ended notebook 10 once."""
    monkeypatch.setenv(paths.DRAW_ONLY_VARIABLE, "1")
    requests = EXPERIMENTS[name]("tiny-random", Distances(4), SMOKE)
    gaps = measure.TABLES.get(name, scores.table)(requests)
    drawn = tables.or_recorded(gaps, SMOKE, name)
    assert drawn.value.notna().any()
