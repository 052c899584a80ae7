"""Qwen-7B and Qwen-14B as Qwen2 models, from their own files and without running their code.

Up to `seq_length` tokens the two architectures are the same function. Beyond it the original
rescales its rotary base and its attention, which is left out: stay below.
"""

import base64
import re
from dataclasses import dataclass
from pathlib import Path

from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast, Qwen2Config
from transformers.convert_slow_tokenizer import TikTokenConverter

MODEL_TYPE = "qwen"
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))]
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NAMES = {  # Qwen-1 -> Qwen2, below transformer.h.N and model.layers.N
    "ln_1": "input_layernorm",
    "attn.c_proj": "self_attn.o_proj",
    "ln_2": "post_attention_layernorm",
    "mlp.w1": "mlp.up_proj",
    "mlp.w2": "mlp.gate_proj",
    "mlp.c_proj": "mlp.down_proj",
}
_OUTER = {"transformer.wte": "model.embed_tokens", "transformer.ln_f": "model.norm"}


def config(raw: dict) -> Qwen2Config:
    """The Qwen2 configuration of a Qwen-1 config.json. Its intermediate_size counts both halves."""
    return Qwen2Config(
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
    """The tensors under Qwen2's names, c_attn cut into q, k and v; reads nothing."""
    found = {}
    for name, tensor in tensors.items():
        path, _, kind = name.rpartition(".")
        layer = re.fullmatch(r"transformer\.h\.(\d+)\.(.+)", path)
        if layer and layer[2] == "attn.c_attn":
            third = tensor.get_shape()[0] // 3
            for i, part in enumerate("qkv"):
                target = f"model.layers.{layer[1]}.self_attn.{part}_proj.{kind}"
                found[target] = _Rows(tensor, i * third, (i + 1) * third)
        elif layer and layer[2] in _NAMES:
            found[f"model.layers.{layer[1]}.{_NAMES[layer[2]]}.{kind}"] = tensor
        elif not layer:
            found[f"{_OUTER.get(path, path)}.{kind}"] = tensor
    return found


class _Vocabulary(TikTokenConverter):
    @staticmethod
    def load_tiktoken_bpe(file: str) -> dict[bytes, int]:
        pairs = (line.split() for line in Path(file).read_bytes().splitlines() if line)
        return {base64.b64decode(token): int(rank) for token, rank in pairs}


def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A fast tokenizer from `qwen.tiktoken`; it pads with <|extra_0|>, as the paper did."""
    converter = _Vocabulary(str(folder / "qwen.tiktoken"), _WORDS, extra_special_tokens=_SPECIAL)
    fast = converter.converted()
    fast.normalizer = normalizers.NFC()
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, eos_token="<|endoftext|>", pad_token="<|extra_0|>"
    )
