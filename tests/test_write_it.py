"""The exercises to write: checks pass with the folded solutions, and name what is wrong."""

import ast
import re

import checks
import nbformat
import papermill
import pytest

from replication import paths

NOTEBOOK = paths.ROOT / "exercises" / "write_it.ipynb"
README = (paths.ROOT / "exercises" / "README.md").read_text(encoding="utf-8")
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
BEST = "max(guess, letter, shortest)"
ERROR = "difference.std(ddof=1) / np.sqrt(len(difference))"
ERRORS = "*(x.std(ddof=1) / len(x) ** 0.5 for x in (first, second))"
WRONG = {  # a piece of a solution, what a student may have in its place, what the check then says
    "angles": [
        (" / torch.pi", "", "These are radians"),
        ("torch.arccos(cosines.clamp(-1, 1)) / torch.pi", "1 - cosines", "one minus"),
        ("cosines.clamp", "cosines.mean(1, True).clamp", "You averaged cosines"),
        ("unit[n:]", "unit[n - 1 : -1]", "Off by one"),
        ("unit[:-n] * unit[n:]", "unit[: -n - 1] * unit[n:-1]", "The last block is missing"),
        ("x[texts, last]", "x[:, -1]", "Position -1"),
        ("x[texts, last]", "x[attention_mask.bool()]", "You averaged over all tokens"),
        (".clamp(-1, 1)", "", "nan: clamp"),
        (".double()", "", "compute in float64"),
        ("torch.pi", "3", "It gives"),
    ],
    "similarity_block": [
        (BLOCK, STOP, "its size, not its end"),
        ("[l, l + n])", "[l, l + n]) + 1", "counted from 0"),
        ("min", "max", "least similar"),
        ("l + n]", "l + n - 1]", "Off by one"),
        ("(distances) - n", "(distances) - n - 1", "ends with the last layer is missing"),
        (BLOCK, "Block(distances[n].argmin(), n)", "the n-th diagonal"),
        (BLOCK, f"{BLOCK}.start", "Return a Block"),
    ],
    "dropped": [
        ("config = model", "config = (model := copy.deepcopy(model))", "in place"),
        ("l < start + n", "l <= start + n", "A layer too many"),
        ("l < start + n", "l < start + n - 1", "A layer too few"),
        ("start <= l < start + n", "start < l <= start + n", "Layer `start` goes, too"),
        (LAYERS, DELETED, "After `del layers"),
        ("not start", "start", "kept the block"),
        ("not start <= l < start + n", "l != start", r"The layers that stay are \[0, 2"),
        ("config.num_hidden_layers = len(stay)", "pass", "config.num_hidden_layers is 6"),
        ("setattr(config, key, [value[l] for l in stay])", "pass", "config.layer_types has"),
        ("layer.self_attn.layer_idx = place", "pass", "key-value cache"),
    ],
    "floor": [
        (BEST, "guess", "This is guessing"),
        ("range(max(map(len, lengths)))", "[0]", "try every letter"),
        (BEST, "max(guess, letter)", "The shortest choice is missing"),
        (BEST, "max(guess, shortest)", "same letter for every question is missing"),
        (BEST, "max(letter, shortest)", "Guessing is missing"),
        ("best[a] / best.sum()", "best.argmax() == a", "equally short"),
        ("n.min()", "n.max()", "take the shortest"),
        (BEST, "(guess + letter + shortest) / 3", "take the best of them"),
    ],
    "paired_error": [
        (ERROR, f"np.hypot({ERRORS})", "This is unpaired"),
        (ERROR, f"abs(np.subtract({ERRORS}))", "the difference of two errors"),
        (" / np.sqrt(len(difference))", "", "the spread of the questions"),
        ("np.sqrt(len(difference))", "len(difference)", "its square root"),
        ("ddof=1", "", "ddof=1"),
        ("first - second", "first", "first score alone"),
        (ERROR, "difference.mean()", "take its standard error"),
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


def test_the_list_of_exercises_has_their_minutes():
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", README, re.MULTILINE))
    minutes = {name: re.search(r"(\d+) minutes\*", CELLS[f"{name}-text"])[1] for name in SOLUTIONS}
    assert rows == minutes


def test_every_sentence_is_tried():
    """Each sentence that stands in a table of wrong answers is one of WRONG."""
    tree = ast.parse((paths.ROOT / "exercises" / "checks.py").read_text(encoding="utf-8"))
    keys = [key for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys]
    sentences = [k.value for k in keys if isinstance(k, ast.Constant) and str(k.value)[-1] == "."]
    assert len(sentences) > 25
    for sentence in sentences:
        assert any(re.search(said, sentence) for *_, said in CASES), sentence


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
