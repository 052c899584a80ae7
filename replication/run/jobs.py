"""What each notebook measures, as jobs that a run can split over machines. Imports no torch.

The list of notebooks: a question of `replication/beyond` has its line here, and its figures in
`run/notebooks.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from lib.models import registry
from replication.beyond import books, dose, letters, repair, which_block
from replication.measure import damage, experiments, request
from replication.measure.request import Request
from replication.profiles import Profile


@dataclass(frozen=True)
class Part:
    """What a notebook measures of a model, as jobs: its `experiments` for each of `models`.

    wave: it builds on the parts of earlier waves. depths: block sizes that are jobs of their own.
    """

    wave: int
    experiments: tuple[Callable[..., list[Request]], ...]
    models: Callable[[Profile], Sequence[str]] = lambda profile: profile.models
    depths: Callable[[Profile, int, str], list[int]] | None = None  # of so many layers, of a model


CURVES = (experiments.unhealed, dose.requests, experiments.healed)
QUESTIONS = (experiments.reasoning, letters.forms, letters.exits, books.requests)
BLOCKS = (damage.requests, which_block.requests)
REPAIRS = (repair.maps, repair.healings)  # shares healings with 03 and 07
PARTS = {
    "01": Part(0, ()),
    "02": Part(1, (experiments.unhealed, experiments.test_split)),
    "03": Part(2, CURVES, depths=Profile.curve_sizes),
    "05": Part(3, (experiments.prompts,), lambda p: p.ablation_models, Profile.healed_sizes),
    "06": Part(3, (experiments.seeds,), lambda p: p.ablation_models, Profile.ablation_sizes),
    "07": Part(3, (experiments.ranks,), lambda p: p.rank_models, Profile.ablation_sizes),
    "10": Part(3, QUESTIONS, lambda p: p.study_models),
    "11": Part(1, BLOCKS, lambda p: p.study_models),
    "12": Part(4, REPAIRS, lambda p: p.study_models),
}
DRAWN = {*PARTS, "04", "13"}  # 04 and 13 measure nothing that others have not measured


@dataclass(frozen=True)
class Job:
    """One notebook for one model, at one number of dropped layers (None: at all it heals)."""

    notebook: str
    model: str
    size: int | None = None

    @property
    def wave(self) -> int:
        """A job builds on those of the same model and an earlier wave."""
        return PARTS[self.notebook].wave

    @property
    def parameters(self) -> dict:
        """What it changes of the notebook's parameters."""
        sizes = {} if self.size is None else {"SIZES": [self.size]}
        return {"MODELS": [self.model]} | sizes

    def requests(self, distances, profile: Profile) -> list[Request]:
        """The results that it must leave, each healing before the first score that needs it.

        But for what the model writes: where it solves nothing, less is asked.
        """
        profile = profile if self.size is None else replace(profile, sizes=(self.size,))
        requests = [request.similarity(self.model, profile)]
        for experiment in PARTS[self.notebook].experiments:
            for wanted in experiment(self.model, distances, profile):
                requests += [wanted.healing, wanted] if wanted.recipe else [wanted]
        return [r for r in requests if r.params.get("task") != "gsm8k"]


def jobs(profile: Profile, notebooks: Iterable[str]) -> list[Job]:
    """The jobs of `notebooks` (numbers) in the order in which each finds what it builds on.

    A notebook that only draws what others measure has none.
    """
    split = []
    for number in notebooks:
        part = PARTS.get(number)
        for model in part.models(profile) if part else ():
            layers = registry.num_layers(model) if part.depths else None
            sizes = [None] if layers is None else part.depths(profile, layers, model)
            split += [Job(number, model, size) for size in sizes]
    return split


def by_model(split: Iterable[Job]) -> list[Job]:
    """The same work in fewer jobs: all depths of a model in one."""
    return list(dict.fromkeys(replace(job, size=None) for job in split))
