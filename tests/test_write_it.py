"""The exercises to write: checks pass with the folded solutions, and name what is wrong."""

import csv
import re
import subprocess
import sys

import checks
import grade
import nbformat
import pytest
import without_solutions
from conftest import run_elsewhere
from nbformat import v4

from lib.models import MODELS
from replication import paths

NOTEBOOK = paths.ROOT / "exercises" / "write_it.ipynb"
CELLS = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells}
SOLUTIONS = {
    name: re.search(r"```python\n(.+?)```", CELLS[f"{name}-solution"], re.DOTALL)[1]
    for name in checks.CHECKS
}
PRELUDE = "import copy\nimport numpy as np\nimport torch\nfrom lib.blocks import Block\n"
BLOCK = "Block(min(starts, key=lambda l: distances[l, l + n]), n)"
STOP = BLOCK.replace("min", "l := min").replace(", n)", ", l + n)")
ERROR = "difference.std(ddof=1) / np.sqrt(len(difference))"
ERRORS = "*(x.std(ddof=1) / len(x) ** 0.5 for x in (first, second))"
WRONG = {  # a piece of a solution, what a student may have in its place, what the check then says
    "angles": [
        ("cosines.clamp", "cosines.mean(1, True).clamp", "You averaged cosines"),
        ("unit[n:]", "unit[n - 1 : -1]", "Off by one"),
        ("torch.arccos(cosines.clamp(-1, 1)) / torch.pi", "cosines", "This is the cosine"),
        ("/ torch.pi", "* 180 / torch.pi", "These are degrees"),
        (".sum(dim=1) - 1", ".sum(dim=1)", "not mask.sum"),
        ("distances.mean(dim=1)", "distances", "The mean over the texts is missing"),
        ("x[texts, last]", "x[:, -1]", "Position -1"),
        ("distances.mean(dim=1)", "distances.sum(dim=1)", "the sum over the texts"),
        ("distances.mean(dim=1)", "distances.mean(dim=0)", "averaged over the blocks"),
        ("torch.nn.functional.normalize(states, dim=-1)", "states", "divide by both lengths"),
        ("return distances", "distances", "returned None"),
    ],
    "similarity_block": [
        (BLOCK, STOP, "its size, not its end"),
        ("return ", "", "returned None"),
        ("(distances) - n", "(distances) - n - 1", "ends with the last layer is missing"),
    ],
    "dropped": [
        ("l < start + n", "l <= start + n", "A layer too many"),
        ("layer.self_attn.layer_idx = place", "pass", "key-value cache"),
    ],
    "floor": [
        ("range(max(map(len, lengths)))", "range(len(lengths[0]))", "try every letter"),
        ("range(max(map(len, lengths)))", "range(4)", "try every letter"),
        ("range(max(", "range(1, max(", "The first letter is missing"),
        ("max(guess, letter, shortest)", "letter", "the same letter alone"),
        ("max(guess, letter, shortest)", "guess, letter, shortest", r"shape \(3,\); one number"),
        ("np.mean([1 / len(n) for n in lengths])", "1 / len(lengths[0])", "as the first one"),
        ("len(text) for", "len(text.split()) for", "do not count its characters"),
        ("/ best.sum()", "", "scores 1/m, not 1"),
        ("best[a] / best.sum()", "best.argmax() == a", "the first of m shortest"),
    ],
    "paired_error": [
        (ERROR, f"np.hypot({ERRORS})", "This is unpaired"),
        (ERROR, f"sum([{ERRORS}])", "You added two errors"),
        ("ddof=1", "", "^The sum of squares is divided by N - 1"),
        (ERROR, "difference.std()", "This is s, the spread.* needs ddof=1"),
        (ERROR, "difference.std(ddof=1) / len(difference)", "You divided s by N"),
        (ERROR, "difference.var(ddof=1) / len(difference)", "This is the error squared"),
        ("len(difference)", "(len(difference) - 1)", "by the square root of N - 1"),
    ],
}
CASES = [(name, *case) for name, cases in WRONG.items() for case in cases]


