"""The sizes of a decoder, as its configuration has them, and what they add up to.

Imports neither torch nor transformers.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gguf import GGUFReader

# Numbers in the norms and biases of one layer, of every architecture whose parameters are counted.
_VECTORS = {
    "llama": lambda s: 2 * s.hidden,
    "qwen2": lambda s: 2 * s.hidden + s.query + 2 * s.key,
    "qwen3": lambda s: 2 * s.hidden + 2 * s.head,
    "gemma3_text": lambda s: 4 * s.hidden + 2 * s.head,
    "olmo2": lambda s: 2 * s.hidden + s.query + s.key,
    "phi": lambda s: 4 * s.hidden + s.query + 2 * s.key + s.ffn,
    "gpt_neox": lambda s: 6 * s.hidden + s.query + 2 * s.key + s.ffn,
}
_LIKE = {  # architectures with the norms and biases of another
    "mistral": "llama",
    "smollm3": "llama",
    "phi3": "llama",
    "mixtral": "llama",
    "qwen": "qwen2",
    "qwen3_moe": "qwen3",
    "olmoe": "olmo2",
}
_GGUF = {"gemma3": "gemma3_text", "phi2": "phi"}  # architectures that GGUF calls otherwise
_TIED = ("gemma3_text", "smollm3")  # unless the configuration says otherwise
_PATTERNED = ("gemma3_text", "smollm3")  # their layers' attention differs by position
_UNGATED = ("phi", "gpt_neox")  # an FFN of two matrices, and LayerNorms with a bias


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes. Dimensions in numbers, not bytes."""

    architecture: str  # model_type in transformers
    num_layers: int  # L
    hidden: int  # D
    ffn: int  # width of the FFN, or of one expert
    heads: int
    kv_heads: int
    vocab_size: int  # V
    context: int  # longest sequence, tokens
    tied: bool = False  # lm_head is the embedding
    head_dim: int | None = None  # if not hidden / heads
    experts: int = 1
    active_experts: int = 1
    patterned: bool = False  # a list in the configuration says what each layer does

    @property
    def alike(self) -> bool:
        """Whether all layers are of one kind, so that a tool need not know which is which."""
        return not self.patterned and self.architecture not in _PATTERNED

    @property
    def head(self) -> int:
        """Dimension of an attention head."""
        return self.head_dim or self.hidden // self.heads

    @property
    def query(self) -> int:
        """Width of all queries."""
        return self.heads * self.head

    @property
    def key(self) -> int:
        """Width of all keys, and of all values."""
        return self.kv_heads * self.head

    @property
    def ffn_matrices(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each FFN projection of a layer, or of one expert."""
        down = (self.ffn, self.hidden)
        if self.architecture in _UNGATED:
            return [(self.hidden, self.ffn), down]
        if self.architecture == "phi3":  # gate and up are one matrix
            return [(self.hidden, 2 * self.ffn), down]
        return [(self.hidden, self.ffn), (self.hidden, self.ffn), down]

    @property
    def attention(self) -> int:
        """Parameters of a layer's attention matrices."""
        return 2 * self.hidden * (self.query + self.key)

    @property
    def expert(self) -> int:
        """Parameters of a layer's FFN matrices, or of one expert's."""
        return sum(inputs * outputs for inputs, outputs in self.ffn_matrices)

    @property
    def router(self) -> int:
        """Parameters of what chooses a layer's experts."""
        return self.hidden * self.experts if self.experts > 1 else 0

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        vectors = _VECTORS[_LIKE.get(self.architecture, self.architecture)](self)
        return self.attention + self.experts * self.expert + self.router + vectors

    @property
    def active(self) -> int:
        """Parameters of one layer's matrices that each token is multiplied with."""
        return self.attention + self.active_experts * self.expert + self.router

    @property
    def outside(self) -> int:
        """Parameters outside the layers: embeddings, final norm, lm_head."""
        embeddings = self.vocab_size * self.hidden
        norm = self.hidden * (2 if self.architecture in _UNGATED else 1)
        bias = self.vocab_size if self.architecture == "phi" else 0
        return embeddings * (1 if self.tied else 2) + norm + bias

    def parameters(self, layers: int | None = None) -> int:
        """Parameters of the model with `layers` layers; by default all."""
        return self.outside + (self.num_layers if layers is None else layers) * self.layer

    def lora(self, rank: int, layers: int) -> int:
        """Parameters of LoRA adapters of `rank` on the FFN projections of `layers` layers."""
        return rank * layers * sum(map(sum, self.ffn_matrices))


def of_config(raw: dict) -> Shape | None:
    """The shape that a config.json describes.

    None for an architecture that is not known here, or whose layers are not all of one size.
    """
    raw = raw.get("text_config") or raw
    architecture = raw.get("model_type", "")
    uneven = raw.get("mlp_only_layers") or raw.get("decoder_sparse_step", 1) > 1
    if uneven or _LIKE.get(architecture, architecture) not in _VECTORS:
        return None
    qwen1 = architecture == "qwen"  # its intermediate_size counts gate and up
    experts = raw.get("num_local_experts") or raw.get("num_experts") or 1
    return Shape(
        architecture=architecture,
        num_layers=raw["num_hidden_layers"],
        hidden=raw["hidden_size"],
        ffn=raw.get("moe_intermediate_size") or raw["intermediate_size"] // (2 if qwen1 else 1),
        heads=raw["num_attention_heads"],
        kv_heads=raw.get("num_key_value_heads") or raw["num_attention_heads"],
        vocab_size=raw["vocab_size"],
        context=raw["seq_length" if qwen1 else "max_position_embeddings"],
        tied=raw.get("tie_word_embeddings", architecture in _TIED),
        head_dim=raw.get("head_dim"),
        experts=experts,
        active_experts=raw.get("num_experts_per_tok", 1) if experts > 1 else 1,
        patterned=any(
            "layer" in key and isinstance(value, list) and len({*map(str, value)}) > 1
            for key, value in raw.items()
        ),
    )


@cache
def of_gguf(file: Path, revision: str) -> Shape | None:
    """The shape in a GGUF file's header; None for an architecture that is not known here.

    revision: of the file, so that another one in its place is read anew.
    """
    reader = GGUFReader(file)
    name = reader.fields["general.architecture"].contents()
    architecture = _GGUF.get(name, name)
    if _LIKE.get(architecture, architecture) not in _VECTORS:
        return None

    def number(key: str, default: int | None = None) -> int | None:
        field = reader.fields.get(f"{name}.{key}")
        return default if field is None else int(field.contents())

    heads = number("attention.head_count")
    return Shape(
        architecture=architecture,
        num_layers=number("block_count"),
        hidden=number("embedding_length"),
        ffn=number("expert_feed_forward_length") or number("feed_forward_length"),
        heads=heads,
        kv_heads=number("attention.head_count_kv", heads),
        vocab_size=len(reader.fields["tokenizer.ggml.tokens"].data),
        context=number("context_length"),
        tied=all(tensor.name != "output.weight" for tensor in reader.tensors),
        head_dim=number("attention.key_length"),
        experts=number("expert_count") or 1,
        active_experts=number("expert_used_count") or 1,
    )


NF4_BYTES = 0.516  # a weight in NF4 with double quantisation: 4 bits and its share of the scales
