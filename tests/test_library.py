"""The library by itself: the examples of lib/README.md (test_rooms: lib imports no other room)."""

import json
import re
import subprocess
import sys
import sysconfig
import venv

import jedi
import pytest
import transformers
from conftest import LAYERS

from lib import paths

SMALLER = {  # in the example -> here
    "size=6": "size=2",
    "count=64": "count=8",
    "questions=100": "questions=8",
    "sequences=32": "sequences=4",
    "steps=16": "steps=2",
    "max_tokens=128": "max_tokens=32",
}


def example() -> str:
    """The Python blocks of lib/README.md, of which each needs those before it."""
    readme = (paths.ROOT / "lib" / "README.md").read_text(encoding="utf-8")
    return "".join(re.findall(r"```python\n(.+?)```", readme, re.DOTALL))


@pytest.mark.real
def test_the_example_runs(small, tmp_path, monkeypatch, capsys):
    code = example()
    for text, replaced in {'"smollm2-135m"': repr(small), **SMALLER}.items():
        assert code.count(text) == 1, text
        code = code.replace(text, replaced)
    assert "replication" not in code
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    printed = capsys.readouterr().out
    arc, c4 = (re.findall(rf"\b{task} .*\d\.\d+", printed) for task in ("arc_easy", "c4"))
    assert len(arc) == len(c4) == 3  # the model, after dropping the block, healed
    assert len(re.findall(r"\d +mine ", printed)) == 2  # the model, and after dropping the block
    smaller = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "smaller")
    assert smaller.config.num_hidden_layers == len(smaller.model.layers) == LAYERS - 2


def test_an_editor_knows_what_is_imported_at_first_use():
    """Its names, and of a class its fields, though the package loads neither before."""
    for line, names in {
        "from lib.prune import Options as it": {"layers", "heal", "texts"},
        "from lib.healing import Recipe as it": {"steps", "rank"},
        "from lib.healing import heal as it": {"__call__"},
        "from lib.models import load as it": {"__call__"},
    }.items():
        script = jedi.Script(f"{line}\nit.", project=jedi.Project(paths.ROOT))
        assert names <= {completion.name for completion in script.complete()}, line


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Python of an environment with the wheel and what it needs, but without this checkout."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = ["wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(paths.ROOT)]
    subprocess.run([sys.executable, "-m", "pip", *wheel], check=True)
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    (here,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # packages are taken from this environment, where a line of a .pth file is not read again
    (here / "packages.pth").write_text(sysconfig.get_path("purelib"))
    (file,) = folder.glob("*.whl")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", str(file)]
    subprocess.run([python, "-m", "pip", *install], check=True)
    return python


PROGRAM = """import json, sys
import lib
from importlib import metadata
from importlib.util import find_spec
from deeper_layers import evaluation, models, paths
from deeper_layers.sweep import sweep

model, tokenizer = models.load("smaller")
text = evaluation.Task("c4", ({"text": "one two three", "max_tokens": 8},))
(loss,) = sweep(model, tokenizer, [], [text]).value
tops = {file.parts[0].split("-")[0] for file in metadata.files("deeper-layers")}
layers = model.config.num_hidden_layers
has_replication = bool(find_spec("replication"))
print(json.dumps([lib.MINE, layers, loss, str(paths.DATA), sorted(tops), has_replication]))
"""


@pytest.mark.real
def test_the_wheel_prunes_beside_a_folder_lib(installed, small, tmp_path, monkeypatch):
    """Elsewhere than in the checkout; downloads belong to the user's cache."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("MINE = 7")
    (tmp_path / "texts.txt").write_text("\n".join(f"text number {n}" for n in range(20)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    command = [
        installed.with_name("deeper-layers"),
        "prune",
        str(small),
        "smaller",
        "--layers",
        "2",
    ]
    command += ["--texts", "texts.txt", "--tasks", "c4"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    command = [installed, "-c", PROGRAM]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    mine, layers, loss, data, tops, has_replication = json.loads(done.stdout.splitlines()[-1])
    assert (mine, layers, has_replication) == (7, LAYERS - 2, False)
    assert 0 < loss < 50
    assert data == str(tmp_path / "cache" / "deeper-layers")
    assert set(tops) == {"deeper_layers", ".."}, "a package of another name is installed"
    card = (tmp_path / "smaller" / "README.md").read_text(encoding="utf-8")
    assert "deeper-layers prune" in card and str(tmp_path) not in card
