"""What a reader meets: notebooks that are listed, clean, and run by their parameters."""

import ast
import re
from collections.abc import Iterator
from types import SimpleNamespace

import nbformat
import pandas as pd
import papermill
import pytest
from conftest import Distances, replicate
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from lib.models import loading, registry
from replication import notebook, paths, profiles
from replication.measure import experiments
from replication.run.notebooks import NOTEBOOKS
from replication.show import site

IMPORT = re.compile(r"^(from|import) ", re.MULTILINE)
SHARE = re.compile(r"layers // (\d+)")  # of the layers, that a cell cuts by hand


def test_every_notebook_is_listed():
    files = {file.stem for file in paths.NOTEBOOKS.glob("*.ipynb")}
    assert files == {notebook.file for notebook in NOTEBOOKS.values()}


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_a_notebook_is_clean(number):
    """Its second cell imports; one that runs a model may import what only it needs. Its formulas
    can be drawn, as the site does."""
    file = nbformat.read(paths.NOTEBOOKS / f"{NOTEBOOKS[number].file}.ipynb", 4)
    nbformat.validate(file)
    for cell in file.cells:
        if cell.cell_type == "markdown":
            site.FORMULA.sub(site.picture, cell.source)
    code = [cell for cell in file.cells if cell.cell_type == "code"]
    for cell in code:
        assert not cell.outputs and cell.execution_count is None
    parameters, imports, *others = (cell.source for cell in code)
    assert parameters.startswith("PROFILE: str")
    assert IMPORT.search(imports)
    for source in others:
        assert not IMPORT.search(source) or source.startswith(notebook.LIVE), source


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_a_parameter_that_a_notebook_does_not_have_ends_it(number, monkeypatch):
    """Whose cells are run up to its start, with what papermill adds to them."""
    file = load_notebook_node(str(paths.NOTEBOOKS / f"{NOTEBOOKS[number].file}.ipynb"))

    def start(**parameters) -> None:
        cells = parameterize_notebook(file, parameters).cells
        cells = [cell.source for cell in cells if cell.cell_type == "code"]
        shell = SimpleNamespace(input_transformers_cleanup=[], user_ns={"In": cells[:3]})
        monkeypatch.setattr(notebook, "get_ipython", lambda: shell)
        exec("\n".join(cells[:3]), {})

    right = {"PROFILE": "recorded", "MODELS": ["smollm2-135m"], "LIMIT": None, "DTYPE": None}
    start(**right, STEPS=None)
    for wrong in ("profile", "LIMITS", "MODEL", "EXPORT", *["TEXTS"] * (number != "01")):
        with pytest.raises(ValueError, match=f"No parameter '{wrong}': this notebook has PROFILE,"):
            start(**right | {wrong: "recorded"})


def test_papermill_ends_with_the_sentence_too(tmp_path):
    file = paths.NOTEBOOKS / "00_tour.ipynb"
    with pytest.raises(papermill.PapermillExecutionError, match="No parameter 'profile'"):
        papermill.execute_notebook(
            file, tmp_path / "copy.ipynb", {"profile": "recorded"}, cwd=paths.ROOT
        )


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_a_text_says_where_a_slider_moves(number):
    """On a web page there is no kernel, and one picture stands."""
    cells = nbformat.read(paths.NOTEBOOKS / f"{NOTEBOOKS[number].file}.ipynb", 4).cells
    for text, cell in zip(cells, cells[1:], strict=False):
        assert "sliders.slide(" not in cell.source or "in jupyterlab" in text.source.lower()


def with_recorded(cells: list) -> Iterator:
    """Yield the cells that show what has rows of other models: of the record, or beside a run's."""
    recorded = {"or_recorded", "to_draw"}  # then also the variables that hold such rows
    for cell in cells:
        lines = ast.parse(cell.source).body if cell.cell_type == "code" else []
        for line in lines:
            used = {of.id for of in ast.walk(line) if isinstance(of, ast.Name)}
            used |= {of.attr for of in ast.walk(line) if isinstance(of, ast.Attribute)}
            targets = getattr(line, "targets", [])
            holds = {of.id for target in targets for of in ast.walk(target) if hasattr(of, "id")}
            recorded = recorded | holds if used & recorded else recorded - holds
        if lines and isinstance(lines[-1], ast.Expr) and used & recorded:
            yield cell


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_a_table_with_recorded_rows_names_their_model(smoke_run, number):
    """tiny-random cannot answer: all that is shown there is the record's."""
    copy = nbformat.read(smoke_run / f"papermill_runs/smoke/{NOTEBOOKS[number].file}.ipynb", 4)
    for cell in with_recorded(copy.cells):
        shown = [of.data for of in cell.outputs if of.output_type == "execute_result"]
        for table in (data for data in shown if "image/png" not in data):
            assert re.search("model|smollm|qwen", "".join(table.values())), cell.source


@pytest.mark.real
def test_no_table_of_two_models_is_without_a_name(tmp_path):
    """Notebooks 02 and 10 ask both all that they ask one, and each table that they show says whose
    it is."""
    other = tmp_path / "other-model"
    for part in loading.load("tiny-random", dtype="float32"):
        part.save_pretrained(other)
    options = ["--profile", "smoke", "--models", "tiny-random", str(other), "--only", "02", "10"]
    done = replicate(tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    for number in ("02", "10"):
        for experiment in NOTEBOOKS[number].experiments:
            (file,) = tmp_path.glob(f"data/tables/*/{experiment.__name__}.parquet")
            models = set(pd.read_parquet(file).model)
            assert models in (set(), {"tiny-random", str(other)}), experiment.__name__
        (copy,) = tmp_path.glob(f"papermill_runs/*/{NOTEBOOKS[number].file}.ipynb")
        for cell in nbformat.read(copy, 4).cells:
            data = [output.get("data", {}) for output in cell.get("outputs", [])]
            shown = [of.get("text/html", "").replace("all settings", "model</th>") for of in data]
            for table in (html for html in shown if "<table" in html):
                named = "model</th>|tiny-random|other-model|smollm|qwen|1.5B"
                assert re.search(named, table), cell.source


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_every_size_that_a_cell_cuts_is_measured(name):
    """A share of the layers, once and twice, and what is healed: of models of every depth."""
    profile = profiles.PROFILES[name]
    shares = SHARE.findall("".join(file.read_text() for file in paths.NOTEBOOKS.glob("*.ipynb")))
    for model in registry.MODELS:
        layers = registry.num_layers(model)
        requests = experiments.unhealed(model, Distances(num_layers=layers), profile, ["c4"])
        named = {times * (layers // int(share)) for share in shares for times in (1, 2)}
        healed = profile.curve_sizes(layers, model)
        assert named.union(healed) <= {request.block.size for request in requests}, model


@pytest.mark.parametrize(
    ("profile", "variable", "skipped"),
    [
        ("smoke", None, False),
        ("smoke", paths.DRAW_ONLY_VARIABLE, True),
        ("recorded", None, True),
        ("recorded", paths.LIVE_VARIABLE, False),
    ],
)
def test_cells_that_run_the_model_are_skipped_where_a_run_only_draws(
    profile, variable, skipped, monkeypatch
):
    shell = SimpleNamespace(input_transformers_cleanup=[], user_ns={"In": []})
    monkeypatch.setattr(notebook, "get_ipython", lambda: shell)
    if variable:
        monkeypatch.setenv(variable, "1")
    notebook.start(profiles.get(profile))
    assert (notebook.skip_live in shell.input_transformers_cleanup) == skipped
