"""Rows 9 and 10: the memory of loading half a model, and of reading one layer by layer.

Peaks are those of fresh processes, above what each held before it loaded anything.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from benchmarks.sizes import FULL, Size
from benchmarks.table import Line
from benchmarks.timing import alternate
from lib import blocks, similarity
from lib.blocks import UNPRUNED, Block
from lib.models import loading

SHARDS = 4


def checkpoint(folder: Path, size: Size) -> Path:
    """A Llama with random weights in several bf16 shards (1.2 GB, tiny for TINY)."""
    width, ffn = (2048, 5632) if size == FULL else (32, 48)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=width,
        intermediate_size=ffn,
        num_hidden_layers=12,
        num_attention_heads=width // 16,
        tie_word_embeddings=True,
    )
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = AutoModelForCausalLM.from_config(config).state_dict()
    shapes.pop("lm_head.weight")
    names, places = list(shapes), {}
    for i in range(SHARDS):
        file = f"model-{i + 1:05d}-of-{SHARDS:05d}.safetensors"
        part = {name: _random(name, shapes[name].shape) for name in names[i::SHARDS]}
        save_file(part, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    words = Tokenizer(WordLevel({"<s>": 0}, unk_token="<s>"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<s>").save_pretrained(folder)
    return folder


def _random(name: str, shape) -> torch.Tensor:
    return (
        torch.ones(shape, dtype=torch.bfloat16)
        if "norm" in name
        else (torch.randn(shape, dtype=torch.bfloat16) / shape[-1] ** 0.5)
    )


def peak(folder: Path, work: str) -> int:
    """Bytes that `work` (one expression of this module) needs at its peak, in a fresh process."""
    code = (
        "from benchmarks import memory; from lib.models import loading; from lib.pruning import *\n"
        "from pathlib import Path\n"
        f"folder = {str(folder)!r}\n"
        "before = memory.resident('VmRSS'); memory.forget_peak()\n"
        f"{work}\n"
        "print(memory.resident('VmHWM') - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


def resident(entry: str) -> int:
    """Bytes of this process in memory now (VmRSS) or at its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(entry))


def forget_peak() -> None:
    """Let the peak start from what is held now."""
    Path("/proc/self/clear_refs").write_text("5")


def load(folder: Path, quantization: str | None, block: Block = UNPRUNED) -> int:
    """Peak of loading the model without `block`, in fp32 or NF4."""
    options = f"quantization={quantization!r}, dtype='float32', block={block!r}"
    return peak(folder, f"loading.load(folder, {options})")


def _batches(size: Size) -> list[dict]:
    """Random sequences of equal length for the distances."""
    generator = torch.Generator().manual_seed(0)
    shape = (max(2, size.map_sequences // 4), size.tokens)
    ids = [torch.randint(0, 1024, shape, generator=generator) for _ in range(8)]
    return [{"input_ids": i, "attention_mask": torch.ones_like(i)} for i in ids]


def by_layer(folder: str, size: Size) -> blocks.BlockDistances:
    """The distances, layer by layer, in fp32."""
    return similarity.layerwise_distances(
        lambda: loading.one_layer_models(folder, dtype="float32"), _batches(size)
    )


def in_memory(folder: str, size: Size) -> blocks.BlockDistances:
    """The same with the whole model in memory."""
    return similarity.block_distances(loading.load(folder, dtype="float32")[0], _batches(size))


def half_a_model(size: Size) -> list[Line]:
    """Row 9: peak memory of loading a model without half its layers, against loading it whole."""
    lines = []
    with tempfile.TemporaryDirectory() as place:
        folder = checkpoint(Path(place), size)
        for quantization in (None, "nf4"):
            whole = load(folder, quantization)
            half = load(folder, quantization, Block(3, 6))
            lines.append(
                Line(
                    row=9,
                    what=f"Peak memory of loading, 12 layers, {quantization or 'fp32'}",
                    reference=f"whole: {whole / 2**20:.0f} MiB",
                    ours=f"without 6 layers: {half / 2**20:.0f} MiB",
                    required="≤ 0.65",
                    ratio=half / whole,
                    met=half / whole <= 0.65,
                    limit="0.50",
                )
            )
    return lines


def layer_by_layer(size: Size) -> list[Line]:
    """Row 10: distances with two layers in memory, against the whole model in memory."""
    with tempfile.TemporaryDirectory() as place:
        folder = checkpoint(Path(place), size)
        pair = alternate(
            lambda: in_memory(str(folder), size), lambda: by_layer(str(folder), size), size.repeats
        )
        apart = abs(pair.reference_value.matrix - pair.ours_value.matrix).max()
        setup = "from benchmarks.sizes import FULL, TINY\n"
        held = [
            peak(folder, f"{setup}memory.{way}(folder, {size.name.upper()})")
            for way in ("in_memory", "by_layer")
        ]
    slower = pair.ours / pair.reference
    return [
        Line(
            row=10,
            what=f"Distances of a model of 12 layers, {8 * len(_batches(size)[0]['input_ids'])} "
            f"sequences of {size.tokens} tokens, loading included",
            reference=f"whole in memory: {held[0] / 2**20:.0f} MiB at the peak",
            ours=f"layer by layer: {held[1] / 2**20:.0f} MiB",
            required="≤ 1.5",
            ratio=slower,
            met=slower <= 1.5,
            seconds=(pair.reference, pair.ours),
            dtype="float32",
            limit="1.00",
            notes=(f"largest difference of a distance {apart:.1e}",),
        )
    ]
