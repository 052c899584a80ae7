"""Every snippet of exercises/README.md runs, in its order; the paper in one file is the library."""

import ast
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest

from lib.evaluation import Task
from lib.pruning import UNPRUNED, similarity_block
from lib.similarity import block_distances, calibration_batches
from lib.sweep import sweep
from replication import paths, profiles
from replication.measure import signals

SMOLLM2 = profiles.PROFILES["quick"].main_model
TEXT = (paths.ROOT / "exercises" / "README.md").read_text(encoding="utf-8")
FIRST = re.search(r"```python\n(.+?)```", TEXT, re.DOTALL)[1]
EXERCISES = {}  # the snippet of each, by number; None: without one
for part in re.split(r"^### ", TEXT, flags=re.MULTILINE)[1:]:
    snippet = re.search(r"```python\n(.+?)```", part, re.DOTALL)
    EXERCISES[part.partition(" ")[0]] = snippet and snippet[1]


def as_quick() -> profiles.Profile:
    """`quick` as small as `smoke`: what it leaves out is left out, whatever that is."""
    quick, smoke = profiles.PROFILES["quick"], profiles.PROFILES["smoke"]
    zeros = {name: 0 for name in profiles.COUNTS & vars(quick).keys() if not vars(quick)[name]}
    own = {"name": "quick", "folder": "quick", "needs_signal": quick.needs_signal}
    return replace(smoke, **zeros, **own)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the lines that come first define; results go to a folder of their own.

    The tiny model of `as_quick` passes for one that can answer what quick's model can.
    """
    recorded = signals.recorded().items()
    known = {("tiny-random", task): of for (model, task), of in recorded if model == SMOLLM2}
    with pytest.MonkeyPatch.context() as patch:
        output = tmp_path_factory.mktemp("exercises")
        patch.setattr(paths, "RESULTS", output / "results")
        patch.setattr(paths, "TABLES", output / "tables")
        patch.setattr(paths, "FIGURES", output / "figures")
        patch.setitem(profiles.PROFILES, "quick", as_quick())
        patch.setattr(signals, "recorded", lambda: known)
        namespace = {}
        exec(FIRST, namespace)
        assert namespace["name"] == "tiny-random"
        yield namespace
        plt.close("all")


def shown(snippet: str, names: dict, capsys) -> str:
    """Run a snippet as a cell: return what it prints, and its last line's value."""
    *lines, last = ast.parse(snippet).body
    exec(compile(ast.Module(lines, []), "snippet", "exec"), names)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), "snippet", "eval"), names)
        return capsys.readouterr().out + str(value)
    exec(compile(ast.Module([last], []), "snippet", "exec"), names)
    return capsys.readouterr().out


@pytest.mark.parametrize("number", [number for number, code in EXERCISES.items() if code])
def test_a_snippet_shows_something_in_the_profile_it_is_set_in(names, number, capsys):
    """And no number of it is missing: `quick` measures it, or the snippet reads the record."""
    with pd.option_context("display.max_rows", None, "display.max_columns", None):
        text = shown(EXERCISES[number], dict(names), capsys)
    assert re.search(r"\d", text)
    assert not re.search(r"\b(nan|NaN|Empty|\[\])", text), text


def test_nano_is_the_library(small, base, tmp_path):
    """Distances, blocks and losses, of a folder and a file of one's own; in at most 120 lines."""
    texts = [f"{'a text of its own ' * n}and number {n}" for n in range(1, 9)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    file = nbformat.read(paths.ROOT / "exercises" / "nano.ipynb", as_version=4)
    sources = [cell.source for cell in file.cells if cell.cell_type == "code"]
    assert sum(bool(line) for source in sources for line in source.splitlines()) <= 120
    names = {}
    exec(sources[0], names)
    names |= {"MODEL": small, "TEXTS": str(tmp_path / "texts.txt")}
    for source in sources[1:]:
        exec(source, names)
    plt.close("all")
    model, tokenizer = base
    batches = calibration_batches(texts[::2], tokenizer, names["TOKENS"], batch_tokens=512)
    library = block_distances(model, batches)
    np.testing.assert_allclose(names["d"], library.matrix, atol=1e-6)
    cuts = {n: similarity_block(library, n) for n in names["losses"] if n}
    assert {n: names["best_start"](n) for n in cuts} == {n: cut.start for n, cut in cuts.items()}
    examples = tuple({"text": text, "max_tokens": names["TOKENS"]} for text in texts[1::2])
    scores = sweep(model, tokenizer, [UNPRUNED, *cuts.values()], [Task("c4", examples)])
    by_size = dict(zip(scores.block_size, scores.value, strict=True))
    assert names["losses"] == pytest.approx(by_size, rel=1e-5)
