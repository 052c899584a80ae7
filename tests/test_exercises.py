"""Every snippet of exercises/README.md runs, in the order in which they stand there."""

import re

import matplotlib.pyplot as plt
import pytest

from replication import paths

TEXT = (paths.ROOT / "exercises" / "README.md").read_text(encoding="utf-8")
FIRST = re.search(r"```python\n(.+?)```", TEXT, re.DOTALL)[1]
EXERCISES = {}  # the snippet of each, by number; None: without one
for part in re.split(r"^### ", TEXT, flags=re.MULTILINE)[1:]:
    snippet = re.search(r"```python\n(.+?)```", part, re.DOTALL)
    EXERCISES[part.partition(" ")[0]] = snippet and snippet[1]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the lines that come first define, in `smoke`; results go to a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        output = tmp_path_factory.mktemp("exercises")
        patch.setattr(paths, "RESULTS", output / "results")
        patch.setattr(paths, "TABLES", output / "tables")
        patch.setattr(paths, "FIGURES", output / "figures")
        namespace = {}
        exec(FIRST.replace('"quick"', '"smoke"'), namespace)
        assert namespace["profile"].name == "smoke"
        yield namespace
        plt.close("all")


@pytest.mark.parametrize("number", [number for number, code in EXERCISES.items() if code])
def test_snippets_run(names, number):
    exec(EXERCISES[number], dict(names))