def function(name: str, source: str):
    """What a cell defines, with what the notebook has imported."""
    names = {}
    exec(PRELUDE + source, names)
    return names[name]


@pytest.mark.parametrize("name, piece, instead, said", CASES)
def test_a_wrong_answer_is_named(name, piece, instead, said):
    assert SOLUTIONS[name].count(piece) == 1
    wrong = function(name, SOLUTIONS[name].replace(piece, instead))
    with pytest.raises(AssertionError, match=said):
        checks.check(wrong)


@pytest.mark.parametrize("piece, instead, said", WRONG["angles"])
def test_a_wrong_angle_is_named_in_float32_too(piece, instead, said):
    """As students write it first; also where nothing is clamped."""
    source = SOLUTIONS["angles"].replace(piece, instead).replace(".double()", "")
    with pytest.raises(AssertionError, match=said):
        checks.check(function("angles", source))
    if "lengths" not in said:  # of arccos of dot products nearly all are NaN
        source = source.replace(".clamp(-1, 1)", "")
        with pytest.raises(AssertionError, match=said):
            checks.check(function("angles", source))


@pytest.mark.parametrize("left_out, said", [(".double()", "float64"), (".clamp(-1, 1)", "clamp")])
def test_a_right_formula_that_rounds_is_told(left_out, said):
    source = SOLUTIONS["angles"].replace(".double()", "").replace(left_out, "")
    with pytest.raises(AssertionError, match=said):
        checks.check(function("angles", source))


def test_the_handout_has_no_solution(tmp_path):
    without_solutions.write(tmp_path)
    pages = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.glob("*.[im]*")}
    assert {"write_it.ipynb", "pitfall_lab.ipynb", "README.md"} == set(pages)
    assert pages["write_it.ipynb"].count("raise NotImplementedError") == len(SOLUTIONS)
    for solution in SOLUTIONS.values():
        _, *body = solution.splitlines()
        assert not any(line in pages["write_it.ipynb"] for line in body if "return" in line)
    assert "<summary>Hint" in pages["README.md"]
    spoilers = "[Ss]olution|Answer<|teachers|nano"  # nano solves `angles` and `dropped`
    assert not any(re.search(spoilers, page) for page in pages.values())


def hand_in(file, *cells: str, **metadata):
    """Write a notebook; a cell that begins with "#" and a space is text."""
    made = [v4.new_markdown_cell(c) if c.startswith("# ") else v4.new_code_cell(c) for c in cells]
    nbformat.write(v4.new_notebook(cells=made, metadata=metadata), file)
    return file


