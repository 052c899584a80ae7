"""Only what stays is read, from every layout of a checkpoint; and what is damaged says so."""

import gc
import json
import resource
import signal
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
import transformers
from conftest import (
    ARCHITECTURES,
    EXPERTS,
    GROUPED,
    LAYERS,
    SIZE,
    WINDOW,
    built,
    in_nf4,
    logits,
    stored,
    tiny,
)
from test_similarity import padded
from transformers.pytorch_utils import Conv1D

from lib import similarity
from lib.blocks import Block
from lib.models import files, loading
from lib.models.decoder import decoder_layers
from lib.models.registry import ModelError
from lib.pruning import dropped

CUTS = [Block(1, 3), Block(0, 2), Block(4, 2)]


@pytest.fixture
def folder(architecture, tmp_path):
    """A checkpoint in several shards, with an index."""
    return stored(tiny(architecture), tmp_path / "model", max_shard_size="60KB")


def test_reads_what_transformers_reads(folder, architecture, ids):
    assert len(list(folder.glob("*.safetensors"))) > 1
    loaded, _ = loading.load(str(folder), dtype="float32")
    assert torch.equal(logits(loaded, ids), logits(tiny(architecture), ids))


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_a_model_without_a_block_is_the_dropped_model(folder, ids, quantization):
    whole, _ = loading.load(str(folder), dtype="float32", quantization=quantization)
    for block in CUTS:
        part, _ = loading.load(str(folder), dtype="float32", quantization=quantization, block=block)
        assert len(decoder_layers(part)) == LAYERS - block.size
        with dropped(whole, block):
            assert torch.equal(logits(part, ids), logits(whole, ids)), block


def test_single_layers_give_the_same_distances(folder):
    batches = [padded("right"), padded("left"), padded("right")]
    whole = similarity.block_distances(loading.load(str(folder), dtype="float32")[0], batches)
    for chunk in (1, 2):
        layers = similarity.layerwise_distances(
            lambda: loading.one_layer_models(str(folder), dtype="float32"), batches, chunk
        )
        np.testing.assert_array_equal(layers.matrix, whole.matrix)
        np.testing.assert_array_equal(layers.standard_error, whole.standard_error)
        np.testing.assert_array_equal(layers.folds, whole.folds)


def test_layer_by_layer_holds_two_layers(tmp_path):
    """The one that is read, and the next."""
    folder, alive, held = str(stored(tiny("llama"), tmp_path / "model")), weakref.WeakSet(), []

    def layers():
        for model in loading.one_layer_models(folder, dtype="float32"):
            alive.add(decoder_layers(model)[0])
            gc.collect()
            held.append(len(alive))
            yield model

    similarity.layerwise_distances(layers, [padded("right")])
    assert len(held) >= LAYERS and max(held) <= 2


def test_nf4_is_what_bitsandbytes_makes_of_the_weights(folder, architecture):
    loaded, _ = loading.load(str(folder), dtype="float32", quantization="nf4")
    plain = tiny(architecture)
    seen = 0
    for name, module in loaded.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not loaded.get_output_embeddings():
            original = plain.get_submodule(name)
            weight = original.weight.data
            weight = weight.T.contiguous() if isinstance(original, Conv1D) else weight
            expected = in_nf4(weight)
            seen += torch.equal(module.weight, expected)
            assert torch.equal(module.weight, expected) or torch.equal(module.weight, weight), name
    quantised = [m for m in decoder_layers(loaded).modules() if isinstance(m, torch.nn.Linear)]
    assert seen == len(quantised) or architecture in EXPERTS


def test_dropped_layers_are_never_read(tmp_path, monkeypatch):
    """Nor anything twice, also layer by layer."""
    folder, read = stored(tiny("llama"), tmp_path / "model"), []

    class Watched:
        def __init__(self, name, tensor):
            self.name, self.tensor = name, tensor

        def __getitem__(self, index):
            read.append(self.name)
            return self.tensor[index]

        def __getattr__(self, attribute):
            return getattr(self.tensor, attribute)

    tensors = {n: Watched(n, t) for n, t in files.lazy_state_dict(folder).items()}
    monkeypatch.setattr(files, "lazy_state_dict", lambda folder: tensors)
    loading.load(str(folder), dtype="float32", block=Block(2, 3))
    cut = tuple(f"model.layers.{layer}." for layer in (2, 3, 4))
    expected = [name for name in tensors if not name.startswith(cut)]
    assert sorted(read) == sorted(expected)
    read.clear()
    for _ in loading.one_layer_models(str(folder), dtype="float32"):
        pass
    assert sorted(read) == sorted(tensors)


# ---- layers that depend on their place ------------------------------------------------------


def diff_llama():
    return transformers.DiffLlamaConfig(**GROUPED)


def inverse_gpt2():
    config = ARCHITECTURES["gpt2"]()
    config.scale_attn_by_inverse_layer_idx = True
    return config


def gemma3n(**changes):
    own = {"head_dim": 8, "hidden_size_per_layer_input": 8, "laurel_rank": 4}
    own |= {"num_kv_shared_layers": 0, "layer_types": ["full_attention"] * LAYERS}
    return transformers.Gemma3nTextConfig(
        **GROUPED | own | changes,
        vocab_size_per_layer_input=SIZE["vocab_size"],
        altup_num_inputs=2,
        activation_sparsity_pattern=[0.0] * LAYERS,
    )


