"""The library by itself: the example of lib/README.md, run where `replication` is missing."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import transformers
from conftest import LAYERS, stored, tiny

from lib import paths

ALONE = """
import sys

sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder)]
sys.path = [entry for entry in sys.path if entry != {checkout!r}]
try:
    import replication
except ModuleNotFoundError:
    pass
else:
    sys.exit(f"replication is there: {{replication.__file__}}")
import lib

assert lib.__file__.startswith({folder!r}), lib.__file__
"""
SMALLER = {  # in the example -> here
    "size=6": "size=2",
    "count=64": "count=8",
    "questions=100": "questions=8",
    "sequences=32": "sequences=4",
    "steps=16": "steps=2",
    "max_tokens=128": "max_tokens=32",
}


def example() -> str:
    """The Python block of lib/README.md."""
    readme = (paths.ROOT / "lib" / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.+?)```", readme, re.DOTALL)
    return block


@pytest.fixture
def alone(tmp_path):
    """A folder with a copy of the library, the data it reads, and nothing else of the project."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(paths.ROOT / "lib", tmp_path / "lib", ignore=ignored)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "assets").symlink_to(paths.ASSETS)
    return tmp_path


@pytest.mark.real
def test_the_example_runs_where_there_is_only_the_library(alone, tmp_path_factory):
    model = str(stored(tiny("llama"), tmp_path_factory.mktemp("tiny") / "model"))
    code = example()
    for text, replaced in {'"smollm2-135m"': repr(model), **SMALLER}.items():
        assert code.count(text) == 1, text
        code = code.replace(text, replaced)
    prelude = ALONE.format(checkout=str(paths.ROOT), folder=str(alone))
    (alone / "example.py").write_text(prelude + code, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=alone, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    arc, c4 = (re.findall(rf"\b{task} .*\d\.\d+", done.stdout) for task in ("arc_easy", "c4"))
    assert len(arc) == len(c4) == 3  # the model, without the block, healed
    smaller = transformers.AutoModelForCausalLM.from_pretrained(alone / "smaller")
    assert smaller.config.num_hidden_layers == len(smaller.model.layers) == LAYERS - 2
