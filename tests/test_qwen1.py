"""Qwen-1 as Qwen2: bit for bit the forward of the architecture's definition; tokens as tiktoken."""

import json
import unicodedata
from collections.abc import Iterable

import pytest
import tiktoken
import torch
from originals import LAYERS, SEQ_LENGTH, qwen_1, qwen_1_config, qwen_1_weights, ranks, shards
from torch.nn import functional
from torch.nn.functional import silu

from lib.blocks import UNPRUNED, Block
from lib.evaluation import Task
from lib.models import files, loading, qwen1
from lib.models.registry import ModelError
from lib.pruning import dropped, save_pruned
from lib.sweep import sweep
from replication import paths

TEXTS = [
    "The five boxing wizards jump quickly; it's 1234.5 miles away, isn't it?\n\n  Yes.",
    "Ünïcödé: e\u0301 and é are one letter; 日本語 and emoji 🙂 are bytes.",
    "def f(x):\r\n\treturn  x ** 2   # tabs\t and trailing   \n",
    "",
    " ",
    "\n\n\n a",
]

CORPUS = [(paths.ROOT / "README.md").read_text(encoding="utf-8"), *TEXTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("Qwen-7B")
    torch.manual_seed(0)
    qwen_1(folder, CORPUS)
    return folder


def stored_tensors(folder) -> tuple[dict, dict]:
    config = json.loads((folder / "config.json").read_text())
    return config, {n: tensor[...].float() for n, tensor in files.lazy_state_dict(folder).items()}


@pytest.mark.parametrize("length", [1, 40])
def test_a_published_checkpoint_is_read_as_the_original_reads_it(folder, length):
    """bf16 in shards, an index, and code that is not run."""
    config, tensors = stored_tensors(folder)
    model, _ = loading.load(str(folder), dtype="float32")
    ids = torch.randint(0, config["vocab_size"], (1, length), generator=torch.Generator())
    with torch.inference_mode():
        logits = model(ids, use_cache=False).logits
        expected = original(config, tensors, range(LAYERS), ids)
    assert torch.equal(logits, expected)
    assert expected.std() > 0.5  # they do not agree by being nothing


# ---- bit for bit ------------------------------------------------------------------------------


def turned(x, cos, sin):
    one, other = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-other, one], dim=-1) * sin


def original(config: dict, w: dict, layers: Iterable[int], ids: torch.Tensor) -> torch.Tensor:
    """Logits (B, T, V) in fp32: the operations of the original, in its order, of only `layers`."""
    heads, eps = config["num_attention_heads"], config["layer_norm_epsilon"]

    def normed(x, weight):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight

    x = functional.embedding(ids, w["transformer.wte.weight"])
    batch, length, width = x.shape
    head = width // heads
    frequency = 1.0 / (config["rotary_emb_base"] ** (torch.arange(0, head, 2).float() / head))
    angle = torch.outer(torch.arange(length).float(), frequency).repeat(1, 2)[None, :, None]
    past = torch.ones(length, length, dtype=torch.bool).tril()
    for l in layers:
        own = {n.split(f"h.{l}.")[1]: t for n, t in w.items() if f".h.{l}." in n}
        fused = functional.linear(
            normed(x, own["ln_1.weight"]), own["attn.c_attn.weight"], own["attn.c_attn.bias"]
        )
        q, k, v = (part.reshape(batch, length, heads, head) for part in fused.split(width, -1))
        q, k = (turned(part, angle.cos(), angle.sin()) for part in (q, k))
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=past)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        x = x + functional.linear(mixed, own["attn.c_proj.weight"])
        y = normed(x, own["ln_2.weight"])
        up, gate = (functional.linear(y, own[f"mlp.{name}.weight"]) for name in ("w1", "w2"))
        x = x + functional.linear(up * silu(gate), own["mlp.c_proj.weight"])
    return functional.linear(normed(x, w["transformer.ln_f.weight"]), w["lm_head.weight"])


def written(folder, changes: dict | None = None, more: dict | None = None, dtype=torch.bfloat16):
    """A Qwen-1 with another configuration, or with tensors besides its own; returns both."""
    config = qwen_1_config(208)
    (folder / "config.json").write_text(json.dumps(config | (changes or {})))
    torch.manual_seed(0)
    tensors = qwen_1_weights(config, dtype) | (more or {})
    shards(folder, tensors, 2)
    return config, tensors


