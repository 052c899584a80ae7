"""The library by itself: the example of lib/README.md (test_rooms: lib imports no other room)."""

import re

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
    """The Python block of lib/README.md."""
    readme = (paths.ROOT / "lib" / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.+?)```", readme, re.DOTALL)
    return block


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
    assert len(arc) == len(c4) == 3  # the model, without the block, healed
    smaller = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "smaller")
    assert smaller.config.num_hidden_layers == len(smaller.model.layers) == LAYERS - 2
