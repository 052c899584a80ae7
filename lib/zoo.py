"""The table of models known by a short name."""

from dataclasses import dataclass
from functools import partial

from lib.shapes import Shape


@dataclass(frozen=True)
class Healing:
    """What the paper's healing recipe has of its own for a model (section 3 of its appendix)."""

    max_tokens: int
    learning_rate: float  # peak
    rank: int


@dataclass(frozen=True)
class Model:
    """A model known by a short name: where its weights come from, and its sizes."""

    label: str  # as figures show it
    family: str  # models of a family share a panel
    source: str  # an asset, "random", or a hub id
    revision: str | None  # pinned commit of a hub id; None: not pinned, the newest is taken
    shape: Shape
    licence: str
    gated: bool = False  # its licence must be accepted on the hub
    note: str = ""
    healing: Healing | None = None  # of the paper's models

    @property
    def num_layers(self) -> int:
        """L."""
        return self.shape.num_layers

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.shape.vocab_size


_llama2 = partial(Model, family="Llama-2", licence="Llama 2 Community", gated=True)
_qwen1 = partial(Model, family="Qwen", licence="Tongyi Qianwen")
_apache = partial(Model, revision=None, licence="Apache-2.0")
_llama3 = partial(Model, family="Llama-3", revision=None, gated=True)

