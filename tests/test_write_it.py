"""The exercises to write: checks pass with the folded solutions, and name what is wrong."""

import re

import checks
import nbformat
import papermill
import pytest

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
LAYERS = "model.model.layers = torch.nn.ModuleList(model.model.layers[l] for l in stay)"
DELETED = "for l in range(start, start + n): del model.model.layers[l]"
ERROR = "difference.std(ddof=1) / np.sqrt(len(difference))"
ERRORS = "*(x.std(ddof=1) / len(x) ** 0.5 for x in (first, second))"
WRONG = {  # a piece of a solution, what a student may have in its place, what the check then says
    "angles": [
        ("cosines.clamp", "cosines.mean(1, True).clamp", "You averaged cosines"),
        ("unit[n:]", "unit[n - 1 : -1]", "Off by one"),
        ("x[texts, last]", "x[:, -1]", "Position -1"),
        (".clamp(-1, 1)", "", "nan: clamp"),
    ],
    "similarity_block": [
        (BLOCK, STOP, "its size, not its end"),
        ("[l, l + n])", "[l, l + n]) + 1", "counted from 0"),
        ("(distances) - n", "(distances) - n - 1", "ends with the last layer is missing"),
    ],
    "dropped": [
        ("l < start + n", "l <= start + n", "A layer too many"),
        (LAYERS, DELETED, "After `del layers"),
        ("config.num_hidden_layers = len(stay)", "pass", "config.num_hidden_layers is 6"),
        ("layer.self_attn.layer_idx = place", "pass", "key-value cache"),
    ],
    "floor": [
        ("range(max(map(len, lengths)))", "[0]", "try every letter"),
        ("best[a] / best.sum()", "best.argmax() == a", "equally short"),
    ],
    "paired_error": [
        (ERROR, f"np.hypot({ERRORS})", "This is unpaired"),
        ("ddof=1", "", "ddof=1"),
    ],
}
CASES = [(name, *case) for name, cases in WRONG.items() for case in cases]


def function(name: str, source: str):
    """What a cell defines, with what the notebook has imported."""
    names = {}
    exec(PRELUDE + source, names)
    return names[name]


@pytest.mark.parametrize("name", checks.CHECKS)
def test_a_stub_is_not_right(name):
    with pytest.raises(NotImplementedError):
        checks.check(function(name, CELLS[name]))


@pytest.mark.parametrize("name", checks.CHECKS)
def test_a_folded_solution_is_right(name, capsys):
    checks.check(function(name, SOLUTIONS[name]))
    assert capsys.readouterr().out.startswith(f"{name} is right")


@pytest.mark.parametrize("name, piece, instead, said", CASES)
def test_a_wrong_answer_is_named(name, piece, instead, said):
    assert SOLUTIONS[name].count(piece) == 1
    wrong = function(name, SOLUTIONS[name].replace(piece, instead))
    with pytest.raises(AssertionError, match=said):
        checks.check(wrong)


def solved():
    """The notebook, each stub replaced by the folded solution."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = SOLUTIONS.get(cell.id, cell.source)
    return notebook


def executed(profile: str, folder) -> dict[str, str]:
    """What each cell of the solved notebook prints, run from another folder."""
    nbformat.write(solved(), folder / "solved.ipynb")
    done = folder / "done.ipynb"
    papermill.execute_notebook(
        str(folder / "solved.ipynb"),
        str(done),
        {"PROFILE": profile},
        cwd=str(folder),
        progress_bar=False,
    )
    return {
        cell.id: "".join(o.text for o in cell.outputs if o.output_type == "stream")
        for cell in nbformat.read(done, 4).cells
        if cell.cell_type == "code"
    }


def test_the_solved_notebook_runs(output, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPER_LAYERS_OUTPUT", str(output))
    monkeypatch.setenv("PYTHONPATH", str(paths.ROOT))
    printed = executed("smoke", tmp_path)
    _check_blocks(printed)


@pytest.mark.real
def test_the_solved_notebook_runs_on_the_embedded_model(output, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPER_LAYERS_OUTPUT", str(output))
    monkeypatch.setenv("PYTHONPATH", str(paths.ROOT))
    printed = executed("quick", tmp_path)
    _check_blocks(printed)


def _check_blocks(printed: dict[str, str]) -> None:
    """The student's blocks are the library's; every check has passed."""
    for line in printed["similarity_block-use"].splitlines():
        own, _, library = line.partition(" the library: ")
        assert own == library
    for name in checks.CHECKS:
        assert printed[f"{name}-check"].startswith(f"{name} is right")
