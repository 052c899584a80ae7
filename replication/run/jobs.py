"""What each notebook measures, as jobs that a run can split over machines. Imports no torch."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from lib.models import registry
from replication.measure import request
from replication.measure.request import Request
from replication.profiles import Profile
from replication.run.notebooks import NOTEBOOKS


@dataclass(frozen=True)
class Job:
    """One notebook for one model, at one number of dropped layers (None: at all it heals)."""

    notebook: str
    model: str
    size: int | None = None

    @property
    def wave(self) -> int:
        """A job builds on those of the same model and an earlier wave."""
        return NOTEBOOKS[self.notebook].wave

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
        for experiment in NOTEBOOKS[self.notebook].experiments:
            for one in experiment(self.model, distances, profile):
                requests += [one.healing, one] if one.recipe else [one]
        return [one for one in requests if one.params.get("task") != "gsm8k"]


def jobs(profile: Profile, notebooks: Iterable[str]) -> list[Job]:
    """The jobs of `notebooks` (numbers) in the order in which each finds what it builds on.

    A notebook that only draws what others measure has none.
    """
    split = []
    for number in notebooks:
        notebook = NOTEBOOKS[number]
        if notebook.wave is None:
            continue
        for model in notebook.models(profile):
            layers = registry.num_layers(model) if notebook.depths else None
            sizes = [None] if layers is None else notebook.depths(profile, layers, model)
            split += [Job(number, model, size) for size in sizes]
    return split


def by_model(split: Iterable[Job]) -> list[Job]:
    """The same work in fewer jobs: all depths of a model in one."""
    return list(dict.fromkeys(replace(job, size=None) for job in split))
