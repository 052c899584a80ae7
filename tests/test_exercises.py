"""Every snippet of exercises/README.md runs, in the order in which they stand there."""

import re

import matplotlib.pyplot as plt
import pytest
import yaml

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


def test_the_cut_for_other_tools_is_the_whole_model(names, capsys):
    """The slices that stay and the list that goes, of 01.4: together every layer once."""
    exec(EXERCISES["01.4"], dict(names))
    merge, _, listed = capsys.readouterr().out.partition("llama-quantize --prune-layers ")
    ranges = [part["sources"][0]["layer_range"] for part in yaml.safe_load(merge)["slices"]]
    kept = [layer for start, stop in ranges for layer in range(start, stop)]
    gone = [int(layer) for layer in listed.split(",")]
    layers = names["maps"][names["name"]].num_layers
    assert len(gone) == layers // 5 and sorted(kept + gone) == list(range(layers))
