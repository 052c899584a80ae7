"""A checkpoint into which a map is folded: its card tells of the very checkpoint."""

from dataclasses import replace

import pytest
import torch
from conftest import real_task, stored, tiny

from lib.blocks import Block
from lib.models import loading
from lib.sweep import sweep
from replication import profiles
from replication.beyond import repair

SMOKE = profiles.get("smoke")
BLOCK = Block(2, 2)


def row_of_c4(folder) -> list[str]:
    """The cells of the card's row of C4, with what stands before the first and after the last."""
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    (row,) = [line for line in lines if line.startswith("| c4 |")]
    return [cell.strip() for cell in row.split("|")]


@pytest.mark.parametrize("quantization", [None, "nf4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_folded_map_is_an_ordinary_checkpoint(output, dtype, quantization):
    """Its scores are those of the map before it was folded in, rounding apart; no adapter."""
    name = str(stored(tiny("llama"), output / "base"))
    profile = replace(SMOKE, dtype=dtype, quantization=quantization)
    folder = repair.mapped_model(name, profile, BLOCK, output / "mapped", ["c4"])
    model, tokenizer = loading.load(str(folder), dtype=dtype)
    assert model.config.num_hidden_layers == 4 and not (folder / "adapter").exists()
    _, _, score, _, difference, n, _, _ = row_of_c4(folder)
    assert abs(float(difference)) <= (1e-4 if dtype == "float32" else 0.05)
    (folded,) = sweep(model, tokenizer, [], [real_task("c4")]).itertuples()
    assert score == f"{folded.value:.4f} ± {folded.standard_error:.4f}" and n == str(folded.n)
    base, _ = loading.load(name, dtype=dtype)
    ours, theirs = (m.model.layers[1].mlp.down_proj.weight for m in (model, base))
    assert not torch.equal(ours, theirs)
