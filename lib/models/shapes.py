"""The sizes of a decoder, as its configuration has them, and what they add up to.

Imports neither torch nor transformers.
"""

from dataclasses import dataclass
from pathlib import Path

from lib import storage

NF4_BYTES = 0.516  # a weight in NF4 with double quantisation: 4 bits and its share of the scales
UNPACKED = 1 / 3  # of a GPU's memory: NF4 weights that take no more in 16 bits are unpacked

# Of each architecture whose parameters are counted: its FFN (gated, plain: of two matrices, or
# fused: gate and up are one); whether lm_head is the embedding unless the configuration says
# otherwise; then how many numbers the norms and biases of a layer have, in multiples of UNITS, and
# those outside.
TABLE = Path(__file__).with_name("architectures.csv")
UNITS = ("hidden", "query", "key", "head", "ffn")
ARCHITECTURES = {
    row["architecture"]: {k: int(v) if v.isdigit() else v for k, v in row.items()}
    for row in storage.rows(TABLE)
}


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
    tied: bool = False  # lm_head is the embedding
    head_dim: int | None = None  # if not hidden / heads
    experts: int = 1
    active_experts: int = 1

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
        inputs = {"gated": [self.ffn] * 2, "plain": [self.ffn], "fused": [2 * self.ffn]}
        into = inputs[ARCHITECTURES[self.architecture]["ffn_kind"]]
        return [(self.hidden, width) for width in into] + [(self.ffn, self.hidden)]

    @property
    def attention(self) -> int:
        """Parameters of a layer's attention matrices."""
        return 2 * self.hidden * (self.query + self.key)

    @property
    def expert(self) -> int:
        """Parameters of a layer's FFN matrices, or of one expert's."""
        return sum(inputs * outputs for inputs, outputs in self.ffn_matrices)

    @property
    def packable(self) -> int:
        """Parameters of a layer that NF4 packs: those of its matrices, except experts."""
        return self.attention + (self.expert if self.experts == 1 else 0)

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        row = ARCHITECTURES[self.architecture]
        vectors = sum(row[unit] * getattr(self, unit) for unit in UNITS)
        return self.active + (self.experts - self.active_experts) * self.expert + vectors

    @property
    def active(self) -> int:
        """Parameters of one layer's matrices that each token is multiplied with."""
        router = self.hidden * self.experts if self.experts > 1 else 0
        return self.attention + self.active_experts * self.expert + router

    @property
    def outside(self) -> int:
        """Parameters outside the layers: embeddings, final norm, lm_head."""
        row, embeddings = ARCHITECTURES[self.architecture], self.vocab_size * self.hidden
        vectors = row["outside_norms"] * self.hidden + row["outside_bias"] * self.vocab_size
        return embeddings * (1 if self.tied else 2) + vectors

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
    if uneven or architecture not in ARCHITECTURES:
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
        tied=raw.get("tie_word_embeddings", ARCHITECTURES[architecture]["tied"] == "yes"),
        head_dim=raw.get("head_dim"),
        experts=experts,
        active_experts=raw.get("num_experts_per_tok", 1) if experts > 1 else 1,
    )