@pytest.mark.parametrize("block", [UNPRUNED, Block(1, 1), Block(0, 2), Block(1, 2)], ids=str)
def test_logits_are_the_originals_bit_for_bit(folder, tmp_path, block):
    """fp32, random weights, biases and norms; pruned in memory, and loaded without the block."""
    config, tensors = written(tmp_path, dtype=torch.float32)
    (tmp_path / "qwen.tiktoken").write_bytes((folder / "qwen.tiktoken").read_bytes())
    whole, _ = loading.load(str(tmp_path), dtype="float32", device="cpu")
    part, _ = loading.load(str(tmp_path), dtype="float32", device="cpu", block=block)
    generator = torch.Generator().manual_seed(1)
    for length in (1, 2, 7, 17, 33, 64):
        for _ in range(3):
            ids = torch.randint(0, config["vocab_size"], (3, length), generator=generator)
            expected = original(config, tensors, block.kept(LAYERS), ids)
            with torch.inference_mode(), dropped(whole, block):
                assert torch.equal(whole(ids, use_cache=False).logits, expected)
                assert torch.equal(part(ids, use_cache=False).logits, expected)
    assert expected.std() > 0.5


# ---- what is not known, and what is beyond ------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"no_bias": False},
        {"rotary_pct": 0.5},
        {"kv_channels": 16},
        {"tie_word_embeddings": True},
        {"num_key_value_heads": 2},
        {"quantization_config": {"bits": 4}},
        {"something_new": 1},
    ],
    ids=str,
)
def test_a_configuration_that_is_not_known_is_refused(tmp_path, change):
    written(tmp_path, change)
    with pytest.raises(ModelError, match=f"not the one that is known here.*{next(iter(change))}"):
        loading.load(str(tmp_path))


@pytest.mark.parametrize("name", ["h.1.attn.c_proj.bias", "more.weight"])
def test_a_tensor_that_is_not_known_is_refused(tmp_path, name):
    written(tmp_path, more={f"transformer.{name}": torch.ones(32)})
    with pytest.raises(ModelError, match=f"{name} is no tensor of the Qwen-1"):
        loading.load(str(tmp_path))


def test_stored_buffers_are_not_missed():
    stored = dict.fromkeys(["transformer.rotary_emb.inv_freq", "transformer.h.0.attn.masked_bias"])
    assert qwen1.renamed(stored) == {}


def test_the_published_configurations_are_known():
    """With the entries that only some of the published ones have."""
    raw = qwen_1_config(151_936) | {"torch_dtype": "bfloat16", "softmax_in_fp32": False}
    raw |= {"use_cache_kernel": False, "use_cache_quantization": False, "bf16": True}
    assert qwen1.config(raw).exact_length == raw["seq_length"]


def test_nothing_is_scored_beyond_the_length_of_the_original(folder, tmp_path):
    model, tokenizer = loading.load(str(folder), dtype="float32")
    saved = save_pruned(model, tokenizer, Block(1, 1), tmp_path / "pruned")
    read, beyond = (  # the last token is predicted, not read
        Task("c4", ({"text": "one two three " * 2400, "max_tokens": SEQ_LENGTH + 1 + more},))
        for more in (0, 1)
    )
    for each in (model, loading.load(str(saved), dtype="float32")[0]):
        assert len(sweep(each, tokenizer, [], [read])) == 1
        with pytest.raises(ValueError, match="c4 has 2049 tokens; .* only up to 2048"):
            sweep(each, tokenizer, [], [beyond])


def test_a_pruned_one_is_saved_as_qwen2(folder, tmp_path):
    model, tokenizer = loading.load(str(folder), dtype="float32")
    saved = save_pruned(model, tokenizer, Block(1, 1), tmp_path / "pruned")
    again, words = loading.load(str(saved), dtype="float32")
    ids = torch.arange(30)[None]
    with dropped(model, Block(1, 1)), torch.inference_mode():
        assert torch.equal(model(ids).logits, again(ids).logits)
    assert words(TEXTS[0]).input_ids == tokenizer(TEXTS[0]).input_ids
    assert words.pad_token == "<|extra_0|>"


@pytest.mark.parametrize("text", [*TEXTS, "<|endoftext|><|im_start|>a<|extra_204|>"])
def test_tokens_are_those_of_tiktoken(folder, text):
    vocabulary = ranks(CORPUS)
    special = {token: len(vocabulary) + i for i, token in enumerate(qwen1._SPECIAL)}
    theirs = tiktoken.Encoding(
        "qwen", pat_str=qwen1._WORDS, mergeable_ranks=vocabulary, special_tokens=special
    )
    ours = qwen1.tokenizer(folder)
    expected = theirs.encode(unicodedata.normalize("NFC", text), allowed_special="all")
    assert ours(text).input_ids == expected
    assert ours.decode(expected) == unicodedata.normalize("NFC", text)
    assert ours.pad_token_id == special["<|extra_0|>"]
    assert ours.eos_token_id == special["<|endoftext|>"]


def test_its_own_code_is_never_run(folder):
    """The checkpoint's Python raises when it is run; nothing in lib asks for it."""
    loading.load(str(folder), dtype="float32", block=Block(0, 2))
    for file in [*(paths.ROOT / "lib").rglob("*.py"), *paths.NOTEBOOKS.glob("*.ipynb")]:
        assert "trust_remote" + "_code" not in file.read_text(encoding="utf-8"), file