# The paper's seven are pinned. The others are not: their commits could not be looked up without
# the hub, and a wrong one would be worse than the newest. Sizes: architecture, L, D, FFN, heads,
# KV heads, V, context.
# fmt: off
MODELS = {
    "tiny-random": Model(
        "tiny random Llama", "tiny random", "random", None,
        Shape("llama", 8, 32, 64, 4, 2, 49_152, 2_048, tied=True), "none", note="built on the spot",
    ),
    "smollm2-135m": Model(
        "SmolLM2-135M", "SmolLM2", "asset", None,
        Shape("llama", 30, 576, 1_536, 9, 3, 49_152, 8_192, tied=True), "Apache-2.0",
        note="Instruct; 4-bit weights (Q4_1), dequantised",
    ),
    "llama-2-7b": _llama2(
        "Llama-2-7B", source="meta-llama/Llama-2-7b-hf",
        revision="01c7f73d771dfac7d292323805ebc428287df4f9",
        shape=Shape("llama", 32, 4_096, 11_008, 32, 32, 32_000, 4_096),
        healing=Healing(2048, 3e-4, 2),
    ),
    "llama-2-13b": _llama2(
        "Llama-2-13B", source="meta-llama/Llama-2-13b-hf",
        revision="5c31dfb671ce7cfe2d7bb7c04375e44c55e815b1",
        shape=Shape("llama", 40, 5_120, 13_824, 40, 40, 32_000, 4_096),
        healing=Healing(4096, 3e-4, 64),
    ),
    "llama-2-70b": _llama2(
        "Llama-2-70B", source="meta-llama/Llama-2-70b-hf",
        revision="3aba440b59558f995867ba6e1f58f21d0336b5bb",
        shape=Shape("llama", 80, 8_192, 28_672, 64, 8, 32_000, 4_096),
        healing=Healing(4096, 3e-5, 8),
    ),
    "qwen-7b": _qwen1(
        "Qwen-7B", source="Qwen/Qwen-7B", revision="ef3c5c9c57b252f3149c1408daf4d649ec8b6c85",
        shape=Shape("qwen2", 32, 4_096, 11_008, 32, 32, 151_936, 8_192),
        healing=Healing(2048, 3e-4, 64),
    ),
    "qwen-14b": _qwen1(
        "Qwen-14B", source="Qwen/Qwen-14B", revision="c4051215126d906ac22bb67fe5edb39a921cd831",
        shape=Shape("qwen2", 40, 5_120, 13_696, 40, 40, 152_064, 2_048),
        healing=Healing(4096, 3e-4, 64),  # beyond its context, where it was not trained to rescale
    ),
    "mistral-7b": Model(
        "Mistral-7B", "Mistral and Phi-2", "mistralai/Mistral-7B-v0.1",
        "27d67f1b5f57dc0953326b2601d68371d40ea8da",
        Shape("mistral", 32, 4_096, 14_336, 32, 8, 32_000, 32_768), "Apache-2.0",
        healing=Healing(2048, 3e-6, 4),
    ),
    "phi-2": Model(
        "Phi-2", "Mistral and Phi-2", "microsoft/phi-2",
        "810d367871c1d460086d9f82db8696f2e0a0fcd0",
        Shape("phi", 32, 2_560, 10_240, 32, 32, 51_200, 2_048), "MIT",
        healing=Healing(2048, 2e-4, 64),
    ),
    "smollm2-360m": _apache(
        "SmolLM2-360M", "SmolLM2", "HuggingFaceTB/SmolLM2-360M",
        shape=Shape("llama", 32, 960, 2_560, 15, 5, 49_152, 8_192, tied=True),
    ),
    "smollm2-1.7b": _apache(
        "SmolLM2-1.7B", "SmolLM2", "HuggingFaceTB/SmolLM2-1.7B",
        shape=Shape("llama", 24, 2_048, 8_192, 32, 32, 49_152, 8_192, tied=True),
    ),
    "smollm3-3b": _apache(
        "SmolLM3-3B", "SmolLM3", "HuggingFaceTB/SmolLM3-3B-Base",
        shape=Shape("smollm3", 36, 2_048, 11_008, 16, 4, 128_256, 65_536, tied=True),
    ),
    "qwen2.5-0.5b": _apache(
        "Qwen2.5-0.5B", "Qwen2.5", "Qwen/Qwen2.5-0.5B",
        shape=Shape("qwen2", 24, 896, 4_864, 14, 2, 151_936, 32_768, tied=True),
    ),
    "qwen2.5-1.5b": _apache(
        "Qwen2.5-1.5B", "Qwen2.5", "Qwen/Qwen2.5-1.5B",
        shape=Shape("qwen2", 28, 1_536, 8_960, 12, 2, 151_936, 131_072, tied=True),
    ),
    "qwen2.5-7b": _apache(
        "Qwen2.5-7B", "Qwen2.5", "Qwen/Qwen2.5-7B",
        shape=Shape("qwen2", 28, 3_584, 18_944, 28, 4, 152_064, 131_072),
    ),
    "qwen3-0.6b": _apache(
        "Qwen3-0.6B", "Qwen3", "Qwen/Qwen3-0.6B",
        shape=Shape("qwen3", 28, 1_024, 3_072, 16, 8, 151_936, 40_960, tied=True, head_dim=128),
    ),
    "qwen3-4b": _apache(
        "Qwen3-4B", "Qwen3", "Qwen/Qwen3-4B",
        shape=Shape("qwen3", 36, 2_560, 9_728, 32, 8, 151_936, 40_960, tied=True, head_dim=128),
    ),
    "qwen3-8b": _apache(
        "Qwen3-8B", "Qwen3", "Qwen/Qwen3-8B",
        shape=Shape("qwen3", 36, 4_096, 12_288, 32, 8, 151_936, 40_960),
    ),
    "llama-3.2-1b": _llama3(
        "Llama-3.2-1B", source="meta-llama/Llama-3.2-1B", licence="Llama 3.2 Community",
        shape=Shape("llama", 16, 2_048, 8_192, 32, 8, 128_256, 131_072, tied=True),
    ),
    "llama-3.2-3b": _llama3(
        "Llama-3.2-3B", source="meta-llama/Llama-3.2-3B", licence="Llama 3.2 Community",
        shape=Shape("llama", 28, 3_072, 8_192, 24, 8, 128_256, 131_072, tied=True),
    ),
    "llama-3.1-8b": _llama3(
        "Llama-3.1-8B", source="meta-llama/Llama-3.1-8B", licence="Llama 3.1 Community",
        shape=Shape("llama", 32, 4_096, 14_336, 32, 8, 128_256, 131_072),
    ),
    "olmo-2-1b": _apache(
        "OLMo-2-1B", "OLMo-2", "allenai/OLMo-2-0425-1B",
        shape=Shape("olmo2", 16, 2_048, 8_192, 16, 16, 100_352, 4_096),
    ),
    "olmo-2-7b": _apache(
        "OLMo-2-7B", "OLMo-2", "allenai/OLMo-2-1124-7B",
        shape=Shape("olmo2", 32, 4_096, 11_008, 32, 32, 100_352, 4_096),
    ),
    "gemma-3-1b": Model(
        "Gemma-3-1B", "Gemma-3", "google/gemma-3-1b-pt", None,
        Shape("gemma3_text", 26, 1_152, 6_912, 4, 1, 262_144, 32_768, tied=True, head_dim=256),
        "Gemma", gated=True,
    ),
    "phi-4-mini": Model(
        "Phi-4-mini", "Phi-4", "microsoft/Phi-4-mini-instruct", None,
        Shape("phi3", 32, 3_072, 8_192, 24, 8, 200_064, 131_072, tied=True), "MIT", note="Instruct",
    ),
}
# fmt: on
