"""Qwen-1 as Qwen2: bit for bit the forward of the architecture's definition; tokens as tiktoken."""

import json
import unicodedata
from collections.abc import Iterable

import pytest
import tiktoken
import torch
from originals import LAYERS, SEQ_LENGTH, qwen_1, ranks
from torch.nn import functional
from torch.nn.functional import silu

from lib.blocks import UNPRUNED, Block
from lib.evaluation import Task
from lib.models import files, loading, qwen1
from lib.pruning import dropped, save_pruned
from lib.sweep import sweep
from replication import paths

TEXTS = [
    "The five boxing wizards jump quickly; it's 1234.5 miles away, isn't it?\n\n  Yes.",
    "Ünïcödé: e\u0301 and é are one letter; 日本語 and emoji 🙂 are bytes.",
    "def f(x):\r\n\treturn  x ** 2   # tabs\t and trailing   \n",
    "",
]
CORPUS = [(paths.ROOT / "README.md").read_text(encoding="utf-8"), *TEXTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint as published: bf16 in shards, and an index."""
    folder = tmp_path_factory.mktemp("Qwen-7B")
    torch.manual_seed(0)
    qwen_1(folder, CORPUS)
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


@pytest.fixture(scope="module")
def whole(folder):
    return loading.load(str(folder), dtype="float32", device="cpu")


def rotated(x, cos, sin):
    one, other = x.chunk(2, dim=-1)
    turned = torch.cat([-other, one], dim=-1)
    return x * cos + turned * sin


def original(config: dict, w: dict, layers: Iterable[int], ids: torch.Tensor) -> torch.Tensor:
    """Logits (B, T, V) in fp32: the operations of the original, in its order, of only `layers`."""
    heads = config["num_attention_heads"]
    base = config["rotary_emb_base"]

    def normed(x, weight):
        variance = x.pow(2).mean(-1, keepdim=True)
        return x * torch.rsqrt(variance + config["layer_norm_epsilon"]) * weight

    x = functional.embedding(ids, w["transformer.wte.weight"])
    batch, length, width = x.shape
    head = width // heads
    exponents = torch.arange(0, head, 2).float() / head
    frequencies = 1.0 / (base**exponents)
    places = torch.arange(length).float()
    angle = torch.outer(places, frequencies).repeat(1, 2)[None, :, None]
    past = torch.ones(length, length, dtype=torch.bool).tril()
    for l in layers:
        layer = f"transformer.h.{l}"
        y = normed(x, w[f"{layer}.ln_1.weight"])
        weight = w[f"{layer}.attn.c_attn.weight"]
        bias = w[f"{layer}.attn.c_attn.bias"]
        fused = functional.linear(y, weight, bias)
        q, k, v = (part.reshape(batch, length, heads, head) for part in fused.split(width, -1))
        q = rotated(q, angle.cos(), angle.sin())
        k = rotated(k, angle.cos(), angle.sin())
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=past)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        x = x + functional.linear(mixed, w[f"{layer}.attn.c_proj.weight"])
        y = normed(x, w[f"{layer}.ln_2.weight"])
        up = functional.linear(y, w[f"{layer}.mlp.w1.weight"])
        gate = functional.linear(y, w[f"{layer}.mlp.w2.weight"])
        x = x + functional.linear(up * silu(gate), w[f"{layer}.mlp.c_proj.weight"])
    y = normed(x, w["transformer.ln_f.weight"])
    return functional.linear(y, w["lm_head.weight"])


@pytest.mark.parametrize("block", [UNPRUNED, Block(1, 1), Block(0, 2)], ids=str)
def test_logits_are_the_originals_bit_for_bit(folder, whole, block):
    """In fp32; pruned in memory, and loaded without the block."""
    config = json.loads((folder / "config.json").read_text())
    lazy = files.lazy_state_dict(folder)
    tensors = {name: tensor[...].float() for name, tensor in lazy.items()}
    model, _ = whole
    part, _ = loading.load(str(folder), dtype="float32", device="cpu", block=block)
    generator = torch.Generator().manual_seed(1)
    for length in (1, 7, 64):
        shape = (3, length)
        ids = torch.randint(0, config["vocab_size"], shape, generator=generator)
        expected = original(config, tensors, block.kept(LAYERS), ids)
        with torch.inference_mode(), dropped(model, block):
            assert torch.equal(model(ids, use_cache=False).logits, expected)
            assert torch.equal(part(ids, use_cache=False).logits, expected)
    assert expected.std() > 0.5  # they do not agree by being nothing


def test_a_pruned_one_is_a_qwen2_that_scores_no_longer_texts(whole, tmp_path):
    """Nor does the whole one: beyond its length the original rescales."""
    model, tokenizer = whole
    saved = save_pruned(model, tokenizer, Block(1, 1), tmp_path / "pruned")
    again, words = loading.load(str(saved), dtype="float32")
    assert words(TEXTS[0]).input_ids == tokenizer(TEXTS[0]).input_ids
    assert words.pad_token == "<|extra_0|>"
    longest, beyond = (  # the last token is predicted, not read
        Task("c4", ({"text": "one two three " * 2400, "max_tokens": SEQ_LENGTH + 1 + more},))
        for more in (0, 1)
    )
    for each in (model, again):
        assert len(sweep(each, tokenizer, [], [longest])) == 1
        with pytest.raises(ValueError, match="c4 has 2049 tokens; .* at most 2048"):
            sweep(each, tokenizer, [], [beyond])


def test_tokens_are_those_of_tiktoken(folder):
    vocabulary = ranks(" ".join(CORPUS))
    special = {token: len(vocabulary) + i for i, token in enumerate(qwen1._SPECIAL)}
    theirs = tiktoken.Encoding(
        "qwen", pat_str=qwen1._WORDS, mergeable_ranks=vocabulary, special_tokens=special
    )
    ours = qwen1.tokenizer(folder)
    for text in (*TEXTS, "<|endoftext|><|im_start|>a<|extra_204|>"):
        normal = unicodedata.normalize("NFC", text)
        expected = theirs.encode(normal, allowed_special="all")
        assert ours(text).input_ids == expected
        assert ours.decode(expected) == normal
    assert ours.pad_token_id == special["<|extra_0|>"]
    assert ours.eos_token_id == special["<|endoftext|>"]
