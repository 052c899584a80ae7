"""Every snippet of exercises/README.md runs, in the order in which they stand there."""

import re
from dataclasses import dataclass

import matplotlib.pyplot as plt
import nbformat
import pytest
import yaml

from replication import paths
from replication.run.notebooks import NOTEBOOKS

TEXT = (paths.ROOT / "exercises" / "README.md").read_text(encoding="utf-8")
HEADING = re.compile(
    r"^### (\d\d)\.(\d) (.+)\n\*\d+ minutes? · (?:easy|medium|hard)\*\n\n", re.MULTILINE
)


@dataclass(frozen=True)
class Exercise:
    """One of exercises/README.md: its notebook, what it asks, and its code (None: without)."""

    notebook: str
    number: str
    title: str
    question: str
    code: str | None
    folded: str  # hint and answer


def exercises() -> list[Exercise]:
    """All exercises, in their order."""
    headings = list(HEADING.finditer(TEXT))
    ends = [heading.start() for heading in headings[1:]] + [len(TEXT)]
    parsed = []
    for heading, end in zip(headings, ends, strict=True):
        notebook, number, title = heading.groups()
        asks, _, folded = TEXT[heading.end() : end].partition("<details>")
        question, _, code = asks.partition("```python\n")
        parsed.append(
            Exercise(
                notebook=notebook,
                number=f"{notebook}.{number}",
                title=title,
                question=" ".join(question.split()),
                code=code.partition("```")[0] or None,
                folded=folded,
            )
        )
    return parsed


EXERCISES = exercises()
FIRST = re.search(r"```python\n(.+?)```", TEXT, re.DOTALL)[1]
SECTIONS = re.findall(r"^## \[(\d\d)\]", TEXT, re.MULTILINE)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the lines that come first define, in `smoke`; results go to a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        output = tmp_path_factory.mktemp("exercises")
        patch.setattr(paths, "RESULTS", output / "results")
        patch.setattr(paths, "FIGURES", output / "figures")
        namespace = {}
        exec(FIRST.replace('"quick"', '"smoke"'), namespace)
        assert namespace["profile"].name == "smoke"
        yield namespace
        plt.close("all")


@pytest.mark.parametrize("exercise", [e for e in EXERCISES if e.code], ids=lambda e: e.number)
def test_snippets_run(names, exercise):
    exec(exercise.code, dict(names))


def test_the_cut_for_other_tools_is_the_whole_model(names, capsys):
    """The slices that stay and the list that goes, of 01.4: together every layer once."""
    (exercise,) = [e for e in EXERCISES if e.number == "01.4"]
    exec(exercise.code, dict(names))
    merge, _, listed = capsys.readouterr().out.partition("llama-quantize --prune-layers ")
    ranges = [part["sources"][0]["layer_range"] for part in yaml.safe_load(merge)["slices"]]
    kept = [layer for start, stop in ranges for layer in range(start, stop)]
    gone = [int(layer) for layer in listed.split(",")]
    layers = names["maps"][names["name"]].num_layers
    assert len(gone) == layers // 5 and sorted(kept + gone) == list(range(layers))


def test_each_has_a_hint_and_an_answer():
    for exercise in EXERCISES:
        for name in ("Hint", "Answer"):
            assert exercise.folded.count(f"<summary>{name}</summary>") == 1, exercise.number
    assert [e.number for e in EXERCISES] == sorted({e.number for e in EXERCISES})
    assert sorted({e.notebook for e in EXERCISES}) == SECTIONS


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_a_notebook_ends_with_its_first_exercises(number):
    notebook = nbformat.read(paths.NOTEBOOKS / f"{NOTEBOOKS[number].file}.ipynb", as_version=4)
    first, second, *_ = (e for e in EXERCISES if e.notebook == number)
    for exercise in (first, second):
        assert f"**{exercise.number} {exercise.title}" in notebook.cells[-1].source
        assert exercise.question in notebook.cells[-1].source


def test_no_snippet_is_left_out():
    assert TEXT.count("```python\n") == 1 + sum(e.code is not None for e in EXERCISES)
    assert TEXT.count("\n### ") == len(EXERCISES)