def test_a_grade_is_what_the_grader_sees_and_no_hand_in_stops_the_others(tmp_path):
    """Of two files that are no notebooks, of one that says it is right and is half right, of an
    unknown kernel, and of one that is right and dies."""
    (tmp_path / "truncated.ipynb").write_text('{"cells": [')
    sentences = [f"{name} is right: it gives what the library gives." for name in checks.CHECKS]
    half = hand_in(
        tmp_path / "half.ipynb",
        "# " + " ".join(sentences),
        f"{PRELUDE}print({sentences!r})",
        "import checks\nchecks.CHECKS.update(paired_error=print)\nchecks.check = print",
        SOLUTIONS["angles"].replace("x[texts, last]", "x[:, -1]"),
        "def similarity_block(distances, n):\n    return Block(least(distances, n), n)",
        SOLUTIONS["dropped"].replace("layer.self_attn.layer_idx = place", "pass"),
        SOLUTIONS["floor"].replace("return", "return ("),
        "def paired_error(first, second):  # paired_error is right:\n    raise NotImplementedError",
        "def least(distances, n):\n    return int(np.diagonal(distances, n).argmin())",
        kernelspec={"name": "deeper-layers", "display_name": "Deeper layers"},
    )
    written = nbformat.read(half, as_version=4)
    written.cells[-1].outputs = [v4.new_output("stream", text="\n".join(sentences))]
    nbformat.write(written, half)
    dies = hand_in(tmp_path / "dies.ipynb", PRELUDE, *SOLUTIONS.values(), "import os; os._exit(3)")
    files = [
        str(tmp_path / "truncated.ipynb"),
        str(tmp_path / "absent.ipynb"),
        str(half),
        str(dies),
    ]
    command = [sys.executable, grade.__file__, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["file"] for row in rows] == files
    assert [row["points"] for row in rows] == ["0", "0", "20", "60"]
    truncated, absent, of_half, of_dies = rows
    assert truncated["trouble"].startswith("no notebook: ")
    assert absent["trouble"].startswith("no notebook: FileNotFoundError")
    assert of_half["angles"].startswith("Position -1 of a short text")
    assert of_half["similarity_block"] == "right"  # its helper stands in a later cell
    assert of_half["dropped"].startswith("half right: self_attn.layer_idx is ")
    assert of_half["floor"].startswith("SyntaxError")
    assert of_half["paired_error"] == "NotImplementedError"
    assert not of_half["trouble"]
    assert {of_dies[name] for name in checks.CHECKS} == {"right"}
    assert of_dies["trouble"] == "code cell 7 ended Python (3): no later cell was run"


def test_cells_are_graded_in_smoke_and_no_check_has_its_depth(tmp_path):
    """A function that uses `layers`, which the notebook has of its model, stays wrong."""
    file = hand_in(tmp_path / "hand_in.ipynb", "PROFILE = 'quick'", "import numpy as np")
    written = nbformat.read(file, as_version=4)
    written.cells[0].metadata["tags"] = ["parameters"]
    signature, *body = SOLUTIONS["paired_error"].splitlines()
    source = "\n".join([signature, "    assert PROFILE == 'smoke'", *body])
    written.cells.append(v4.new_code_cell(source))
    layers = MODELS["tiny-random"].config["num_hidden_layers"]
    states = f"in (hidden_states[l] for l in range({layers} + 1))"
    source = SOLUTIONS["angles"].replace("in hidden_states", states)
    written.cells.append(v4.new_code_cell(f"import torch\n{source}"))
    nbformat.write(written, file)
    row = grade.grade(file)
    assert (row["paired_error"], row["points"]) == ("right", 10)
    assert row["angles"].startswith("IndexError")


def test_an_endless_cell_has_a_limit(tmp_path):
    """One that can be interrupted; after it one that cannot."""
    stubborn = "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except: pass"
    answer = "import numpy as np\n" + SOLUTIONS["paired_error"]
    file = hand_in(tmp_path / "endless.ipynb", "while 1: pass", answer, stubborn, "1")
    row = grade.grade(file, seconds=2)
    assert (row["points"], row["paired_error"]) == (10, "right")
    assert row["trouble"] == (
        "code cell 1: it took more than 2 s; code cell 3 did not end in 4 s: no later cell was run"
    )


@pytest.mark.real
def test_the_solved_notebook_runs(tmp_path, monkeypatch):
    """Every check has passed, and the student's blocks are the library's."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = SOLUTIONS.get(cell.id, cell.source)
    nbformat.write(notebook, tmp_path / "solved.ipynb")
    done = run_elsewhere(tmp_path / "solved.ipynb", tmp_path, monkeypatch)
    printed = {}
    for cell in done.cells:
        messages = [o.text for o in cell.get("outputs", []) if o.output_type == "stream"]
        printed[cell.id] = "".join(messages)
    for name in checks.CHECKS:
        assert printed[f"{name}-check"].startswith(f"{name} is right")
    for line in printed["similarity_block-use"].splitlines():
        own, _, library = line.partition(" the library: ")
        assert own == library
