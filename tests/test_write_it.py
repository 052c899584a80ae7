"""The exercises to write: checks pass with the folded solutions, and name what is wrong."""

import re

import checks
import nbformat
import pytest
import without_solutions
from conftest import run_elsewhere

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
        ("x[texts, last]", "x[:, -1]", "Position -1"),
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
    ],
    "paired_error": [
        (ERROR, f"np.hypot({ERRORS})", "This is unpaired"),
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


def test_the_handout_has_no_solution(tmp_path):
    without_solutions.write(tmp_path)
    pages = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.glob("*.[im]*")}
    assert {"write_it.ipynb", "pitfall_lab.ipynb", "nano.ipynb", "README.md"} == set(pages)
    assert pages["write_it.ipynb"].count("raise NotImplementedError") == len(SOLUTIONS)
    for solution in SOLUTIONS.values():
        _, *body = solution.splitlines()
        assert not any(line in pages["write_it.ipynb"] for line in body if "return" in line)
    assert "<summary>Hint" in pages["README.md"]
    assert not any(re.search("[Ss]olution|Answer<|teachers", page) for page in pages.values())


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
