"""Every snippet of exercises/README.md runs, in its order; the paper in one file is the library."""

import ast
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import nano_heal
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from lib.blocks import Block
from lib.data import sets
from lib.evaluation import Task
from lib.healing import heal, lora
from lib.models import loading
from lib.pruning import UNPRUNED, dropped, similarity_block
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


def test_healing_by_hand_is_the_library_step_by_step(small, tmp_path, monkeypatch):
    """Losses and adapters, of a cut model, from the same start; each document is read alone."""
    texts = [f"{'a text of its own ' * n}and number {n}" for n in range(1, 9)]
    monkeypatch.setattr(sets, "healing_texts", lambda source, count: texts)
    smoke = profiles.recipe("tiny-random", profiles.get("smoke"))
    recipe = replace(smoke, steps=3, batch=2, max_tokens=24, learning_rate=0.05, dropout=0.0)
    (model, tokenizer), block = loading.load(small, dtype="float32"), Block(2, 2)
    with dropped(model, block):
        with lora.new_lora(model, recipe) as wrapped:
            named = dict(wrapped.named_parameters())
            starts = {name: p.clone() for name, p in named.items() if "lora_A" in name}
        healed = heal(model, tokenizer, recipe, tmp_path / "healing")
        adapter = load_file(healed.adapter / "adapter_model.safetensors")

        adapters = nano_heal.add_lora(model, recipe.rank)
        with torch.no_grad():
            for own, start in zip(adapters, starts.values(), strict=True):
                own.a.copy_(start)
        rows = nano_heal.packed(texts, tokenizer, recipe.max_tokens, recipe.seed)
        lengths = {sum(map(len, row)) for row in rows}
        assert lengths == {recipe.max_tokens} and max(map(len, rows)) > 1
        losses = nano_heal.heal(
            model, rows, recipe.steps, recipe.batch, recipe.learning_rate, recipe.warmup_steps
        )
    assert losses == pytest.approx(healed.losses, abs=1e-4)
    assert max(losses) - min(losses) > 0.01
    for own, name in zip(adapters, starts, strict=True):
        for matrix, values in (("A", own.a), ("B", own.b)):
            key = name.replace("lora_A.default", f"lora_{matrix}")
            # Adam divides by the size of a gradient, so rounding shows where that is nearly 0
            distance = (values.detach() - adapter[key]).norm()
            assert distance <= 0.002 * adapter[key].norm()
            assert adapter[key].abs().max() > 0.01
