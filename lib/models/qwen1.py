"""Qwen-7B and Qwen-14B as Qwen2 models, from their own files and without running their code.

Up to `seq_length` tokens the two architectures are the same function, bit for bit in fp32. Beyond
it the original rescales its rotary base and its attention (dynamic NTK, log-n), though not in
training: longer sequences can be healed on, but not scored, and `sweep` refuses them.
"""

import base64
import re
from dataclasses import dataclass
from pathlib import Path

from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast, Qwen2Config
from transformers.convert_slow_tokenizer import TikTokenConverter

from .registry import ModelError

MODEL_TYPE = "qwen"
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))]
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NAMES = {  # Qwen-1 -> Qwen2; * is the number of a layer
    "transformer.wte": "model.embed_tokens",
    "transformer.h.*.ln_1": "model.layers.*.input_layernorm",
    "transformer.h.*.attn.c_proj": "model.layers.*.self_attn.o_proj",
    "transformer.h.*.ln_2": "model.layers.*.post_attention_layernorm",
    "transformer.h.*.mlp.w1": "model.layers.*.mlp.up_proj",
    "transformer.h.*.mlp.w2": "model.layers.*.mlp.gate_proj",
    "transformer.h.*.mlp.c_proj": "model.layers.*.mlp.down_proj",
    "transformer.ln_f": "model.norm",
    "lm_head": "lm_head",
}
_BUFFERS = re.compile(r".*(rotary_emb\.inv_freq|masked_bias|logn_tensor)")  # computed, if stored

_FIXED = {  # entries of the configuration that change the function, and what Qwen2 has instead
    "no_bias": True,
    "rotary_pct": 1.0,
    "scale_attn_weights": True,
    "tie_word_embeddings": False,
    "attn_dropout_prob": 0.0,
    "emb_dropout_prob": 0.0,
    "use_cache_quantization": False,
    "quantization_config": None,
}


def config(raw: dict) -> Qwen2Config:
    """Return the Qwen2 configuration of a Qwen-1 config.json.

    Its intermediate_size counts both halves. `exact_length` is how many tokens of a sequence the
    two architectures agree on. Raises ModelError for a configuration that Qwen2 cannot follow.
    """
    head = raw["hidden_size"] // raw["num_attention_heads"]
    config = Qwen2Config(
        exact_length=raw["seq_length"],
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"] // 2,
        num_hidden_layers=raw["num_hidden_layers"],
        num_attention_heads=raw["num_attention_heads"],
        num_key_value_heads=raw["num_attention_heads"],
        max_position_embeddings=raw["seq_length"],
        rms_norm_eps=raw["layer_norm_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": raw.get("rotary_emb_base", 10_000)},
        tie_word_embeddings=False,
    )
    wrong = [key for key, value in _FIXED.items() if raw.get(key, value) != value]
    wrong += [] if raw.get("kv_channels", 0) in (0, head) else ["kv_channels"]
    if wrong:
        entries = ", ".join(f"{key} = {raw[key]!r}" for key in wrong)
        raise ModelError(f"This Qwen-1 is not one that Qwen2 can follow: {entries}.")
    return config


@dataclass(frozen=True)
class _Rows:
    """A range of rows of a stored tensor, read when indexed."""

    tensor: object
    start: int
    stop: int

    def __getitem__(self, index):
        return self.tensor[self.start : self.stop][index]

    def get_shape(self) -> list[int]:
        return [self.stop - self.start, *self.tensor.get_shape()[1:]]


def renamed(tensors: dict) -> dict:
    """Return the tensors under Qwen2's names, c_attn cut into q, k and v; reads nothing.

    Raises ModelError for a tensor that Qwen-1 does not have.
    """
    by_name = {}
    for name, tensor in tensors.items():
        path, _, kind = name.rpartition(".")
        layer = re.fullmatch(r"transformer\.h\.(\d+)\.(.+)", path)
        number, own = layer.groups() if layer else ("", "")
        known = _NAMES.get(f"transformer.h.*.{own}" if layer else path)
        if own == "attn.c_attn":
            third = tensor.get_shape()[0] // 3
            for i, part in enumerate("qkv"):
                rows = _Rows(tensor, i * third, (i + 1) * third)
                by_name[f"model.layers.{number}.self_attn.{part}_proj.{kind}"] = rows
        elif known and kind == "weight":
            by_name[f"{known.replace('*', number)}.{kind}"] = tensor
        elif not _BUFFERS.fullmatch(name):
            raise ModelError(f"{name} is no tensor of the Qwen-1 that is known here.")
    return by_name


class _Vocabulary(TikTokenConverter):
    @staticmethod
    def load_tiktoken_bpe(file: str) -> dict[bytes, int]:
        pairs = (line.split() for line in Path(file).read_bytes().splitlines() if line)
        return {base64.b64decode(token): int(rank) for token, rank in pairs}


def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Return a fast tokenizer from `qwen.tiktoken`; it pads with <|extra_0|>, as the paper did."""
    converter = _Vocabulary(str(folder / "qwen.tiktoken"), _WORDS, extra_special_tokens=_SPECIAL)
    fast = converter.converted()
    fast.normalizer = normalizers.NFC()
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, eos_token="<|endoftext|>", pad_token="<|extra_0|>"
    )
