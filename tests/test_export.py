"""The healed model to take away: its card tells of the very checkpoint that it lies next to."""

from dataclasses import replace

import pytest
import torch
from conftest import real_task, stored, tiny

from lib.blocks import Block
from lib.models import loading
from lib.sweep import sweep
from replication import paths, profiles
from replication.beyond import repair
from replication.measure import export, scores

SMOKE = replace(profiles.get("smoke"), dtype="bfloat16")
BLOCK = Block(2, 2)


pytestmark = pytest.mark.usefixtures("few_articles")


def row_of_c4(folder) -> list[str]:
    """The cells of the card's row of C4, with what stands before the first and after the last."""
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    (row,) = [line for line in lines if line.startswith("| c4 |")]
    return [cell.strip() for cell in row.split("|")]


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_the_card_has_the_scores_of_the_checkpoint(output, quantization):
    """In bf16 a merged adapter is rounded: the checkpoint is not quite the model with adapter."""
    name = str(stored(tiny("llama").to(torch.bfloat16), output / "base"))
    profile = replace(SMOKE, quantization=quantization)
    changes = {"learning_rate": 0.1, "steps": 4}
    folder = export.healed_model(name, profile, BLOCK, output / "healed", ["c4"], **changes)
    _, _, score, adapter, difference, n, _, _ = row_of_c4(folder)
    model, tokenizer = loading.load(str(folder), dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    (merged,) = sweep(model, tokenizer, [], [real_task("c4")]).itertuples()
    assert score == f"{merged.value:.4f} ± {merged.standard_error:.4f}" and n == str(merged.n)
    recipe = profiles.recipe(name, profile, **changes)
    attached = scores.measure(name, profile, [BLOCK], ["c4"], recipe).value[0]
    assert adapter == f"{attached:.4f}" and difference == f"{merged.value - attached:+.4f}"
    assert merged.value != attached


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_folded_map_is_an_ordinary_checkpoint(output, dtype):
    """Its scores are those of the map before it was folded in, rounding apart; no adapter."""
    name, profile = str(stored(tiny("llama"), output / "base")), replace(SMOKE, dtype=dtype)
    folder = repair.mapped_model(name, profile, BLOCK, output / "mapped", ["c4"])
    model, _ = loading.load(str(folder), dtype=dtype)
    assert model.config.num_hidden_layers == 4 and not (folder / "adapter").exists()
    difference = float(row_of_c4(folder)[4])
    assert abs(difference) <= (1e-4 if dtype == "float32" else 0.05)
    base, _ = loading.load(name, dtype=dtype)
    ours, theirs = (m.model.layers[1].mlp.down_proj.weight for m in (model, base))
    assert not torch.equal(ours, theirs)


def test_the_weights_have_the_format_of_the_healing(output, monkeypatch):
    """Merged on the processor, also where the healing was on a GPU and the two differ."""
    monkeypatch.setattr(loading, "default_device", lambda: "cuda")
    monkeypatch.setattr(loading, "default_dtype", lambda d: "float16" if d == "cuda" else "float32")
    monkeypatch.setattr(scores, "heal", lambda *a: {"values": {"status": "ok", "adapter": "x"}})
    monkeypatch.setattr(scores, "measure", lambda *a: None)
    monkeypatch.setattr(export, "save_merged", lambda model, *a: model)
    name = str(stored(tiny("llama"), output / "base"))
    profile = replace(SMOKE, dtype=None)
    model = export.healed_model(name, profile, BLOCK, output / "healed", [])
    assert (model.dtype, model.device.type) == (torch.float16, "cpu")


def test_the_readmes_example_runs(output, tmp_path, monkeypatch):
    """On a tiny model, with another profile's counts."""
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    example = text.partition("```python\n")[2].partition("```")[0]
    name = str(stored(tiny("qwen3"), output / "model"))
    example = example.replace("path/to/model", name).replace("size=6", "size=2")
    monkeypatch.chdir(tmp_path)
    exec(example.replace('profiles.get("quick"', 'profiles.get("smoke"'), {})
    for folder in ("pruned-model", "healed-model"):
        assert (tmp_path / folder / "config.json").exists()
    assert "| c4 |" in (tmp_path / "healed-model" / "README.md").read_text(encoding="utf-8")
