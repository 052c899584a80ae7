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
        q, k = (rotated(part, angle.cos(), angle.sin()) for part in (q, k))
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=past)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        x = x + functional.linear(mixed, own["attn.c_proj.weight"])
        y = normed(x, own["ln_2.weight"])
        up, gate = (functional.linear(y, own[f"mlp.{name}.weight"]) for name in ("w1", "w2"))
        x = x + functional.linear(up * silu(gate), own["mlp.c_proj.weight"])
    return functional.linear(normed(x, w["transformer.ln_f.weight"]), w["lm_head.weight"])


@pytest.mark.parametrize("block", [UNPRUNED, Block(1, 1), Block(0, 2)], ids=str)
def test_logits_are_the_originals_bit_for_bit(folder, whole, block):
    """In fp32; pruned in memory, and loaded without the block."""
    config = json.loads((folder / "config.json").read_text())
    tensors = {n: tensor[...].float() for n, tensor in files.lazy_state_dict(folder).items()}
    part, _ = loading.load(str(folder), dtype="float32", device="cpu", block=block)
    generator = torch.Generator().manual_seed(1)
    for length in (1, 7, 64):
        ids = torch.randint(0, config["vocab_size"], (3, length), generator=generator)
        expected = original(config, tensors, block.kept(LAYERS), ids)
        with torch.inference_mode(), dropped(whole[0], block):
            assert torch.equal(whole[0](ids, use_cache=False).logits, expected)
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
        with pytest.raises(ValueError, match="c4 has 2049 tokens; .* only up to 2048"):
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