def with_shared_keys():
    """Transformers itself raises for what is left after a cut."""
    types = ["sliding_attention", "full_attention"] * (LAYERS // 2)
    return gemma3n(hidden_size_per_layer_input=0, num_kv_shared_layers=4, layer_types=types)


def dory():
    return transformers.DoryConfig(**GROUPED, head_dim=8)  # runs its middle layers twice


def jamba():
    return transformers.JambaConfig(
        **GROUPED,
        attn_layer_period=3,  # kinds of layers by a formula of their place
        attn_layer_offset=1,
        expert_layer_period=2,
        num_experts=2,
        use_mamba_kernels=False,
    )


CONFIGS = [diff_llama, inverse_gpt2, dory, gemma3n, with_shared_keys, jamba]


@pytest.mark.parametrize("config", CONFIGS)
def test_what_cannot_follow_a_cut_is_refused(config, tmp_path):
    """The first three would load and give wrong numbers; the others would fail in between."""
    folder = stored(built(config()), tmp_path / "model")
    with pytest.raises(ModelError):
        loading.load(str(folder), block=Block(1, 2))


def test_what_cannot_be_cut_in_memory_is_refused():
    with pytest.raises(ModelError, match="outside of the layers|something else its decoder"):
        with dropped(built(gemma3n()), Block(1, 2)):
            pass


def test_as_many_rotary_embeddings_as_layers(tmp_path, ids):
    """Granite-SWA has a list of them, which is no list of layers."""
    config = transformers.GraniteSWAConfig(**GROUPED, sliding_window=WINDOW)
    model = built(config)
    folder = stored(model, tmp_path / "model")
    for block in (Block(1, 2), Block(0, 4), Block(0, 5)):
        part, _ = loading.load(str(folder), dtype="float32", block=block)
        with dropped(model, block):
            assert torch.equal(logits(part, ids), logits(model, ids)), block


def test_layers_that_call_their_number_otherwise_generate(ids):
    config = transformers.GPTNeoConfig(
        **SIZE,
        attention_types=[[["global", "local"], LAYERS // 2]],
        window_size=WINDOW,
        max_position_embeddings=128,
    )
    model = built(config)
    with dropped(model, Block(1, 2)), torch.inference_mode():
        cached = model.generate(ids, max_new_tokens=4, do_sample=False, eos_token_id=None)
        whole = ids
        for _ in range(4):
            whole = torch.cat([whole, logits(model, whole)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(cached, whole)


# ---- damage ------------------------------------------------------------------------------------


@pytest.fixture
def llama_folder(tmp_path):
    return stored(tiny("llama"), tmp_path / "model", max_shard_size="60KB")


def cut_short(folder):
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])


def emptied(folder):
    sorted(folder.glob("*.safetensors"))[0].write_bytes(b"")


def without_a_shard(folder):
    sorted(folder.glob("*.safetensors"))[1].unlink()


def without_weights(folder):
    for file in folder.glob("*.safetensors*"):
        file.unlink()


def with_config(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def without_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()


def cut_off(name: str):
    def change(folder):
        (folder / name).write_text((folder / name).read_text()[:20])

    return change


@pytest.mark.parametrize(
    "damage, problem",
    [
        (cut_short, "damaged"),
        (emptied, "damaged"),
        (without_a_shard, "missing"),
        (without_weights, "missing"),
        (cut_off(files.INDEX), "damaged"),
        (cut_off("config.json"), "config.json"),
        (with_config(num_hidden_layers=5), "5 layers"),
        (with_config(num_hidden_layers=7), "7 layers"),
        (with_config(vocab_size=97), "not those of its config.json"),
        (with_config(tie_word_embeddings=False, model_type="olmo2"), "not those of its"),
        (with_config(model_type="nonsense"), "no model"),
        (with_config(model_type="bert"), "not a decoder"),
        (with_config(model_type="t5"), "no decoder"),
        (with_config(model_type="qwen"), "seq_length"),
        (with_config(quantization_config={"quant_method": "awq", "bits": 4}), "quantised already"),
        (without_tokenizer, "no tokenizer"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_damaged_checkpoint_is_refused(llama_folder, damage, problem):
    damage(llama_folder)
    with pytest.raises(ModelError, match=problem):
        loading.load(str(llama_folder))


def run_with_small_disk(code: str, tmp_path, limit: int) -> subprocess.CompletedProcess:
    """Run code whose every write beyond `limit` bytes of a file fails, as on a full disk."""

    def full():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=full
    )


def test_a_full_disk_leaves_nothing_half_saved(tmp_path):
    folder = stored(tiny("llama"), tmp_path / "model")
    code = (
        "from lib import pruning; from lib.models import loading\n"
        f"model, tokenizer = loading.load({str(folder)!r})\n"
        f"pruning.save_pruned(model, tokenizer, pruning.Block(1, 1), {str(tmp_path / 'cut')!r})\n"
    )
    done = run_with_small_disk(code, tmp_path, limit=20_000)
    assert done.returncode != 0 and "could not be written" in done.stderr.splitlines()[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_damaged_gguf_file(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.paths.CHECKPOINTS", tmp_path / "checkpoints")
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF\x03\x00\x00\x00 and no more")
    with pytest.raises(ModelError, match="model.gguf"):
        loading.load(str(file))
    assert not [p for p in (tmp_path / "checkpoints").iterdir() if p.is_dir()]
